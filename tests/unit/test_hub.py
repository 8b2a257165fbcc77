"""Trained bridges as artefacts: export, model card, hub, and the refusal of other models."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass

import pytest
import torch
import yaml
from torch import nn

from telepathy.bridges import Bridge, BridgeConfig, bridge_config, build_bridge, load_bridge, register
from telepathy.bridges.base import _ARCHITECTURES
from telepathy.bridges.export import dev_record, export_bridge
from telepathy.errors import TelepathyError
from telepathy.files import write_json
from telepathy.models.identity import identity_of, refuse_other_model
from telepathy.plugins import import_plugins
from telepathy.workflow import announce_plugins

from .hub_server import HubServer

SHAPE = {"soft_tokens": 3, "sender_width": 12, "receiver_width": 20, "width": 16, "heads": 2}
SOURCES = {
    "sender": {"hub": "some/sender", "revision": "a" * 40},
    "receiver": {"packages": ["weights==1.0"], "sha256": "b" * 64},
}
ABOUT = {
    "task": "films",
    "task_details": {"title": "Films", "kind": "labels", "labels": ["bad", "good"], "citation": "Nobody (2020)."},
    "sender": {"name": "small-sender", "layer": 5, "source": SOURCES["sender"]},
    "receiver": {"name": "small-receiver", "primer_position": "before", "bos": True, "source": SOURCES["receiver"]},
    "prompt": "0",
    "training": {"seed": 7, "settings": {"keep": "best", "learning_rate": 0.001}, "examples": 10},
}


def make(**changes):
    torch.manual_seed(0)
    return build_bridge(bridge_config("perceiver", **{**SHAPE, **changes})).eval()


def outputs(bridge):
    torch.manual_seed(1)
    return bridge(torch.randn(2, 5, 12), torch.ones(2, 5, dtype=torch.bool))


def run_folder(folder, accuracies, keep="best", correct=80, **changes):
    """What train_bridge and evaluate_bridge leave behind."""
    history = [{"step": step, "accuracy": value, "loss": 1 - value} for step, value in enumerate(accuracies)]
    about = {**ABOUT, "training": {**ABOUT["training"], "settings": {"keep": keep}}}
    make(**changes).save_pretrained(folder / "bridge", **about)
    write_json(folder / "bridge" / "training.json", {"history": history, "collapsed": False})
    metrics = {"n": 100, "correct": correct, "accuracy": correct / 100, "unparsed": 0, "majority": 0.5}
    write_json(folder / "metrics.json", {"run": {"seed": 7}, "metrics": metrics, "provenance": {}})
    return folder / "bridge"


def card_of(folder):
    """Metadata and text of a model card."""
    _, metadata, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(metadata), text


def test_a_bridge_from_a_folder_is_the_one_that_was_saved(tmp_path):
    bridge = make()
    bridge.save_pretrained(tmp_path / "bridge", **ABOUT)
    loaded = Bridge.from_pretrained(tmp_path / "bridge")
    assert (type(loaded), loaded.config, loaded.about) == (type(bridge), bridge.config, ABOUT)
    assert torch.equal(outputs(loaded), outputs(bridge))


def test_a_bridge_of_another_version_is_refused(tmp_path):
    make().save_pretrained(tmp_path / "bridge")
    said = json.loads((tmp_path / "bridge" / "config.json").read_text())
    said["bridge"]["wings"] = 2
    (tmp_path / "bridge" / "config.json").write_text(json.dumps(said))
    with pytest.raises(TelepathyError, match=r"written by another version of its architecture .*wings"):
        Bridge.from_pretrained(tmp_path / "bridge")


@pytest.mark.parametrize("name", ["no/such/folder", "absent"])
def test_a_folder_that_does_not_exist_is_refused(name):
    with pytest.raises(TelepathyError, match=f"There is no folder {name}"):
        Bridge.from_pretrained(name)


def test_the_best_of_dev_is_exported_whatever_test_says(tmp_path):
    worse = run_folder(tmp_path / "worse", [0.6, 0.7], correct=99)
    best = run_folder(tmp_path / "best", [0.9, 0.5], correct=70)
    assert export_bridge([worse, best], {}, tmp_path / "export") == best


def test_weights_of_the_last_step_count_as_the_last_step_did(tmp_path):
    last = run_folder(tmp_path / "last", [0.9, 0.5], keep="last")
    steady = run_folder(tmp_path / "steady", [0.6, 0.6])
    assert dev_record(last)["accuracy"] == 0.5
    assert export_bridge([last, steady], {}, tmp_path / "export") == steady


def test_of_equals_the_bridge_with_fewer_soft_tokens_is_exported(tmp_path):
    many = run_folder(tmp_path / "a", [0.8], soft_tokens=8)
    few = run_folder(tmp_path / "b", [0.8], soft_tokens=2)
    assert export_bridge([many, few], {}, tmp_path / "export") == few


def test_an_export_is_a_whole_bridge_with_card_and_metrics(tmp_path):
    best = run_folder(tmp_path / "best", [0.9])
    export_bridge([best], {}, tmp_path / "export")
    names = {path.name for path in (tmp_path / "export").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md", "metrics.json"}
    assert torch.equal(outputs(Bridge.from_pretrained(tmp_path / "export")), outputs(load_bridge(best)[0]))


def test_exporting_twice_gives_the_same_bytes(tmp_path):
    best = run_folder(tmp_path / "best", [0.9])
    for name in ("one", "two"):
        export_bridge([best], {"Model": "MIT"}, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_nothing_to_export_is_refused(tmp_path):
    with pytest.raises(TelepathyError, match="no bridge to export"):
        export_bridge([], {}, tmp_path / "export")


def test_a_card_names_models_task_metrics_and_licences(tmp_path):
    best = run_folder(tmp_path / "best", [0.9])
    export_bridge([best], {"Small Sender": "Apache-2.0", "Films": "MIT"}, tmp_path / "export")
    metadata, text = card_of(tmp_path / "export")
    for said in ("small-sender", "small-receiver", "a" * 40, "b" * 64, "80.0 %", "Nobody (2020)", "seed | 7"):
        assert said in text, said
    assert "- Films: MIT\n- Small Sender: Apache-2.0" in text
    assert metadata["base_model"] == ["some/sender"]
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.8


def test_a_card_of_a_bridge_of_which_nothing_is_known_is_whole(tmp_path):
    make().save_pretrained(tmp_path / "bridge")
    metadata, text = card_of(tmp_path / "bridge")
    assert metadata["library_name"] == "telepathy"
    assert "None" not in text and "{{" not in text


HUB_SCRIPT = """
import sys, torch
from telepathy.bridges import Bridge
bridge = Bridge.from_pretrained(sys.argv[1])
bridge.push_to_hub("someone/bridge", token="a-token")
again = Bridge.from_pretrained("someone/bridge")
assert again.about == bridge.about
assert all(torch.equal(value, again.state_dict()[name]) for name, value in bridge.state_dict().items())
"""


@pytest.fixture
def hub():
    """An empty hub on the loopback."""
    server = HubServer()
    yield server
    server.shutdown()
    server.server_close()


def in_child(script, *arguments, hub, home):
    """Run a script that takes this hub for the real one."""
    variables = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, env=variables, text=True, capture_output=True)


def test_a_pushed_bridge_is_complete_and_comes_back_from_the_hub(hub, tmp_path):
    best = run_folder(tmp_path / "best", [0.9])
    export_bridge([best], {"Model": "MIT"}, tmp_path / "export")
    done = in_child(HUB_SCRIPT, tmp_path / "export", hub=hub, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("config.json", "model.safetensors", "README.md"):
        assert hub.files[name] == (tmp_path / "export" / name).read_bytes(), name
    assert "Bearer a-token" in hub.tokens
    assert "a-token" not in done.stdout + done.stderr


def test_a_repository_that_does_not_exist_is_refused_in_one_sentence(hub, tmp_path):
    script = "from telepathy.bridges import Bridge; Bridge.from_pretrained('someone/absent')"
    done = in_child(script, hub=hub, home=tmp_path / "home")
    assert "TelepathyError: The bridge someone/absent could not be fetched from the Hugging Face hub" in done.stderr


@pytest.mark.parametrize(
    "source, identity",
    [
        ({"hub": "a/b", "revision": "c"}, "a/b@c"),
        ({"packages": ["x==1"], "sha256": "d"}, "sha256 d"),
        ({"path": "folder"}, None),
        ({}, None),
    ],
)
def test_a_models_identity_is_its_commit_or_hash(source, identity):
    assert identity_of(source) == identity


def test_a_local_folder_is_told_by_its_weights_alone():
    one, two, three = (
        {"path": path, "files": {"model.safetensors": weights, "README.md": path}}
        for path, weights in (("a", "1"), ("b", "1"), ("a", "2"))
    )
    assert identity_of(one) == identity_of(two) != identity_of(three)


def test_the_same_weights_under_another_name_are_taken():
    refuse_other_model("It", "sender", ABOUT["sender"], "renamed", SOURCES["sender"])


def test_other_weights_under_the_same_name_are_refused_with_both():
    other = {"hub": "some/sender", "revision": "c" * 40}
    with pytest.raises(
        TelepathyError, match=r"trained for the sender small-sender \(some/sender@a+\), but got .*@c+\)"
    ):
        refuse_other_model("It", "sender", ABOUT["sender"], "small-sender", other)


@dataclass(frozen=True, kw_only=True)
class GatedConfig(BridgeConfig):
    """A bridge's settings with one of its own."""

    gate: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.gate <= 1:
            raise TelepathyError(f"gate is between 0 and 1, not {self.gate}.")


class GatedBridge(Bridge):
    """The first state through one map."""

    config_class = GatedConfig

    def __init__(self, config):
        super().__init__(config)
        self.map = nn.Linear(config.sender_width, config.soft_tokens * config.receiver_width)

    @property
    def last(self):
        return self.map

    def raw_tokens(self, states, mask):
        first = self.config.gate * states[:, 0]
        return self.map(first).unflatten(-1, (self.config.soft_tokens, self.config.receiver_width))


@pytest.fixture
def gated():
    """A registered bridge with a setting of its own."""
    register("gated")(GatedBridge)
    yield GatedBridge
    del _ARCHITECTURES["gated"]


def test_an_own_bridges_settings_are_typed_and_saved(gated, tmp_path):
    bridge = build_bridge(bridge_config("gated", {"gate": 0.25}, **SHAPE))
    bridge.save_pretrained(tmp_path / "bridge")
    loaded = Bridge.from_pretrained(tmp_path / "bridge")
    assert (type(loaded), asdict(loaded.config)["gate"]) == (gated, 0.25)


def test_an_own_setting_that_contradicts_is_refused_by_its_class(gated):
    with pytest.raises(TelepathyError, match=r"gate is between 0 and 1, not 2\.0"):
        bridge_config("gated", {"gate": 2.0}, **SHAPE)


@pytest.mark.parametrize(
    "name, message",
    [("gated", "has no option depth: its options are gate"), ("linear", "has no option depth: it has none")],
)
def test_an_option_that_an_architecture_does_not_have_is_refused(gated, name, message):
    with pytest.raises(TelepathyError, match=message):
        bridge_config(name, {"depth": 3}, **SHAPE)


def test_a_name_that_another_bridge_has_is_refused():
    with pytest.raises(TelepathyError, match="architecture perceiver is taken by PerceiverBridge"):
        register("perceiver")(GatedBridge)


@pytest.mark.parametrize("name", ["last", "raw_tokens"])
def test_a_bridge_that_leaves_out_what_it_must_define_is_refused_by_its_name(name):
    half = type("Half", (Bridge,), {other: getattr(GatedBridge, other) for other in {"last", "raw_tokens"} - {name}})
    with pytest.raises(TelepathyError, match=f"The bridge Half does not define {name} "):
        register("half")(half)
    assert "half" not in _ARCHITECTURES


PLUGIN = """
from telepathy.bridges import MeanPoolBridge, register

@register("{name}")
class Own(MeanPoolBridge):
    pass
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Write a plugin and announce it, as the workflow does."""

    def write(text, name="own.py"):
        (tmp_path / name).write_text(text)
        monkeypatch.setenv("TELEPATHY_PLUGINS", "")
        announce_plugins([tmp_path / name])

    yield write
    _ARCHITECTURES.pop("fromplugin", None)


def test_an_announced_plugin_is_imported_when_its_bridge_is_named(plugin):
    plugin(PLUGIN.format(name="fromplugin"))
    assert "fromplugin" not in _ARCHITECTURES
    assert type(build_bridge(bridge_config("fromplugin", **SHAPE))).__name__ == "Own"


def test_a_plugin_that_fails_is_refused_with_its_reason(plugin):
    plugin("import nothing_of_the_kind")
    with pytest.raises(
        TelepathyError, match=r"plugin own.py could not be imported \(ModuleNotFoundError: .*nothing_of"
    ):
        import_plugins()


@pytest.mark.parametrize("name", ["absent.py", "text.txt"])
def test_a_plugin_that_is_no_python_file_is_refused(tmp_path, name):
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(TelepathyError, match=f"at plugins, there is no Python file .*{name}"):
        announce_plugins([tmp_path / name])
