"""A study that is small enough to be killed many times: two random models of a few kilobytes, a task of its own."""

import csv
import sys
from pathlib import Path

import pytest
import yaml

from tests.unit import conftest as tiny
from tests.unit.conftest import llama, lms, make_task, task_data, tokenizer  # noqa: F401
from tests.workflow.conftest import House, _copy_project

TOKEN = "hf_" + "NoRealToken" * 3  # put together, so that the copies of this file do not hold it
STUDY = {
    "study": "tiny",
    "device": "cpu",
    "dtype": "float32",
    "models": {f"tiny-{role}": {"title": role, "source": {"path": f"models/{role}"}} for role in ("a", "b")},
    "tasks": {"films": "films.yaml"},
    "studies": {
        "tiny": {
            "title": "Tiny",
            "sender": "tiny-a",
            "receiver": "tiny-b",
            "seeds": [1],
            "settings": {"bridge": {"steps": 4, "batch_size": 2, "evaluations": 2, "checkpoint_every": 1, "width": 16}},
            "tasks": {"films": {"soft_tokens": 2}},
            "runs": [{"tasks": ["films"], "methods": ["bridge", "zero_shot_sender", "label_relay"]}],
        }
    },
}
SIZES = {"train": 12, "dev": 4, "test": 6, "seed": 0}


def write_films(path: Path, rows: list[tuple[str, str]]) -> None:
    """Write examples as csv: text and mood."""
    with open(path, "w", newline="") as handle:
        csv.writer(handle).writerows([("text", "mood"), *rows])


def films(count: int = 24) -> list[tuple[str, str]]:
    """Examples whose words give their label away."""
    words = {"negative": "dull", "positive": "fine"}
    return [(f"a {words[mood]} film of {row} minutes", mood) for row in range(count) for mood in [list(words)[row % 2]]]


@pytest.fixture(scope="session")
def saved_models(lms, tmp_path_factory) -> Path:  # noqa: F811
    """Two tiny models as Hugging Face folders."""
    folder = tmp_path_factory.mktemp("models")
    for role, family in (("a", "llama"), ("b", "gemma3")):
        lms[family].model.save_pretrained(folder / role)
        lms[family].tokenizer.save_pretrained(folder / role)
    return folder


@pytest.fixture(scope="session")
def new_house(saved_models, tmp_path_factory):
    """Make copies of the project with the tiny study, in which nothing is made yet."""

    def make(name: str = "house") -> House:
        house = _copy_project(tmp_path_factory.mktemp(name))
        house.path("models").symlink_to(saved_models)
        source = {"files": {"all": "films.csv"}, "format": "csv"}
        task = {**tiny.LABEL_TASK, "name": "films", "source": source, "splits": SIZES}
        house.path("films.yaml").write_text(yaml.safe_dump(task, sort_keys=False))
        house.path("tiny.yaml").write_text(yaml.safe_dump(STUDY))
        write_films(house.path("films.csv"), films())
        return house

    return make


COMMAND = (sys.executable, "-m", "snakemake", "--profile", "profiles/demo", "--cores", "2")
TINY = ("--configfile", "config.yaml", "tiny.yaml")


def make_study(house: House, *more: str, check: bool = True):
    """Make the tiny study by the command that a user would repeat."""
    return house.run(*COMMAND, *TINY, *more, check=check, HF_TOKEN=TOKEN)


@pytest.fixture(scope="session")
def finished(new_house) -> House:
    """The tiny study, made without disturbance; tests leave it as it is."""
    house = new_house("finished")
    make_study(house)
    return house


def results(house: House) -> dict[str, bytes]:
    """All that the study made and that no rerun changes: predictions, metrics, weights, tables, summary."""
    kept = {}
    for path in sorted([*house.path("results").rglob("*"), *house.path("resources").rglob("*")]):
        name = str(path.relative_to(house.folder))
        if path.is_file() and "/costs/" not in name and path.name not in VOLATILE:
            kept[name] = path.read_bytes()
    return kept


def differing(house: House, other: House) -> list[str]:
    """Name the files that only one of two studies has, or whose bytes differ."""
    ours, theirs = results(house), results(other)
    return sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))


VOLATILE = {"cost.json", "costs.csv", ".snakemake_timestamp", "summary.csv", "paper.tex", "paper.pdf", "report.html"}
VOLATILE |= {f"table9_costs.{ending}" for ending in ("tex", "csv", "html")}
"""Times and memory are measured anew by every run; summary.csv has columns of them (its other columns are compared)."""
