"""A study whose jobs are shared by two processes, which on a machine without GPUs compute on the CPU."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.faults.conftest import STUDY, make_study

pytestmark = pytest.mark.faults
RUN = "results/tiny/runs/films/bridge/k2/seed1"


@pytest.fixture(scope="module")
def shared(new_house):
    """The tiny study with two processes a job."""
    house = new_house("shared")
    study = {**STUDY["studies"]["tiny"], "gpus": 2}
    house.path("tiny.yaml").write_text(yaml.safe_dump({**STUDY, "studies": {"tiny": study}}))
    make_study(house, "--resources", "gpu=2")  # the profile says that this machine has one
    return house


def scores(house):
    return np.stack(pd.read_parquet(house.path(f"{RUN}/predictions.parquet"))["scores"].tolist())


def test_the_bridge_answers_as_that_of_one_process(shared, finished):
    np.testing.assert_allclose(scores(shared), scores(finished), rtol=1e-3, atol=1e-4)


def test_the_history_has_the_same_accuracies(shared, finished):
    histories = [json.loads(house.path(f"{RUN}/bridge/training.json").read_text()) for house in (shared, finished)]
    one, two = ([record["accuracy"] for record in history["history"]] for history in histories)
    assert one == two


def test_each_job_was_run_by_two_processes_and_logged_once(shared):
    log = shared.path("logs/tiny/train_bridge/films_bridge_k2_seed1.log").read_text()
    told = re.findall(r"^step .*$", log, re.MULTILINE)
    assert len(told) == len(set(told)) > 0
    for rule in ("train_bridge/films_bridge_k2_seed1", "encode_task/tiny-a_films"):
        assert shared.path(f"logs/tiny/{rule}.log").read_text().count("2 processes share this job") == 1
