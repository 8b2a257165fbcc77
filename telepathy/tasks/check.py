"""Look at a task of one's own before anything is trained: what models will read, and what is wrong."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from telepathy.errors import TelepathyError
from telepathy.models.loading import LanguageModel
from telepathy.scoring.labels import LabelSet, continuation_ids
from telepathy.tasks.data import cache_task, choice_count, contradictions, load_split
from telepathy.tasks.fetching import fetch_data
from telepathy.tasks.prompts import prompt_ids, render_prompt
from telepathy.tasks.spec import Task

SPLITS = ("train", "dev", "test")
SAMPLE = 500
"""Examples of a split whose tokens are counted."""

CUT_SHARE = 0.05
"""A larger share of cut prompts is worth a remark."""

MAJORITY = 0.9
"""A larger share of one answer leaves accuracy little to say."""

FEW_DEV = 50
"""Fewer dev examples choose weights by chance."""


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """A task as one tokenizer sees it.

    Attributes:
        model: name of the model.
        prompt: text of the first training example's tokens, special ones included.
        lengths: fewest, median and most tokens of a prompt, as it is read.
        cut: share of prompts that are shortened, between 0 and 1.
        labels: label -> its tokens as texts.
        problems: what stops a run with this model.
        remarks: what is worth a thought.
    """

    model: str
    prompt: str = ""
    lengths: tuple[int, int, int] = (0, 0, 0)
    cut: float = 0.0
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    problems: Sequence[str] = ()
    remarks: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """What `check_task` found.

    Attributes:
        task: the task.
        balance: examples of every answer, a column a split; for numbers the splits' sizes alone.
        example: the first training example's prompt as text.
        views: the task as every model sees it.
        problems: sentences about what stops a run.
        remarks: sentences about what is worth a thought.
    """

    task: Task
    balance: pd.DataFrame
    example: str
    views: Sequence[ModelView]
    problems: Sequence[str]
    remarks: Sequence[str]


def check_data(task: Task, models: Sequence[LanguageModel], downloads: str | Path) -> TaskReport:
    """Fetch a task's data, split it as a run would, and check it; nothing is kept but downloads.

    Raises:
        TelepathyError: if the data cannot be fetched or does not fit the YAML.
    """
    with tempfile.TemporaryDirectory() as scratch:
        raw, cached = Path(scratch) / "raw", Path(scratch) / "task"
        fetch_data(task.name, task.source, raw, Path(downloads), Path(scratch) / "pins")
        cache_task(task, raw, cached)
        splits = {split: load_split(cached, split) for split in SPLITS}
        return check_task(task, splits, models, contradictions(task, raw))


def check_task(
    task: Task, splits: Mapping[str, pd.DataFrame], models: Sequence[LanguageModel], contradicted: int = 0
) -> TaskReport:
    """Check a task whose examples are at hand.

    Args:
        task: the task.
        splits: examples of ``train``, ``dev`` and ``test``.
        models: whose tokenizers are tried; weights are not needed (see `load_tokenizer_only`).
        contradicted: texts that had two answers, of which the splits have the first.
    """
    views = [_view(lm, task, splits) for lm in models]
    return TaskReport(
        task=task,
        balance=_balance(task, splits),
        example=render_prompt(task, splits["train"].iloc[0].to_dict()),
        views=views,
        problems=[*_class_problems(task, splits), *(line for view in views for line in view.problems)],
        remarks=[
            *_text_remarks(task),
            *_size_remarks(task, splits),
            *_answer_remarks(task, splits),
            *([f"{contradicted} texts have different answers: the first of each is kept."] if contradicted else []),
            *(line for view in views for line in view.remarks),
        ],
    )


def _balance(task: Task, splits: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    if task.kind == "number":
        return pd.DataFrame({split: [len(frame)] for split, frame in splits.items()}, index=["all"])
    counts = {split: frame["label"].value_counts() for split, frame in splits.items()}
    return pd.DataFrame(counts).reindex(task.label_names).fillna(0).astype(int)


def _class_problems(task: Task, splits: Mapping[str, pd.DataFrame]) -> list[str]:
    if task.kind == "multiple_choice":
        options = pd.concat([frame for frame in splits.values()])
        known = [label in task.label_names[: choice_count(row)] for label, row in _labelled(options)]
        wrong = len(known) - sum(known)
        return [f"{wrong} examples have an answer that is none of their options."] if wrong else []
    if task.kind == "number":
        return []
    absent = [name for name in task.label_names if name not in set(splits["train"]["label"])]
    return [f"No training example has the label {name}: remove it or take more examples." for name in absent]


def _labelled(frame: pd.DataFrame) -> list[tuple[str, dict[Any, Any]]]:
    return [(row["label"], row) for row in frame.to_dict("records")]


def _text_remarks(task: Task) -> list[str]:
    remarks = []
    for name in ("prompt", "primer"):
        if getattr(task, name) != getattr(task, name).rstrip():
            remarks.append(f"The {name} ends in a space: answers bring their own, so take it off.")
    unsaid = [label.name for label in task.labels if label.verbaliser.strip().lower() not in task.prompt.lower()]
    if task.kind == "labels" and unsaid:
        some = ", ".join(unsaid[:5]) + (" and others" if len(unsaid) > 5 else "")
        remarks.append(f"The prompt does not say {some}: a model that only reads it cannot know these answers.")
    return remarks


def _size_remarks(task: Task, splits: Mapping[str, pd.DataFrame]) -> list[str]:
    remarks = [
        f"The {split} split has {len(frame)} examples, fewer than the {task.splits[split]} that the YAML wants."
        for split, frame in splits.items()
        if len(frame) < task.splits[split]
    ]
    if len(splits["dev"]) < FEW_DEV:
        remarks.append(f"Only {len(splits['dev'])} dev examples choose the weights, hardly better than chance would.")
    return remarks


def _answer_remarks(task: Task, splits: Mapping[str, pd.DataFrame]) -> list[str]:
    if task.kind == "number":
        return []
    remarks = []
    share = splits["test"]["label"].value_counts(normalize=True)
    if share.iloc[0] > MAJORITY:
        remarks.append(
            f"{100 * share.iloc[0]:.0f} % of the test answers are {share.index[0]}: accuracy will say little."
        )
    return remarks


def _view(lm: LanguageModel, task: Task, splits: Mapping[str, pd.DataFrame]) -> ModelView:
    try:
        labels = LabelSet.of(lm, task)
        rows = [(prompt_ids(lm, task, row), _whole(lm, task, row)) for row in _sample(splits)]
    except TelepathyError as error:
        return ModelView(model=lm.name, problems=[str(error)])
    lengths = pd.Series([len(read) for read, _ in rows])
    cut = sum(len(read) < whole for read, whole in rows) / len(rows)
    remarks = []
    if cut > CUT_SHARE:
        remarks.append(
            f"{lm.name} reads {100 * cut:.0f} % of the prompts without the end of {task.shorten}: "
            f"max_tokens is {task.max_tokens}, the longest prompt has {max(whole for _, whole in rows)}."
        )
    if task.kind == "number":
        remarks += _long_answers(lm, task, splits["train"])
    remarks += [
        f"{long} begins with {short} for {lm.name}, so it can never be likelier: say one of them in other words."
        for short, first in zip(labels.names, labels.tokens)
        for long, whole in zip(labels.names, labels.tokens)
        if len(whole) > len(first) and whole[: len(first)] == first
    ]
    return ModelView(
        model=lm.name,
        prompt=lm.tokenizer.decode(rows[0][0]),
        lengths=(int(lengths.min()), int(lengths.median()), int(lengths.max())),
        cut=cut,
        labels={
            name: [lm.tokenizer.decode([token]) for token in row] for name, row in zip(labels.names, labels.tokens)
        },
        remarks=remarks,
    )


def _sample(splits: Mapping[str, pd.DataFrame]) -> list[dict[Any, Any]]:
    return [row for split in SPLITS for row in splits[split].head(SAMPLE).to_dict("records")]


def _whole(lm: LanguageModel, task: Task, example: Mapping[Any, Any]) -> int:
    return 1 + len(lm.token_ids(render_prompt(task, example)))


def _long_answers(lm: LanguageModel, task: Task, train: pd.DataFrame) -> list[str]:
    longest = max(len(continuation_ids(lm, task.primer, text)) for text in train["answer"].head(SAMPLE))
    if longest <= task.answer_tokens:
        return []
    return [
        f"The longest answer takes {longest} tokens of {lm.name}, but answer_tokens is {task.answer_tokens}: raise it."
    ]
