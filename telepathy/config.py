"""Read config.yaml's studies: resolved settings of each method and the table of all runs.

Light on imports on purpose: the Snakefile uses it, and a dry run must be quick.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd

from telepathy.errors import TelepathyError
from telepathy.files import read_yaml

TASK_FOLDER = Path(__file__).parent / "tasks"
SEEDLESS = {"zero_shot", "linear_probe", "text_relay", "label_relay"}
TOKENLESS = SEEDLESS | {"few_shot", "lora", "own"}
RUN_COLUMNS = ["study", "task", "method", "k", "seed", "kind"]

Config = Mapping[str, Any]
_FAULTS: dict[tuple[int, str], jsonschema.ValidationError | None] = {}
"""What the schema (whose parts are never forgotten) says of settings; thousands of runs share a few hundred."""


def _fill_properties(validator: Any, properties: Mapping[str, Any], instance: Any, kind: Mapping[str, Any]) -> Any:
    if validator.is_type(instance, "object"):
        for key, value in properties.items():
            if "default" in value:
                instance.setdefault(key, deepcopy(value["default"]))  # the schema is kept and must not change with it
    yield from jsonschema.Draft202012Validator.VALIDATORS["properties"](validator, properties, instance, kind)


FILLING = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"properties": _fill_properties})
"""A validator that fills in defaults where it passes (the recipe of jsonschema's documentation)."""


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of config.yaml."""
    return read_yaml(Path(__file__).parent / "config.schema.yaml")


def check_config(config: Config) -> None:
    """Refuse a configuration that names unknown keys, models, tasks or methods; fill in what it leaves to defaults.

    As `snakemake.utils.validate` does, which reads the schema's YAML far slower and stops at a wrong type.

    Raises:
        TelepathyError: one sentence that names the key and what is allowed.
    """
    error = jsonschema.exceptions.best_match(FILLING(schema()).iter_errors(config))
    if error is not None:
        place = ".".join(map(str, error.absolute_path)) or "the top level"
        raise TelepathyError(f"config.yaml: at {place}, {short(error.message)}.")
    _known("study", [config.get("study", "paper")], config["studies"], "study")
    for name, study in config["studies"].items():
        _known(f"studies.{name}", [study["sender"], study["receiver"]], config["models"], "model")
        _known(f"studies.{name}.tasks", study["tasks"], task_files(config), "task")
        kinds = {config["methods"][method].get("kind") for method in config["methods"]} | set(
            schema()["$defs"]["method"]
        )
        for block in study["runs"]:
            _known(f"studies.{name}.runs", block["tasks"], study["tasks"], "task of the study")
            _known(f"studies.{name}.runs", block["methods"], config["methods"], "method")
        _known(f"studies.{name}.forecast", filter(None, [study.get("forecast")]), config["studies"], "study")
        benchmark = study.get("benchmark", {})
        _known(f"studies.{name}.benchmark", filter(None, [benchmark.get("task")]), study["tasks"], "task of the study")
        _known(f"studies.{name}.benchmark", [benchmark.get("method", "bridge")], config["methods"], "method")
        for block in study.get("comparisons", []):
            named = [block["method"], *block.get("versus", [])]
            _known(f"studies.{name}.comparisons", named, config["methods"], "method")
        for settings in [study.get("settings", {}), *(task.get("settings", {}) for task in study["tasks"].values())]:
            _known(f"studies.{name}.settings", settings, {*config["methods"], *kinds}, "method or kind")
    for method in config["methods"]:
        settings = method_settings(config, method)
        for key, kind in (("of", "bridge"), ("sent_by", "zero_shot")):
            named = list(filter(None, [settings.get(key)]))
            _known(f"methods.{method}.{key}", named, config["methods"], "method")
            served = [name for name in config["methods"] if _inherited(config, name).get("kind") == kind]
            _known(f"methods.{method}.{key}", named, served, f"method of kind {kind}")
    for study, task, method in set(runs_table(config)[["study", "task", "method"]].itertuples(index=False, name=None)):
        method_settings(config, str(method), str(study), str(task))


def short(text: str, characters: int = 300) -> str:
    """The beginning and the end of a long text: what was wrong stands there, and a message is to be read."""
    half = characters // 2
    return text if len(text) <= characters else f"{text[:half]} ... {text[-half:]}"


def _known(place: str, names: Iterable[str], allowed: Iterable[str], what: str) -> None:
    allowed = list(allowed)  # a list: a wrong name may be anything
    for name in names:
        if name not in allowed:
            some = ", ".join(sorted(str(other) for other in allowed if other))
            raise TelepathyError(
                f"config.yaml: at {place}, there is no {what} {short(repr(name))}; choose one of {some}."
            )


def task_files(config: Config) -> dict[str, str]:
    """Name and file of every task, the library's and the configuration's own."""
    return {**_shipped_tasks(), **config.get("tasks", {})}


@cache
def _shipped_tasks() -> Mapping[str, str]:
    files = [path for path in TASK_FOLDER.glob("*.yaml") if not path.stem.endswith(".schema")]
    return {path.stem: f"telepathy/tasks/{path.name}" for path in files}


def task_file(config: Config, task: str) -> str:
    """File of one task."""
    _known("tasks", [task], task_files(config), "task")
    return task_files(config)[task]


def study_of(config: Config, study: str) -> dict[str, Any]:
    """One study's entry.

    Raises:
        TelepathyError: if there is no such study, naming those that exist.
    """
    _known("studies", [study], config["studies"], "study")
    return config["studies"][study]


def method_settings(config: Config, method: str, study: str | None = None, task: str | None = None) -> dict[str, Any]:
    """Settings of one method, every default filled in.

    Later layers win: the schema's defaults, the study's and the task's settings by kind, ``methods``
    (with ``inherit``), the study's and the task's settings by method. So a study can change how long
    all bridges train, and an ablation still keeps what makes it one.
    """
    own = _inherited(config, method)
    kind = str(own.get("kind"))
    kinds = schema()["$defs"]["method"]
    _known(f"methods.{method}.kind", [kind], kinds, "kind")
    entry = {} if study is None else study_of(config, study)
    places = [entry.get("settings", {}), entry.get("tasks", {}).get(task, {}).get("settings", {})]
    by_kind, by_method = ([settings.get(name, {}) for settings in places] for name in (kind, method))
    merged: dict[str, Any] = {}
    for layer in (*by_kind, own, *by_method):
        merged.update(layer)
    by_study = f" (with the settings of the study {study} for {task})" if task else ""
    return _with_defaults(kinds[kind], merged, f"methods.{method}", by_study)


def bridge_settings(config: Config, method: str, study: str, task: str) -> dict[str, Any]:
    """Settings of a bridge, or of the bridge whose trained weights a control uses."""
    settings = method_settings(config, method, study, task)
    return method_settings(config, settings["of"], study, task) if settings["kind"] == "control" else settings


def _inherited(config: Config, method: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    _known("methods", [method], config["methods"], "method")
    if method in seen:
        raise TelepathyError(
            f"config.yaml: methods {' -> '.join((*seen, method))} inherit from each other in a circle."
        )
    own = dict(config["methods"][method])
    parent = own.pop("inherit", None)
    return own if parent is None else {**_inherited(config, parent, (*seen, method)), "title": method, **own}


def _with_defaults(kind: Mapping[str, Any], settings: Mapping[str, Any], place: str, more: str) -> dict[str, Any]:
    error = _fault(kind, dict(settings))
    if error is not None:
        key = ".".join([place, *map(str, error.absolute_path)])
        allowed = "" if error.validator != "additionalProperties" else f"; the keys are {', '.join(kind['properties'])}"
        raise TelepathyError(f"config.yaml: at {key}{more}, {short(error.message)}{allowed}.")
    defaults = {key: value["default"] for key, value in kind["properties"].items() if "default" in value}
    return dict(sorted({**defaults, **settings}.items()))


def _fault(kind: Mapping[str, Any], settings: Mapping[str, Any]) -> jsonschema.ValidationError | None:
    seen = id(kind), repr(settings)
    if seen not in _FAULTS:
        errors = jsonschema.Draft202012Validator(kind).iter_errors(settings)
        _FAULTS[seen] = jsonschema.exceptions.best_match(errors)
    return _FAULTS[seen]


def benchmark_settings(config: Config, study: str) -> dict[str, Any]:
    """What a study times, every default filled in; empty if it times nothing."""
    given = study_of(config, study).get("benchmark")
    kind = schema()["$defs"]["benchmark"]
    return {} if given is None else _with_defaults(kind, given, f"studies.{study}.benchmark", "")


def runs_table(config: Config) -> pd.DataFrame:
    """Every run of every study: columns study, task, method, k, seed, kind.

    A method without chance in it runs once, as seed 0; one without soft tokens sits at k 0.
    """
    rows: dict[tuple, str] = {}
    for study, entry in config["studies"].items():
        for block in entry["runs"]:
            for task, method in product(block["tasks"], block["methods"]):
                kind = _inherited(config, method)["kind"]
                tokens = [0] if kind in TOKENLESS else block.get("soft_tokens", [entry["tasks"][task]["soft_tokens"]])
                seeds = [0] if kind in SEEDLESS else block.get("seeds", entry["seeds"])
                rows.update({(study, task, method, k, seed): kind for k, seed in product(tokens, seeds)})
    return pd.DataFrame([(*key, kind) for key, kind in rows.items()], columns=RUN_COLUMNS)


def model_of(config: Config, study: str, role: str) -> str:
    """Name of the study's sender or receiver."""
    return study_of(config, study)[role]


def memory_needed(parameters: float) -> float:
    """MiB for one model in 16 bit with room to work: two bytes a parameter, a quarter more, and 3,000."""
    return 3000 + 2.5 * parameters / 1e6


def encoded_layers(config: Config, study: str, task: str, model: str) -> tuple[list[float], list[float]]:
    """Layers that the study's runs read of one model on one task: whole states, and pooled ones (for probes)."""
    blocks = [block for block in study_of(config, study)["runs"] if task in block["tasks"]]
    whole: set[float] = set()
    pooled: set[float] = set()
    for method in dict.fromkeys(method for block in blocks for method in block["methods"]):
        settings = bridge_settings(config, method, study, task)
        if model != model_of(config, study, settings.get("sender_is", "sender")):
            continue
        if settings["kind"] == "bridge":
            whole.add(settings["sender_layer"])
        if settings["kind"] == "linear_probe":
            pooled.update(settings["layers"])
    return sorted(whole), sorted(pooled)
