"""What happens to jobs on a cluster, on a real SLURM of one node."""

import json
import signal
import subprocess

import pandas as pd
import pytest

from telepathy.training.loop import TrainingConfig, fit
from tests.slurm import host
from tests.slurm.small.learner import Slow, digest

pytestmark = pytest.mark.slurm
ONCE = ("--retries", "0")


@pytest.fixture(scope="module")
def undisturbed():
    """Weights that the small workflow's training ends with where nothing happens to it."""
    learner = Slow(seconds=0)
    fit(learner, TrainingConfig(steps=80, batch_size=4, checkpoint_every=1000, evaluations=1), seed=1)
    return digest(learner)


def test_a_requeued_job_goes_on_where_it_was(small, undisturbed):
    run = small("out/trained_requeued.json", options=("--retries", "0", "--set-resources", "train:runtime=5"))
    log = run.house.path("logs/train_requeued.log")
    run.until(lambda: log.exists() and "0/80" in log.read_text())
    subprocess.run(["scontrol", "requeue", *run.jobs()], check=True)
    status, said = run.end()
    trained = json.loads(run.house.path("out/trained_requeued.json").read_text())
    assert status == 0, said
    assert (trained["digest"], trained["steps"] < 80) == (undisturbed, True)
    assert "Going on from the checkpoint" in log.read_text()


def test_a_failed_job_shows_its_log(small):
    status, said = small("out/fail.txt", options=ONCE).end()
    assert (status, "the flux capacitor is empty" in said) == (1, True), said


def test_after_scancel_the_same_command_goes_on(small):
    targets = ("out/wait_cancelled.txt", "out/wait_other.txt")
    run = small(*targets, options=ONCE)
    run.house.path("marks/other").mkdir()
    run.until(lambda: run.house.path("out/wait_other.txt").exists() and run.house.path("marks/cancelled").exists())
    run.until(lambda: len(run.jobs()) == 1)
    subprocess.run(["scancel", *run.jobs()], check=True)
    status, said = run.end()
    assert status == 1 and "SLURM status is: 'CANCELLED'" in said
    first = run.house.path("out/wait_other.txt").read_text()
    again, said = small(*targets, options=ONCE, house=run.house).end()
    assert again == 0, said
    assert run.house.path("out/wait_other.txt").read_text() == first


def test_after_control_c_no_job_is_left_and_the_same_command_goes_on(small):
    run = small("out/wait_broken.txt")
    run.until(run.house.path("marks/broken").exists)
    run.interrupt()
    assert run.end()[0] == 1
    run.until(lambda: run.jobs() == [])
    again, said = small("out/wait_broken.txt", house=run.house).end()
    assert again == 0, said


@pytest.mark.parametrize(
    "asked, sentence",
    [
        ("slurm_partition='nosuch'", "invalid partition specified: nosuch"),
        ("constraint='tpu'", "Invalid feature specification"),
        ("gpu_model='abacus'", "Requested node configuration is not available"),
    ],
)
def test_what_the_cluster_does_not_have_is_named(small, asked, sentence):
    status, said = small("out/fail.txt", options=(*ONCE, "--set-resources", f"fail:{asked}", "fail:gpu=1")).end()
    assert (status, sentence in said) == (1, True), said


def test_short_jobs_share_one_place_in_the_queue_and_one_gpu(small):
    outputs = [f"out/short_{number}.txt" for number in range(1, 4)]
    groups = ("--group-components", "shorts=3", "--set-resources", "short:gpu_model='h100'")
    run = small(*outputs, options=groups)
    status, said = run.end()
    jobs = {run.house.path(output).read_text().split()[0] for output in outputs}
    shown = run.house.path(outputs[0]).read_text()
    assert status == 0, said
    assert len(jobs) == 1
    assert "TresPerJob=gres:gpu:h100:1" in shown
    assert "TimeLimit=00:03:00" in shown  # one after another: a minute each


def test_the_smoke_study_goes_through_sbatch_and_ends_with_the_same_predictions(smoke, made):
    status, said = smoke.end()
    assert status == 0, said
    assert smoke.house.path("results/smoke/tables/table1_classification.tex").is_file()
    for path in sorted(made.path("results/smoke/runs").rglob("predictions.parquet")):
        found = smoke.house.path(str(path.relative_to(made.folder)))
        pd.testing.assert_frame_equal(pd.read_parquet(found), pd.read_parquet(path))
        assert found.read_bytes() == path.read_bytes()
    # Encode, train, time, inspect, and one group each of answers and of all that is read.
    assert said.count("has been submitted with SLURM jobid") == 6


def test_a_job_over_its_time_limit_is_tried_again_with_more(over_time):
    status, said = over_time.end()
    assert status == 0, said
    assert "SLURM status is: 'TIMEOUT'" in said
    assert over_time.house.path("out/overrun.txt").read_text().strip() == "2:00"


def test_training_that_is_warned_of_its_time_limit_goes_on_in_the_next_attempt(over_time, undisturbed):
    over_time.end()
    trained = json.loads(over_time.house.path("out/trained_warned.json").read_text())
    assert (trained["digest"], 0 < trained["steps"] < 80) == (undisturbed, True)
    assert f"stopped by {signal.SIGUSR1.name}" in over_time.said.read_text()
    folder = str(over_time.house.folder)
    states = [job["JobState"] for job in host.finished_jobs() if job["WorkDir"] == folder]
    assert sorted(states) == ["COMPLETED", "COMPLETED", "FAILED", "TIMEOUT"]
