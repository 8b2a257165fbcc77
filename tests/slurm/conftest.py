"""SLURM's daemons for the session, and copies of the project whose jobs go through them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm import host
from tests.workflow.conftest import House, _copy_made, _copy_project, made  # noqa: F401

FAST = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "5")
SMALL = ("--snakefile", "tests/slurm/small/Snakefile", "--default-resources", "mem_mb=500", "runtime=2")
PATIENCE = 600.0


def _hear_interrupts() -> None:
    """What a script starts in the background inherits SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Run:
    """A Snakemake that submits to SLURM while the test does something else."""

    def __init__(self, house: House, *arguments: str):
        self.house, self.said = house, house.path("said")
        variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        variables["PYTHONPATH"] = str(house.folder)
        with open(self.said, "a") as said:
            # A group of its own, as under a shell: SIGINT goes to all of it, as Ctrl-C does.
            self.process = subprocess.Popen(
                ["snakemake", "--profile", "slurm", *FAST, *arguments],
                cwd=house.folder,
                env=variables,
                stdout=said,
                stderr=said,
                start_new_session=True,
                preexec_fn=_hear_interrupts,
            )

    def end(self) -> tuple[int, str]:
        """Wait until it ends; its status and all that was said in this folder."""
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(self.said.read_text()[-4000:]) from None
        return status, self.said.read_text()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def jobs(self) -> list[str]:
        """SLURM's numbers of the jobs of this folder that wait or run."""
        listed = subprocess.run(["squeue", "-h", "-o", "%A %Z"], text=True, capture_output=True, check=True).stdout
        rows = [line.split(" ", 1) for line in listed.splitlines()]
        return [number for number, folder in rows if folder == str(self.house.folder)]

    def until(self, ready: Callable[[], object]) -> None:
        """Wait for something that the jobs do."""
        end = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < end, self.said.read_text()[-4000:]
            time.sleep(0.3)


@pytest.fixture(scope="session", autouse=True)
def slurm():
    """The daemons; a missing package is an error that says what to install."""
    host.start()
    yield
    host.stop()


@pytest.fixture(scope="session")
def small_house(tmp_path_factory):
    """Make copies of the project, each for one run of the small workflow."""

    def make(name: str) -> House:
        copied = _copy_project(tmp_path_factory.mktemp(name))
        copied.path("marks").mkdir()
        return copied

    return make


@pytest.fixture
def small(small_house):
    """Start a run of the small workflow."""

    def start(*targets: str, options: tuple[str, ...] = (), house: House | None = None) -> Run:
        return Run(house or small_house("small"), *targets, *SMALL, *options)

    return start


WARNED = ("--default-resources", "mem_mb=500", "slurm_extra='--signal=USR1@5'")


@pytest.fixture(scope="session")
def over_time(small_house, slurm) -> Run:
    """Two jobs that take longer than they may, one warned; started first, since SLURM counts in minutes."""
    return Run(small_house("time"), "out/overrun.txt", "out/trained_warned.json", *SMALL, *WARNED)


@pytest.fixture(scope="session")
def smoke(made, slurm, tmp_path_factory) -> Run:  # noqa: F811
    """The smoke study, with a GPU a job, through SLURM; models and data are linked, nothing else is made."""
    house = _copy_made(tmp_path_factory.mktemp("smoke"))
    for name in ("results/smoke", "resources/features/smoke"):
        subprocess.run(["rm", "-r", house.path(name)], check=True)
    house.path("gpu.yaml").write_text("studies: {smoke: {gpus: 1}}\n")
    wanted = ("--configfile", "config.yaml", "gpu.yaml", "--config", "study=smoke")
    asked = ("--default-resources", "mem_mb=1000", "runtime=10", "gpu_model='h100'")
    return Run(house, *wanted, *asked)


@pytest.fixture(scope="session", autouse=True)
def early(request):
    """Start at once what takes long, if a chosen test needs it: the other tests run meanwhile."""
    for name in ("over_time", "smoke"):
        if any(name in item.fixturenames for item in request.session.items):
            request.getfixturevalue(name)
