"""Run Snakemake as a user does: in child processes, in copies of the project."""

import os
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
JOB = re.compile(r"^(?:local)?rule (\w+):$", re.MULTILINE)
WILDCARDS = re.compile(r"^    wildcards: (.*)$", re.MULTILINE)


@dataclass
class Done:
    """A finished command."""

    status: int
    text: str
    cpu_seconds: float

    def jobs(self) -> list[tuple[str, dict[str, str]]]:
        """Rule and wildcards of every job that a dry run lists."""
        found = []
        for block in re.split(r"^\[.*\d{4}\]$", self.text, flags=re.MULTILINE):
            rule = JOB.search(block)
            if rule:
                said = WILDCARDS.search(block)
                pairs = said.group(1).split(", ") if said else []
                found.append((rule.group(1), dict(pair.split("=", 1) for pair in pairs)))
        return found


@dataclass
class House:
    """A folder in which Snakemake runs."""

    folder: Path

    def run(self, *command: str, check: bool = True, **environment: str) -> Done:
        """Run a command with no way to a network, in the environment of these tests as if it were activated."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", **environment}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            command, cwd=self.folder, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert not check or done.returncode == 0, done.stdout[-4000:]
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Done(done.returncode, done.stdout, seconds)

    def snakemake(self, *arguments: str, check: bool = True) -> Done:
        """Run Snakemake as the demo does."""
        command = (sys.executable, "-m", "snakemake", "--profile", "profiles/demo", "--cores", "2")
        return self.run(*command, *arguments, check=check)

    def path(self, name: str) -> Path:
        """A file of this folder."""
        return self.folder / name


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _copy_project(target: Path) -> House:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        source = ROOT / name
        if source.exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)
    return House(target)


@pytest.fixture(scope="session")
def house(tmp_path_factory) -> House:
    """A copy of the project with nothing made in it; tests leave it as it is."""
    return _copy_project(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house_copy(tmp_path) -> House:
    """A copy of the project with nothing made in it, to change at will."""
    return _copy_project(tmp_path / "copy")


def make_in_project(*arguments: str) -> None:
    """Run Snakemake in the project's own folder, one test at a time where several processes run tests."""
    command = (sys.executable, "-m", "snakemake", "--profile", "profiles/demo", "--cores", "2")
    (ROOT / ".snakemake").mkdir(exist_ok=True)
    with FileLock(ROOT / ".snakemake" / "tests.lock"):
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> House:
    """A copy of the project in which the smoke study was made; tests leave it as it is.

    The study is made in the project's own folder, where models and data are fetched once, and its
    large files are linked into the copy.
    """
    make_in_project("--config", "study=smoke")
    return _copy_made(tmp_path_factory.mktemp("made"))


@pytest.fixture
def made_copy(made, tmp_path) -> House:
    """A copy of the project in which the smoke study was made, to change at will."""
    return _copy_made(tmp_path / "copy")


def _copy_made(target: Path) -> House:
    copied = _copy_project(target)
    folders = [".snakemake/metadata", "resources/costs", "resources/pins", "resources/features/smoke", "results/smoke"]
    for name in folders:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name)
    linked = ["resources/models", "resources/raw/movies", "resources/tasks/movies"]
    for name in [*linked, "resources/downloads/vaderSentiment-2.5"]:
        shutil.copytree(ROOT / name, target / name, copy_function=_link)
        shutil.copystat(ROOT / name, target / name)
    return copied
