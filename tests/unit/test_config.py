import copy
from dataclasses import MISSING, fields
from itertools import product
from pathlib import Path

import jsonschema
import pytest
import snakemake.utils
import yaml

from telepathy.bridges import BridgeConfig
from telepathy.config import (
    bridge_settings,
    check_config,
    encoded_layers,
    method_settings,
    model_of,
    runs_table,
    schema,
    study_of,
    task_file,
    task_files,
)
from telepathy.errors import TelepathyError
from telepathy.training.bridge import ReceiverSide
from telepathy.training.loop import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "models": {
        "one": {"title": "One", "source": {"path": "one"}},
        "two": {"title": "Two", "source": {"path": "two"}},
    },
    "methods": {
        "bridge": {"kind": "bridge", "title": "Bridge"},
        "deep": {"inherit": "bridge", "depth": 4, "learning_rate": 0.5},
        "deeper": {"inherit": "deep", "depth": 6},
        "zeroed": {"kind": "control", "of": "bridge", "control": "zeroed"},
        "zero_shot": {"kind": "zero_shot"},
        "few_shot": {"kind": "few_shot"},
        "lora": {"kind": "lora"},
        "soft_prompt": {"kind": "prompt_tuning"},
        "probe": {"kind": "linear_probe"},
        "relay": {"kind": "text_relay"},
        "echo": {"kind": "label_relay", "sent_by": "zero_shot"},
    },
    "studies": {
        "first": {
            "title": "First",
            "sender": "one",
            "receiver": "two",
            "seeds": [1, 2],
            "tasks": {"movies": {"soft_tokens": 8}, "newsgroups": {"soft_tokens": 4}},
            "runs": [{"tasks": ["movies"], "methods": ["bridge"]}],
        }
    },
    "study": "first",
}


@pytest.fixture
def config():
    return copy.deepcopy(SMALL)


@pytest.fixture
def study(config):
    return config["studies"]["first"]


def refused(config, *parts):
    """The sentence with which a configuration is refused; every part must be in it, in this order."""
    with pytest.raises(TelepathyError) as error:
        check_config(config)
    message = str(error.value)
    places = [message.find(part) for part in parts]
    assert "\n" not in message
    assert -1 not in places and places == sorted(places), message


def test_the_small_configuration_is_accepted(config):
    check_config(config)


def test_the_projects_own_configuration_is_accepted():
    check_config(yaml.safe_load((ROOT / "config.yaml").read_text()))


def test_defaults_are_filled_in_as_snakemakes_own_validation_does():
    ours = yaml.safe_load((ROOT / "config.yaml").read_text())
    theirs = copy.deepcopy(ours)
    check_config(ours)
    snakemake.utils.validate(theirs, str(ROOT / "telepathy/config.schema.yaml"))
    assert ours == theirs and ours["plugins"] == []


def test_a_default_that_was_filled_in_is_the_configurations_own(config):
    other = copy.deepcopy(config)
    check_config(config)
    config["plugins"].append("mine.py")
    check_config(other)
    assert other["plugins"] == []


def test_an_unknown_study_is_refused_with_those_that_exist(config):
    config["study"] = "frist"
    refused(config, "at study, there is no study 'frist'", "choose one of first.")


def test_a_study_that_is_asked_for_and_does_not_exist_is_refused(config):
    with pytest.raises(TelepathyError, match="there is no study 'frist'; choose one of first"):
        study_of(config, "frist")


@pytest.mark.parametrize("role", ["sender", "receiver"])
def test_an_unknown_model_is_refused_with_those_that_exist(config, study, role):
    study[role] = "three"
    refused(config, "at studies.first, there is no model 'three'", "choose one of one, two.")


def test_an_unknown_task_is_refused_with_those_that_exist(config, study):
    study["tasks"]["moves"] = {"soft_tokens": 8}
    refused(
        config, "at studies.first.tasks, there is no task 'moves'", "choose one of agnews", "movies", "wordproblems."
    )


def test_a_task_that_the_study_does_not_have_is_refused_with_those_that_it_has(config, study):
    study["runs"][0]["tasks"] = ["sst2"]
    refused(config, "studies.first.runs, there is no task of the study 'sst2'", "choose one of movies, newsgroups.")


def test_an_unknown_method_is_refused_with_those_that_exist(config, study):
    study["runs"][0]["methods"] = ["brigde"]
    refused(config, "at studies.first.runs, there is no method 'brigde'", "choose one of bridge, deep", "zeroed.")


def test_an_unknown_kind_is_refused_with_those_that_exist(config):
    config["methods"]["new"] = {"kind": "magic"}
    refused(config, "at methods.new.kind, there is no kind 'magic'", "choose one of bridge, control", "zero_shot.")


def test_an_unknown_key_of_a_method_is_refused_with_those_that_exist(config):
    config["methods"]["new"] = {"kind": "bridge", "widht": 64}
    refused(config, "at methods.new, ", "'widht' was unexpected", "the keys are", "steps", "width")


def test_an_unknown_key_in_the_settings_of_a_study_is_refused(config, study):
    study["settings"] = {"bridge": {"widht": 64}}
    with pytest.raises(TelepathyError, match=r"'widht' was unexpected.*the keys are .*width"):
        method_settings(config, "bridge", "first")


def test_settings_for_an_unknown_method_are_refused_with_methods_and_kinds(config, study):
    study["settings"] = {"brigde": {"width": 64}}
    refused(
        config,
        "at studies.first.settings, there is no method or kind 'brigde'",
        "bridge, control, deep",
        "label_relay, linear_probe, lora, own, probe",
    )


def test_settings_of_a_task_for_an_unknown_method_are_refused(config, study):
    study["tasks"]["movies"]["settings"] = {"brigde": {"width": 64}}
    refused(config, "at studies.first.settings, there is no method or kind 'brigde'")


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("width", -1, "methods.new.width, -1 is less than the minimum of 0"),
        ("warmup", 1.0, "methods.new.warmup, 1.0 is greater than or equal to the maximum of 1"),
        ("schedule", "linear", "methods.new.schedule, 'linear' is not one of ['cosine', 'constant']"),
        ("bos", "yes", "methods.new.bos, 'yes' is not of type 'boolean'"),
        ("steps", 1.5, "methods.new.steps, 1.5 is not of type 'integer'"),
    ],
)
def test_a_value_that_a_key_does_not_take_is_refused_with_the_key(config, key, value, said):
    config["methods"]["new"] = {"kind": "bridge", key: value}
    refused(config, said)


def test_a_control_of_an_unknown_bridge_is_refused(config):
    config["methods"]["zeroed"]["of"] = "brigde"
    refused(config, "at methods.zeroed.of, there is no method 'brigde'")


def test_a_relay_of_an_unknown_methods_answers_is_refused(config):
    config["methods"]["echo"]["sent_by"] = "zero"
    refused(config, "at methods.echo.sent_by, there is no method 'zero'")


@pytest.mark.parametrize(
    "place", [(), ("models", "one"), ("studies", "first"), ("studies", "first", "tasks", "movies")]
)
def test_an_unknown_key_anywhere_is_refused_with_its_place(config, place):
    entry = config
    for step in place:
        entry = entry[step]
    entry["surprise"] = 1
    refused(config, f"at {'.'.join(place) or 'the top level'}, ", "'surprise' was unexpected")


def test_a_method_has_what_it_inherits(config):
    settings = method_settings(config, "deeper")
    assert (settings["kind"], settings["depth"], settings["learning_rate"]) == ("bridge", 6, 0.5)


def test_a_method_that_inherits_has_its_own_title(config):
    assert method_settings(config, "deep")["title"] == "deep"


def test_a_circle_of_inheritance_is_refused_with_its_members(config):
    config["methods"]["bridge"] = {"inherit": "deeper"}
    with pytest.raises(TelepathyError, match="bridge -> deeper -> deep -> bridge inherit from each other in a circle"):
        method_settings(config, "bridge")


def test_a_parent_that_does_not_exist_is_refused(config):
    config["methods"]["deep"]["inherit"] = "brigde"
    with pytest.raises(TelepathyError, match="there is no method 'brigde'"):
        method_settings(config, "deep")


LAYERS = ["default", "study by kind", "task by kind", "method", "study by method", "task by method"]


@pytest.mark.parametrize("highest", range(len(LAYERS)), ids=LAYERS)
def test_the_last_layer_of_settings_wins(config, study, highest):
    layers = {
        1: study.setdefault("settings", {}).setdefault("bridge", {}),
        2: study["tasks"]["movies"].setdefault("settings", {}).setdefault("bridge", {}),
        3: config["methods"]["deep"],
        4: study["settings"].setdefault("deep", {}),
        5: study["tasks"]["movies"]["settings"].setdefault("deep", {}),
    }
    for place, entry in layers.items():
        if place <= highest:
            entry["batch_size"] = 100 + place
    expected = (
        schema()["$defs"]["method"]["bridge"]["properties"]["batch_size"]["default"] if not highest else 100 + highest
    )
    assert method_settings(config, "deep", "first", "movies")["batch_size"] == expected


def test_settings_of_one_task_do_not_reach_another(config, study):
    study["tasks"]["movies"]["settings"] = {"bridge": {"steps": 7}}
    assert method_settings(config, "bridge", "first", "newsgroups")["steps"] == 300


def test_settings_of_another_kind_are_not_taken(config, study):
    study["settings"] = {"lora": {"steps": 7}}
    assert method_settings(config, "bridge", "first")["steps"] == 300


def test_settings_do_not_change_the_configuration(config):
    before = copy.deepcopy(config)
    method_settings(config, "deeper", "first", "movies")
    assert config == before


def test_every_default_is_filled_in(config):
    known = schema()["$defs"]["method"]["bridge"]["properties"]
    assert set(method_settings(config, "bridge")) == {key for key, value in known.items() if "default" in value} | {
        "kind",
        "title",
    }


def test_a_control_has_the_settings_of_its_bridge(config, study):
    study["settings"] = {"bridge": {"depth": 9}}
    assert bridge_settings(config, "zeroed", "first", "movies")["depth"] == 9


def rows(config, *methods, **block):
    config["studies"]["first"]["runs"] = [{"tasks": ["movies", "newsgroups"], "methods": list(methods), **block}]
    table = runs_table(config)
    return sorted(zip(table["task"], table["method"], table["k"], table["seed"]))


def test_a_bridge_runs_with_every_seed_and_the_tasks_own_count(config):
    movies, newsgroups = product(["movies"], ["bridge"], [8], [1, 2]), product(["newsgroups"], ["bridge"], [4], [1, 2])
    assert rows(config, "bridge") == [*movies, *newsgroups]


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_no_table_can_hold_is_refused(config, seed):
    config["studies"][next(iter(config["studies"]))]["seeds"] = [1, seed]
    with pytest.raises(TelepathyError, match=f"seeds.*{seed} is (less|greater) than the (min|max)imum"):
        check_config(config)


def test_counts_and_seeds_of_a_block_are_crossed(config):
    expected = product(["movies", "newsgroups"], ["bridge"], [2, 16], [5, 6, 7])
    assert rows(config, "bridge", soft_tokens=[2, 16], seeds=[5, 6, 7]) == list(expected)


@pytest.mark.parametrize("method", ["zero_shot", "probe", "relay", "echo"])
def test_a_method_without_chance_runs_once_without_soft_tokens(config, method):
    expected = [("movies", method, 0, 0), ("newsgroups", method, 0, 0)]
    assert rows(config, method, soft_tokens=[2, 16], seeds=[5, 6]) == expected


@pytest.mark.parametrize("method", ["few_shot", "lora"])
def test_a_method_with_chance_but_no_soft_tokens_runs_once_a_seed(config, method):
    assert rows(config, method, soft_tokens=[2, 16]) == list(product(["movies", "newsgroups"], [method], [0], [1, 2]))


@pytest.mark.parametrize("method", ["soft_prompt", "zeroed"])
def test_a_method_with_soft_tokens_runs_once_a_seed_and_count(config, method):
    expected = product(["movies", "newsgroups"], [method], [2, 16], [1, 2])
    assert rows(config, method, soft_tokens=[2, 16]) == list(expected)


def test_a_run_of_two_blocks_is_one_row(config, study):
    study["runs"] = [{"tasks": ["movies"], "methods": ["bridge"]}] * 2
    assert len(runs_table(config)) == 2


def test_a_run_says_its_kind_where_it_is_inherited(config, study):
    study["runs"] = [{"tasks": ["movies"], "methods": ["deeper"]}]
    assert set(runs_table(config)["kind"]) == {"bridge"}


def test_runs_of_every_study_are_listed(config, study):
    config["studies"]["second"] = {**study, "seeds": [9]}
    assert runs_table(config).groupby("study")["seed"].unique().map(list).to_dict() == {"first": [1, 2], "second": [9]}


def test_the_sender_is_encoded_at_the_layers_of_bridges_and_pooled_for_probes(config, study):
    study["runs"] = [{"tasks": ["movies"], "methods": ["bridge", "deep", "probe"]}]
    config["methods"]["deep"]["sender_layer"] = 0.5
    config["methods"]["probe"]["layers"] = [0.75, 3]
    assert encoded_layers(config, "first", "movies", "one") == ([0.5, 0.66], [0.75, 3])


def test_a_control_needs_the_layer_of_its_bridge(config, study):
    study["runs"] = [{"tasks": ["movies"], "methods": ["zeroed"]}]
    assert encoded_layers(config, "first", "movies", "one") == ([0.66], [])


def test_the_receiver_is_encoded_where_a_bridge_reads_it(config, study):
    config["methods"]["deep"]["sender_is"] = "receiver"
    study["runs"] = [{"tasks": ["movies"], "methods": ["deep"]}]
    found = {model: encoded_layers(config, "first", "movies", model)[0] for model in ("one", "two")}
    assert found == {"one": [], "two": [0.66]}


def test_a_role_is_a_model_of_the_study(config):
    assert [model_of(config, "first", role) for role in ("sender", "receiver")] == ["one", "two"]


def test_every_shipped_task_is_known(config):
    shipped = {path.stem for path in (ROOT / "telepathy" / "tasks").glob("*.yaml")} - {"task.schema"}
    assert set(task_files(config)) == shipped


def test_a_shipped_tasks_file_is_there(config):
    assert (ROOT / task_file(config, "movies")).is_file()


def test_a_task_of_your_own_is_known_by_its_file(config):
    config["tasks"] = {"mine": "somewhere/mine.yaml"}
    assert task_file(config, "mine") == "somewhere/mine.yaml"


METHOD_KEYS = [
    (kind, key, entry)
    for kind, parts in schema()["$defs"]["method"].items()
    for key, entry in parts["properties"].items()
]


@pytest.mark.parametrize("kind", schema()["$defs"]["method"])
def test_every_kind_of_method_is_described(kind):
    assert schema()["$defs"]["method"][kind]["description"].strip()


def test_every_key_of_a_method_is_described():
    assert [f"{kind}.{key}" for kind, key, entry in METHOD_KEYS if key != "kind" and not entry.get("description")] == []


def test_every_default_is_a_value_that_its_key_takes():
    wrong = []
    for kind, key, entry in METHOD_KEYS:
        if "default" in entry and not jsonschema.Draft202012Validator(entry).is_valid(entry["default"]):
            wrong.append(f"{kind}.{key}")
    assert wrong == []


# A dataclass default that is not the schema's, with the reason.
DELIBERATE = {"learning_rate": "a bridge that was aligned is spoilt by the rate at which others start from nothing"}


@pytest.mark.parametrize("cls", [BridgeConfig, ReceiverSide, TrainingConfig])
def test_defaults_of_a_bridge_are_those_of_the_library(cls):
    known = schema()["$defs"]["method"]["bridge"]["properties"]
    own = {field.name: field.default for field in fields(cls) if field.default is not MISSING}
    shared = {name: value for name, value in own.items() if name in known and name not in DELIBERATE}
    assert shared == {name: known[name]["default"] for name in shared}


@pytest.mark.parametrize("cls", [BridgeConfig, ReceiverSide, TrainingConfig])
def test_every_setting_of_the_library_is_a_key_of_a_bridge(cls):
    given = {"soft_tokens", "sender_width", "receiver_width"}
    known = schema()["$defs"]["method"]["bridge"]["properties"]
    assert {field.name for field in fields(cls)} - given <= set(known)


def pins(lines):
    return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}


def test_the_environment_of_the_rules_has_the_versions_of_the_lock():
    environment = yaml.safe_load((ROOT / "envs" / "telepathy.yaml").read_text())["dependencies"]
    listed = pins(next(entry["pip"] for entry in environment if isinstance(entry, dict)))
    lock = pins(line for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line)
    assert listed == {name: lock.get(name) for name in listed}


def test_a_studys_setting_of_a_kind_leaves_an_ablation_what_it_is(config, study):
    config["methods"]["deep"]["width"] = 64
    study["settings"] = {"bridge": {"width": 512}}
    assert method_settings(config, "deep", "first", "movies")["width"] == 64
    assert method_settings(config, "bridge", "first", "movies")["width"] == 512


def test_the_schema_itself_is_valid():
    jsonschema.Draft202012Validator.check_schema(schema())


def test_a_mistake_in_a_studys_settings_is_refused_before_any_run_asks_for_it(config, study):
    study["settings"] = {"bridge": {"colour": "red"}}
    with pytest.raises(TelepathyError, match="'colour' was unexpected"):
        check_config(config)


@pytest.mark.parametrize(
    "method, sentence",
    [
        ({"kind": "control", "of": "linear_probe", "control": "zeroed"}, "no method of kind bridge 'linear_probe'"),
        ({"kind": "label_relay", "sent_by": "lora"}, "no method of kind zero_shot 'lora'"),
    ],
)
def test_a_method_that_reads_anothers_run_names_one_of_the_right_kind(method, sentence):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["methods"]["mine"] = method
    with pytest.raises(TelepathyError, match=f"at methods.mine.*{sentence}; choose one of"):
        check_config(config)


def test_a_wrong_setting_of_a_study_is_said_to_be_one():
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["studies"]["smoke"]["settings"]["bridge"]["steps"] = -3
    with pytest.raises(
        TelepathyError, match=r"methods.bridge.steps \(with the settings of the study smoke for movies\), -3"
    ):
        check_config(config)


def test_seed_0_is_kept_for_methods_without_chance():
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["studies"]["smoke"]["seeds"] = [0]
    with pytest.raises(TelepathyError, match=r"at studies\.smoke\.seeds\.0, 0 is less than the minimum of 1"):
        check_config(config)
