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


def _started(house) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, *TINY],
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


def _kill(main: subprocess.Popen, whom: str) -> None:
    try:
        for process in _victims(main, whom):
            process.kill()
    except psutil.NoSuchProcess:  # it ended by itself just then
        pass


@pytest.fixture(scope="module")
def duration(new_house) -> float:
    """Seconds that the study takes, from an empty folder."""
    before = time.monotonic()
    make_study(new_house("timed"))
    return time.monotonic() - before


def test_killed_at_random_moments_the_same_command_ends_with_the_same_bytes(new_house, finished, duration):
    house, draw = new_house("killed"), random.Random(7)
    for _ in range(MOMENTS):
        main = _started(house)
        moment = draw.uniform(0.1, 0.8) * duration
        try:
            main.wait(moment)
        except subprocess.TimeoutExpired:
            _kill(main, draw.choice(["snakemake", "job", "jobs", "all"]))
        main.wait()
    make_study(house)
    assert differing(house, finished) == []
    same = [pd.read_csv(place.path("results/tiny/summary.csv")).drop(columns=MEASURED) for place in (house, finished)]
    pd.testing.assert_frame_equal(*same)


MEASURED = ["train_seconds", "peak_memory_mb"]
