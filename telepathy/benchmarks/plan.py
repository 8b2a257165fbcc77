"""The jobs of a study that hold a GPU, with the work that each does: what a forecast multiplies."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

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
from telepathy.training.steps import alignment_steps

ROOT = Path(__file__).parents[2]

Job = tuple[str, str, str]
"""Rule, kind of method, name of its benchmark file."""

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
    "own": ("run_own_method",),
}
CPU_RULES = ("relay_label", "probe_sender")
"""Rules whose jobs ask for no GPU."""


WORK = ("examples", "words", "positions")
"""What a job's time grows with, by the columns of `planned_jobs`."""
PRIMER = 4
"""Receiver positions besides soft tokens that a training step reads, about: the rest of a primer, and an answer."""
PUBLISHED_PASSES = 11 + 2 + 60 + 10
"""Forward passes of a receiver or sender in a trial of all arms as published (see `telepathy.benchmarks.arms`)."""


class Work(NamedTuple):
    """What a job does, see `planned_jobs`."""

    examples: int
    words: int = 0
    positions: int = 0


class Size(NamedTuple):
    """Examples of every split of a task, words of its prompt besides the text, and words of its labels after the first.

    A word is about a token, so that a model reads so many more positions for each example.
    """

    train: int
    dev: int
    test: int
    prompt_words: int
    tail_words: int


def planned_jobs(config: Config, study: str) -> pd.DataFrame:
    """Jobs of a study on models.

    Returns:
        Columns ``rule``, ``kind`` (of the method; empty where there is none), ``job`` (name of its benchmark file),
        ``examples``, ``words`` and ``positions``. A job's time grows with the examples that a model reads, in training
        twice (forward and back), with the words that its prompt has besides the text (a list of 77 labels is longer
        than what it stands beside), and with further positions of a receiver: the words of labels after the first,
        which are scored for all labels, and what a bridge's training reads there. Its examples are those of
        alignment, where no receiver runs; a benchmark has forward passes in the place of examples.
    """
    jobs = [*_encodings(config, study), *_runs(config, study), *_others(config, study)]
    return pd.DataFrame([(*job, *work) for job, work in jobs], columns=["rule", "kind", "job", *WORK])


def summed_jobs(config: Config, study: str) -> list[dict[str, Any]]:
    """Jobs and work of a study by rule and kind."""
    table = planned_jobs(config, study).groupby(["rule", "kind"], as_index=False)
    sums = table.agg(jobs=("job", "size"), **{name: (name, "sum") for name in WORK})
    return [{str(name): value for name, value in row.items()} for row in sums.to_dict("records")]


def _encodings(config: Config, study: str) -> Iterator[tuple[Job, Work]]:
    entry = study_of(config, study)
    for task, model in product(entry["tasks"], dict.fromkeys([entry["sender"], entry["receiver"]])):
        if any(encoded_layers(config, study, task, model)):
            size = _size(config, study, task)
            yield ("encode_task", "", f"{model}_{task}"), _read(size, size.train + size.dev + size.test)


def _runs(config: Config, study: str) -> Iterator[tuple[Job, Work]]:
    settings_of = cache(lambda method, task: method_settings(config, method, study, task))
    size_of = cache(lambda task: _size(config, study, task))
    for run in runs_table(config).query("study == @study").itertuples():
        settings, size = settings_of(run.method, run.task), size_of(run.task)
        for rule in RULES[str(run.kind)]:
            job = rule, str(run.kind), f"{run.task}_{run.method}_k{run.k}_seed{run.seed}"
            yield job, _work(rule, settings, size, int(run.k))  # type: ignore[arg-type]


def _read(size: Size, examples: int, scored: int = 0) -> Work:
    """Work of a model that reads whole prompts, and scores all labels for some of them."""
    return Work(examples, examples * size.prompt_words, scored * size.tail_words)


def _work(rule: str, settings: Mapping[str, Any], size: Size, k: int) -> Work:
    """Work of a job on a method's run."""
    if rule == "train_bridge":
        first = alignment_steps(settings)
        aligned = first * settings["alignment_batch_size"]
        read = 2 * (settings["steps"] - first) * settings["batch_size"]
        judged = (settings["evaluations"] + 1) * size.dev
        positions = (read + judged) * (k + PRIMER) + judged * size.tail_words
        return Work(aligned, aligned * size.prompt_words, positions)
    if rule == "train_adapter":
        judged = settings["evaluations"] * min(size.dev, settings["dev_examples"])
        return _read(size, 2 * settings["steps"] * settings["batch_size"] + judged, judged)
    if rule == "evaluate_bridge":  # no prompt is read: the states of all are there
        return Work(size.test, 0, size.test * size.tail_words)
    return _read(size, size.test, size.test)


def _others(config: Config, study: str) -> Iterator[tuple[Job, Work]]:
    """The benchmark, and one job a task that looks into a bridge."""
    if timed := benchmark_settings(config, study):
        yield ("measure_latency", "", "all"), Work(_passes(timed))
    bridged = runs_table(config).query("study == @study and method == 'bridge'")["task"]
    for task in dict.fromkeys(bridged):
        if load_task(ROOT / task_file(config, task)).kind == "labels":
            yield ("inspect_bridge", "", task), Work(_size(config, study, task).test)


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


def _size(config: Config, study: str, name: str) -> Size:
    """A task's examples (the study's limits, else the most that the task takes), and words."""
    limits: Mapping[str, int] = study_of(config, study)["tasks"][name].get("examples", {})
    task = load_task(ROOT / task_file(config, name))
    train, dev, test = (
        min(limits.get(split, task.splits[split]), task.splits[split]) for split in ("train", "dev", "test")
    )
    tails = sum(len(label.verbaliser.split()) - 1 for label in task.labels)
    words = len(re.sub(r"{\w+}", " ", task.prompt).split())
    return Size(train=train, dev=dev, test=test, prompt_words=words, tail_words=tails)
