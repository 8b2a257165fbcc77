"""The command that measures the GPU rows, at tiny size."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from telepathy.benchmarks.__main__ import main
from telepathy.files import read_yaml

ROOT = Path(__file__).parents[2]
ROWS = {
    "bridge latency, batch 1, median",
    "bridge against text relay of 50 tokens, equal work, batch 1",
    "bridge throughput, batch 16",
    "bridge training step against the measured matrix rate, eager",
    "bridge training step against the measured matrix rate, compiled",
}


@pytest.fixture
def deterministic():
    """Undo at the end what a run demands of PyTorch for the rest of a process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.slow
def test_the_command_measures_all_rows_of_the_goals_eager_and_compiled(gpu, tmp_path, deterministic):
    config = read_yaml(ROOT / "config.yaml")
    little = {"batch_sizes": [2], "warmups": 0, "trials": 1, "batch_trials": 1, "inputs": 2}
    little |= {"batched_relays": False, "protocols": ["equal_work"]}
    config["studies"]["rehearsal_tiny"]["benchmark"] |= little
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    options = ["--study", "rehearsal_tiny", "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "gpu")]
    options += ["--batch-sizes", "1", "16", "--relays", "50"]
    assert main([*options, "--modes", "eager", "compiled"]) == 0
    table = pd.read_csv(tmp_path / "gpu" / "speed.csv")
    assert set(table["what"]) == ROWS
    assert set(table["status"]) == {"measured"}
    assert (table["value"] > 0).all()
    latency = pd.read_csv(tmp_path / "gpu" / "latency.csv")
    assert set(latency["device"]) == {"cuda"}
    assert set(latency["mode"]) == {"eager", "compiled"}
    assert set(latency["batch_size"]) == {1, 16}
    assert {arm for arm in latency["arm"] if arm.startswith("text_relay")} == {"text_relay_50", "text_relay_50_fixed"}
