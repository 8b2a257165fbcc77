"""Disks that are full while something is written: the path and the need are named, and no half file is left."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from telepathy.errors import TelepathyError
from telepathy.features import FeatureStore, encode_task
from telepathy.files import write_json, write_parquet
from telepathy.tasks.data import cache_task
from telepathy.training.checkpoints import load_checkpoint, save_checkpoint
from tests.faults.conftest import films, write_films

pytestmark = pytest.mark.faults
MIB = 2**20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        raise RuntimeError("The tests of full disks mount a file system and must run as root.")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def refusal(target: Path, need: float) -> str:
    """What must be said: the path and at least so many MiB."""
    return rf"The disk is full: {target} could not be written \(it needs {need:.1f} MiB at least, \d\.\d MiB are left"


def test_features_that_do_not_fit_are_refused_before_a_byte_of_them_is_mapped(small_disk, llama, make_task):
    task = make_task()
    frame = pd.DataFrame({"id": range(900), "text": "a fine film that I know and like", "label": "positive"})
    target = small_disk / "features"
    with pytest.raises(TelepathyError, match="The disk is full") as caught:
        encode_task(llama, task, {"train": frame}, target, layers=[1])
    tokens = 900 * len(llama.token_ids(task.prompt.format(text=frame["text"][0]))) + 900
    need = float(str(caught.value).split("it needs ")[1].split(" MiB")[0])
    assert str(target) in str(caught.value)
    assert need == pytest.approx(tokens * llama.width * 2 / MIB, rel=0.05)
    assert list(small_disk.iterdir()) == []


def test_a_store_that_was_there_survives_a_full_disk(small_disk, llama, make_task):
    task = make_task()
    frame = pd.DataFrame({"id": range(900), "text": "a fine film that I know and like", "label": "positive"})
    encode_task(llama, task, {"train": frame.head(5)}, small_disk / "features", layers=[1])
    with pytest.raises(TelepathyError, match="disk is full"):
        encode_task(llama, task, {"train": frame}, small_disk / "features", layers=[1])
    assert len(FeatureStore(small_disk / "features", "train", task)) == 5


def _model(width: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    module = torch.nn.Linear(width, width)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, width)).sum().backward()
    optimizer.step()
    return module, optimizer


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(small_disk):
    module, optimizer = _model(150)
    state = {"step": 1, "history": [], "best": None, "losses": [], "norms": []}
    save_checkpoint(small_disk / "run", "mark", module, optimizer, state)
    larger, its_optimizer = _model(400)
    with pytest.raises(TelepathyError, match=f"The disk is full: {small_disk / 'run' / 'last.safetensors'}"):
        save_checkpoint(small_disk / "run", "mark", larger, its_optimizer, {**state, "step": 2})
    assert load_checkpoint(small_disk / "run", "mark", module, optimizer)["step"] == 1
    assert {path.name for path in (small_disk / "run").iterdir()} == {"last.safetensors"}


def test_parquet_that_does_not_fit_leaves_the_one_before(small_disk):
    target = small_disk / "predictions.parquet"
    write_parquet(target, pd.DataFrame({"a": [1]}))
    noise = pd.DataFrame({"a": np.random.default_rng(0).random(400_000)})
    with pytest.raises(TelepathyError, match=f"The disk is full: {target}"):
        write_parquet(target, noise)
    assert pd.read_parquet(target)["a"].tolist() == [1]
    assert {path.name for path in small_disk.iterdir()} == {target.name}


def test_json_that_does_not_fit_leaves_the_one_before(small_disk):
    target = small_disk / "metrics.json"
    write_json(target, 1)
    with pytest.raises(TelepathyError, match=refusal(target, 1.0)):
        write_json(target, "x" * 2 * MIB)
    assert target.read_text() == "1\n"


def test_a_task_that_does_not_fit_leaves_no_folder(small_disk, tmp_path, make_task):
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [
        (text + "".join(map(str, np.random.default_rng(row).random(80))), mood)
        for row, (text, mood) in enumerate(films(2000))
    ]
    write_films(raw / "all", rows)
    write_json(raw / "source.json", {})
    task = make_task(splits={"train": 1900, "dev": 10, "test": 10, "seed": 0})
    with pytest.raises(TelepathyError, match=f"The disk is full: {small_disk / 'films'}"):
        cache_task(task, raw, small_disk / "films")
    assert list(small_disk.iterdir()) == []


def test_a_limit_on_the_size_of_files_is_told_the_same_way(tmp_path):
    code = "import resource, sys; from pathlib import Path; from telepathy.files import write_json\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); write_json(Path(sys.argv[1]), 'x' * 5000)"
    target = tmp_path / "a.json"
    done = subprocess.run([os.sys.executable, "-c", code, str(target)], capture_output=True, text=True)
    assert f"TelepathyError: The disk is full: {target}" in done.stderr
    assert list(tmp_path.iterdir()) == []
