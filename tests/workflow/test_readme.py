"""What the README says can be typed, can be typed; what it shows is what a rule made."""

import re
import shlex
from pathlib import Path

import pytest

from telepathy.config import schema

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line and not line.startswith("#")
]


def test_the_readme_has_commands():
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make ")])
def test_make_knows_the_target(house, command):
    done = house.run("make", "--dry-run", *shlex.split(command)[1:])
    assert "No rule" not in done.text


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("snakemake ")])
def test_snakemake_finds_jobs_for_the_command(house, command):
    done = house.run(*shlex.split(command), "--dry-run")
    assert "Job stats:" in done.text


def test_there_is_no_other_kind_of_command():
    assert {line.split()[0] for line in COMMANDS} <= {"make", "snakemake"}


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:telepathy|profiles|workflow_scripts|docs)/[\w./]*)`", README)))
)
def test_a_file_that_the_readme_names_exists(house, path):
    assert house.path(path).exists()


@pytest.mark.parametrize("path", re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README))
def test_a_picture_that_the_readme_shows_exists(house, path):
    assert house.path(path).read_text().lstrip().startswith("<?xml")


def test_make_alone_lists_every_target(house):
    text = house.run("make").text
    for target in ("demo", "test", "paper", "dag", "lint", "clean"):
        assert re.search(rf"^{target}\s", text, flags=re.MULTILINE), target


def test_every_study_of_the_readme_is_in_the_configuration(house):
    rows = re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)
    config = house.path("config.yaml").read_text()
    for name in rows:
        assert re.search(rf"^  {name}:$", config, flags=re.MULTILINE), name


def test_every_kind_of_method_has_a_described_schema():
    for kind, entry in schema()["$defs"]["method"].items():
        assert entry["description"], kind
        assert entry["additionalProperties"] is False, kind
