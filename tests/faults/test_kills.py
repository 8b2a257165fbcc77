"""kill -9 of Snakemake, of its jobs or of all of them, at random moments; then the same command."""

import os
import random
import subprocess
import time

import pandas as pd
import psutil
import pytest

from tests.faults.conftest import COMMAND, TINY, TOKEN, differing, make_study

pytestmark = pytest.mark.faults
MOMENTS = int(os.environ.get("TELEPATHY_KILLS", "20"))
"""How many kills; `TELEPATHY_KILLS=5 make test-faults` for a quick round."""
TARGETS = ("--", "results/tiny/summary.csv", "results/tiny/tables/table1_classification.tex")


def _started(house) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, *TINY, *TARGETS],
        cwd=house.folder,
        env={**os.environ, "HF_TOKEN": TOKEN},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _victims(main: subprocess.Popen, whom: str) -> list[psutil.Process]:
    jobs = psutil.Process(main.pid).children(recursive=True)
    chosen = {"snakemake": [], "job": jobs[-1:], "jobs": jobs, "all": jobs}[whom]
    return [*chosen, *([psutil.Process(main.pid)] if whom in ("snakemake", "all") else [])]


def _kill(main: subprocess.Popen, whom: str) -> bool:
    """Kill, and say whether there was something to kill."""
    try:
        victims = _victims(main, whom)
        for process in victims:
            process.kill()
    except psutil.NoSuchProcess:  # it ended by itself just then
        return False
    return bool(victims)


def _check_same(house, finished) -> None:
    assert differing(house, finished) == []
    same = [pd.read_csv(place.path("results/tiny/summary.csv")).drop(columns=MEASURED) for place in (house, finished)]
    pd.testing.assert_frame_equal(*same)


def test_killed_at_random_moments_the_same_command_ends_with_the_same_bytes(new_house):
    """A study that gets done between two kills is compared, and the next kills hit one begun anew."""
    finished, draw, before = new_house("undisturbed"), random.Random(7), time.monotonic()
    make_study(finished, *TARGETS)
    duration = time.monotonic() - before
    house, kills = new_house("killed"), 0
    while kills < MOMENTS:
        main = _started(house)
        try:
            main.wait(draw.uniform(0.05, 0.5) * duration)
        except subprocess.TimeoutExpired:
            kills += _kill(main, draw.choice(["snakemake", "job", "jobs", "all"]))
        if main.wait() == 0:
            _check_same(house, finished)
            house = new_house("killed")
    make_study(house, *TARGETS)
    _check_same(house, finished)


MEASURED = ["train_seconds", "peak_memory_mb"]
