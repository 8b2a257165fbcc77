"""The jobs that a study consists of, with the examples that each reads: what a forecast multiplies."""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from telepathy.config import Config, encoded_layers, method_settings, runs_table, study_of, task_file
from telepathy.tasks.spec import load_task

ROOT = Path(__file__).parents[2]

RULES = {
    "bridge": ("train_bridge", "evaluate_bridge"),
    "control": ("evaluate_bridge",),
    "prompt_tuning": ("train_adapter", "evaluate_adapter"),
    "lora": ("train_adapter", "evaluate_adapter"),
    "zero_shot": ("prompt_model",),
    "few_shot": ("prompt_model",),
    "text_relay": ("relay_text",),
    "label_relay": ("relay_label",),
    "linear_probe": ("probe_sender",),
}
CPU_RULES = ("relay_label", "probe_sender")
"""Rules whose jobs ask for no GPU."""


def planned_jobs(config: Config, study: str) -> pd.DataFrame:
    """Jobs of a study on models.

    Returns:
        Columns ``rule``, ``kind`` (of the method; empty for encoding), ``job`` (name of its benchmark file)
        and ``examples``: in training those of all steps, otherwise those that are read.
    """
    jobs = [*_encodings(config, study), *_runs(config, study)]
    return pd.DataFrame(jobs, columns=["rule", "kind", "job", "examples"])


def summed_jobs(config: Config, study: str) -> list[dict[str, Any]]:
    """Jobs and examples of a study by rule and kind."""
    table = planned_jobs(config, study).groupby(["rule", "kind"], as_index=False)
    sums = table.agg(jobs=("job", "size"), examples=("examples", "sum"))
    return [{str(name): value for name, value in row.items()} for row in sums.to_dict("records")]


def _encodings(config: Config, study: str) -> Iterator[tuple[str, str, str, int]]:
    entry = study_of(config, study)
    for task, model in product(entry["tasks"], dict.fromkeys([entry["sender"], entry["receiver"]])):
        if any(encoded_layers(config, study, task, model)):
            sizes = _sizes(config, study, task)
            yield "encode_task", "", f"{model}_{task}", sum(sizes.values())


def _runs(config: Config, study: str) -> Iterator[tuple[str, str, str, int]]:
    settings_of = cache(lambda method, task: method_settings(config, method, study, task))
    test_of = cache(lambda task: _sizes(config, study, task)["test"])
    for run in runs_table(config).query("study == @study").itertuples():
        settings, test = settings_of(run.method, run.task), test_of(run.task)
        for rule in RULES[str(run.kind)]:
            trained = settings["steps"] * settings["batch_size"] if rule.startswith("train_") else test
            yield rule, str(run.kind), f"{run.task}_{run.method}_k{run.k}_seed{run.seed}", trained


def _sizes(config: Config, study: str, task: str) -> dict[str, int]:
    """Examples of every split: the study's limits, else the most that the task takes."""
    limits: Mapping[str, int] = study_of(config, study)["tasks"][task].get("examples", {})
    splits = load_task(ROOT / task_file(config, task)).splits
    return {split: min(limits.get(split, splits[split]), splits[split]) for split in ("train", "dev", "test")}
