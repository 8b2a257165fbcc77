"""The jobs of a study that hold a GPU, with the work that each does: what a forecast multiplies."""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from telepathy.config import (
    Config,
    benchmark_settings,
    encoded_layers,
    method_settings,
    runs_table,
    study_of,
    task_file,
)
from telepathy.tasks.spec import load_task

Job = tuple[str, str, str, int, int]

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


PRIMER = 4
"""Receiver positions besides soft tokens that a training step reads, about: the rest of a primer, and an answer."""
PUBLISHED_PASSES = 11 + 2 + 60 + 10
"""Forward passes of a receiver or sender in a trial of all arms as published (see `telepathy.benchmarks.arms`)."""


def planned_jobs(config: Config, study: str) -> pd.DataFrame:
    """Jobs of a study on models.

    Returns:
        Columns ``rule``, ``kind`` (of the method; empty where there is none), ``job`` (name of its benchmark file),
        ``examples`` and ``positions``. A job's time grows with the examples that a model reads, in training twice
        (forward and back). A bridge's training reads examples in alignment, where no receiver runs, and
        ``positions`` of the receiver; a benchmark has forward passes in the place of examples.
    """
    jobs = [*_encodings(config, study), *_runs(config, study), *_others(config, study)]
    return pd.DataFrame(jobs, columns=["rule", "kind", "job", "examples", "positions"])


def summed_jobs(config: Config, study: str) -> list[dict[str, Any]]:
    """Jobs and work of a study by rule and kind."""
    table = planned_jobs(config, study).groupby(["rule", "kind"], as_index=False)
    sums = table.agg(jobs=("job", "size"), examples=("examples", "sum"), positions=("positions", "sum"))
    return [{str(name): value for name, value in row.items()} for row in sums.to_dict("records")]


def _encodings(config: Config, study: str) -> Iterator[Job]:
    entry = study_of(config, study)
    for task, model in product(entry["tasks"], dict.fromkeys([entry["sender"], entry["receiver"]])):
        if any(encoded_layers(config, study, task, model)):
            sizes = _sizes(config, study, task)
            yield "encode_task", "", f"{model}_{task}", sum(sizes.values()), 0


def _runs(config: Config, study: str) -> Iterator[Job]:
    settings_of = cache(lambda method, task: method_settings(config, method, study, task))
    sizes_of = cache(lambda task: _sizes(config, study, task))
    for run in runs_table(config).query("study == @study").itertuples():
        settings, sizes = settings_of(run.method, run.task), sizes_of(run.task)
        for rule in RULES[str(run.kind)]:
            work = _work(rule, settings, sizes, int(run.k))  # type: ignore[arg-type]
            yield rule, str(run.kind), f"{run.task}_{run.method}_k{run.k}_seed{run.seed}", *work


def _work(rule: str, settings: Mapping[str, Any], sizes: Mapping[str, int], k: int) -> tuple[int, int]:
    """Examples and receiver positions of a job (see `planned_jobs`)."""
    if rule == "train_bridge":
        aligned = settings["alignment_steps"]
        read = 2 * (settings["steps"] - aligned) * settings["batch_size"] + (settings["evaluations"] + 1) * sizes["dev"]
        return aligned * settings["alignment_batch_size"], read * (k + PRIMER)
    if rule == "train_adapter":
        dev = min(sizes["dev"], settings["dev_examples"])
        return 2 * settings["steps"] * settings["batch_size"] + settings["evaluations"] * dev, 0
    return sizes["test"], 0


def _others(config: Config, study: str) -> Iterator[Job]:
    """The benchmark, and one job a task that looks into a bridge."""
    if timed := benchmark_settings(config, study):
        yield "measure_latency", "", "all", _passes(timed), 0
    bridged = runs_table(config).query("study == @study and method == 'bridge'")["task"]
    for task in dict.fromkeys(bridged):
        if load_task(ROOT / task_file(config, task)).kind == "labels":
            yield "inspect_bridge", "", task, _sizes(config, study, task)["test"], 0


def _passes(timed: Mapping[str, Any]) -> int:
    """Forward passes of a benchmark, about: two for bridge and label relay, one for each model, one a relay's token."""
    relays = sum(2 * (tokens + 1) for tokens in timed["relays"])
    passes = 0
    for mode, size in product(timed["modes"], timed["batch_sizes"]):
        calls = timed["warmups"] + (timed["trials"] if size == 1 else timed["batch_trials"])
        if "equal_work" in timed["protocols"]:
            passes += calls * (6 + (relays if size == 1 or timed["batched_relays"] else 0))
        if "as_published" in timed["protocols"] and mode == "eager" and size == 1:
            passes += calls * PUBLISHED_PASSES
    return passes


def _sizes(config: Config, study: str, task: str) -> dict[str, int]:
    """Examples of every split: the study's limits, else the most that the task takes."""
    limits: Mapping[str, int] = study_of(config, study)["tasks"][task].get("examples", {})
    splits = load_task(ROOT / task_file(config, task)).splits
    return {split: min(limits.get(split, splits[split]), splits[split]) for split in ("train", "dev", "test")}
