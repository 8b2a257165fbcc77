"""300 random configurations: a schema error that names the key, or a run table; nothing else, and nothing is run."""

import copy
import random
import re
from pathlib import Path

import pytest
import yaml

from telepathy.config import check_config, runs_table
from telepathy.errors import TelepathyError
from tests.faults.conftest import COMMAND
from tests.workflow.conftest import ROOT

pytestmark = pytest.mark.faults
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
CONFIG["studies"] = {"smoke": CONFIG["studies"]["smoke"]}  # of all studies' size a check takes seconds
CONFIG["study"] = "smoke"
SAFE = re.compile(r"[a-z0-9][a-z0-9_.-]*")
WILD = [
    None,
    True,
    False,
    0,
    -1,
    10**30,
    -(10**30),
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "a b",
    "größe",
    "日本",
    "../../etc",
    "/etc/passwd",
    "..",
    ".",
    "a/../b",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "| touch pwned",
    "a\nb",
    "a\x00b",
    "{study}",
    "{0}",
    "%s",
    "'",
    '"',
    "\\",
    "*",
    "~",
    "-rf",
    "--help",
    "x" * 10_000,
    [],
    {},
    [None],
    {"a": {"b": {}}},
    {"$(touch pwned)": 1},
    {1: 2},
    [[[]]],
    "null",
    "1e3",
    "bridge",
    "movies",
    "seed",
    ["bridge"],
    ["movies"],
]


def places(value, path=()):
    """Every key and index of a nested value, as paths."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def parent_of(config, path):
    """What holds the last key of a path."""
    for key in path[:-1]:
        config = config[key]
    return config


def mutated(draw: random.Random) -> tuple[dict, list]:
    """The project's configuration with one to three places changed, renamed, removed or added to."""
    config, done = copy.deepcopy(CONFIG), []
    for _ in range(draw.randint(1, 3)):
        path = draw.choice(list(places(config)))
        holder, value, what = (
            parent_of(config, path),
            draw.choice(WILD),
            draw.choice(["set", "set", "rename", "remove", "add"]),
        )
        done.append((what, path, value))
        if what == "set" or isinstance(holder, list):
            holder[path[-1]] = value
        elif what == "rename" and isinstance(value, str):
            holder[value] = holder.pop(path[-1])
        elif what == "remove":
            del holder[path[-1]]
        else:
            holder["$(touch pwned)"] = value
    return config, done


@pytest.mark.parametrize("draw", range(300))
def test_a_random_configuration_is_refused_in_one_sentence_or_works(draw):
    config, done = mutated(random.Random(draw))
    try:
        check_config(config)
        runs = runs_table(config)
    except TelepathyError as error:
        assert str(error).startswith("config.yaml: at "), done
        assert len(str(error)) < 5000, done
        return
    for name in {*runs["study"], *runs["task"], *runs["method"], *config["models"]}:
        assert SAFE.fullmatch(name), done
    assert all(0 <= int(number) < 2**63 for number in {*runs["seed"], *runs["k"]}), done


INJECTIONS = {
    "study name": {"studies": {"$(touch pwned)": {"title": "x"}}},
    "method name": {"methods": {"../../pwned": {"kind": "bridge"}}},
    "model name": {"models": {"; touch pwned": {"title": "x", "source": {"path": "x"}}}},
    "task name": {"tasks": {"a b": "x.yaml"}},
    "package": {
        "models": {"m": {"title": "x", "source": {"package": "a; touch pwned", "file": "f", "sha256": "0" * 64}}}
    },
    "hub": {"models": {"m": {"title": "x", "source": {"hub": "../../pwned"}}}},
    "seed": {"studies": {"smoke": {"seeds": [10**30, "1; touch pwned"]}}},
}


@pytest.mark.parametrize("what", INJECTIONS)
def test_snakemake_refuses_what_would_leave_its_folder_or_run_a_command(new_house, what):
    house = new_house("fuzzed")
    house.path("change.yaml").write_text(yaml.safe_dump(INJECTIONS[what]))
    before = {path for path in house.folder.rglob("*") if ".snakemake" not in path.parts}
    done = house.run(*COMMAND, "--dry-run", "--configfile", "config.yaml", "change.yaml", check=False)
    assert done.status != 0
    assert "config.yaml: at " in done.text
    assert "pwned" not in {path.name for path in Path(house.folder.parent).rglob("*")}
    assert {
        path for path in house.folder.rglob("*") if ".snakemake" not in path.parts and "__pycache__" not in path.parts
    } <= before


def test_a_command_in_a_title_or_a_path_is_only_text(new_house):
    house = new_house("quoted")
    change = {
        "models": {"m": {"title": "$(touch pwned)", "source": {"path": "$(touch pwned); `touch pwned`"}}},
        "studies": {
            "odd": {
                "title": "'; touch pwned #",
                "sender": "m",
                "receiver": "m",
                "seeds": [1],
                "tasks": {"movies": {"soft_tokens": 1}},
                "runs": [{"tasks": ["movies"], "methods": ["bridge"]}],
            }
        },
    }
    house.path("change.yaml").write_text(yaml.safe_dump(change))
    done = house.run(*COMMAND, "--configfile", "config.yaml", "change.yaml", "--", "resources/models/m", check=False)
    assert done.status != 0
    assert "$(touch pwned); `touch pwned`" in done.text
    assert not house.path("pwned").exists()
