"""The rehearsal at tiny shapes, each of its jobs on the emulated GPU."""

from pathlib import Path

import pandas as pd
import pytest

from telepathy.files import read_json
from tests.workflow.conftest import _copy_project

from .conftest import LIBRARY

pytestmark = pytest.mark.slow

STUDY = "results/rehearsal_tiny"
ON_THE_CPU = {"linear_probe", "label_relay"}


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """The study's measurements and what they need."""
    house = _copy_project(tmp_path_factory.mktemp("rehearsal"))
    on_a_gpu = {"PYTHONPATH": str(Path(__file__).parent), "EMULATED_GPU": str(LIBRARY)}
    command = ["snakemake", "--profile", "profiles/demo", "--cores", "2"]
    house.run(*command, f"{STUDY}/summary.csv", f"{STUDY}/forecast.csv", f"{STUDY}/latency.csv", **on_a_gpu)
    return house


def test_every_method_answers_on_the_gpu(rehearsed):
    summary = pd.read_csv(rehearsed.path(f"{STUDY}/summary.csv"))
    assert set(summary["n"]) == {16}
    for file in rehearsed.path(f"{STUDY}/runs").rglob("metrics.json"):
        method = file.parts[-4]
        device = read_json(file)["provenance"]["compute"]["device"]
        assert device == ("cpu" if method in ON_THE_CPU else "cuda"), method


def test_the_forecast_takes_all_jobs_for_measured(rehearsed):
    table = pd.read_csv(rehearsed.path(f"{STUDY}/forecast.csv"))
    assert set(table["status"]) == {"measured", "no gpu"}
    total = table.query("rule == 'total'")["gpu_hours"].item()
    assert total == pytest.approx(table.query("rule != 'total'")["gpu_hours"].sum(), abs=1e-3)


def test_the_forecast_says_how_much_of_the_gpu_jobs_held(rehearsed):
    table = pd.read_csv(rehearsed.path(f"{STUDY}/forecast.csv")).query("rule != 'total' and status == 'measured'")
    assert set(table["max_gpu_memory_mb"]) == {3072}


def test_latency_is_timed_on_the_gpu(rehearsed):
    assert set(pd.read_csv(rehearsed.path(f"{STUDY}/latency.csv"))["device"]) == {"cuda"}
