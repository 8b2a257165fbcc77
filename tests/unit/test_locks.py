import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from telepathy import locks

TAKE_OVER = "from telepathy.locks import take_over; take_over(); print('ready', flush=True); {then}"
JOB = """
import time
from telepathy.locks import joined_folder
with joined_folder():
    print('ready', flush=True)
    time.sleep({seconds})
"""


@pytest.fixture
def start(tmp_path):
    """Start Python processes in a folder that Snakemake used, and end them."""
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    (tmp_path / ".snakemake" / "locks" / "0.output.lock").write_text("results/a")
    started = []

    def run(code, **variables):
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def locked(folder):
    return [path.name for path in (folder / ".snakemake" / "locks").iterdir()]


def test_locks_that_a_killed_snakemake_left_are_removed(start, tmp_path):
    assert start(TAKE_OVER.format(then="")).wait() == 0
    assert locked(tmp_path) == []


def test_locks_of_a_snakemake_that_runs_stay(start, tmp_path):
    first = start(TAKE_OVER.format(then="import time; time.sleep(60)"))
    first.stdout.readline()
    (tmp_path / ".snakemake" / "locks" / "0.output.lock").write_text("results/a")
    assert start(TAKE_OVER.format(then="")).wait() == 0
    assert locked(tmp_path) == ["0.output.lock"]


def test_jobs_that_a_killed_snakemake_left_are_waited_for(start, tmp_path):
    job = start(JOB.format(seconds=2))
    job.stdout.readline()
    after = start(TAKE_OVER.format(then=""))
    assert "Waiting for jobs" in after.stderr.readline()
    assert locked(tmp_path) == ["0.output.lock"]
    assert after.wait() == 0
    assert job.wait(5) == 0


def test_a_job_ends_when_the_snakemake_that_started_it_is_killed(start):
    main = start(
        TAKE_OVER.format(then=f"import os, time; print(os.environ[{locks.MAIN!r}], flush=True); time.sleep(60)")
    )
    main.stdout.readline()
    job = start(JOB.format(seconds=60), **{locks.MAIN: main.stdout.readline().strip()})
    job.stdout.readline()
    time.sleep(1)
    assert job.poll() is None
    main.kill()
    assert job.wait(20) == -signal.SIGTERM


def test_a_job_of_another_host_goes_on(start):
    job = start(JOB.format(seconds=1.5), **{locks.MAIN: "elsewhere 1 0.0"})
    assert job.wait(20) == 0


def test_the_lock_of_a_job_ends_with_its_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    locks.FOLDER.mkdir()
    with locks.joined_folder(), open(locks.FOLDER / "telepathy.jobs", "ab") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(locks.FOLDER / "telepathy.jobs", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_outside_a_folder_of_snakemake_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with locks.joined_folder():
        assert list(tmp_path.iterdir()) == []
