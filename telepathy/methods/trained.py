"""What every trained method does with its settings and its history."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from telepathy.devices import Compute, peak_memory_mb
from telepathy.files import write_json
from telepathy.tasks.spec import Task

COLLAPSE_GAIN = 0.05
"""A run whose best dev accuracy is less than this above the majority share is called collapsed."""


def take(cls: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a dataclass knows."""
    return {field.name: settings[field.name] for field in fields(cls) if field.name in settings}


def say(record: Mapping[str, float]) -> None:
    """Print one history record."""
    print("  ".join(f"{name} {value:.4g}" for name, value in record.items()), flush=True)


def collapsed(task: Task, dev: pd.DataFrame, history: Sequence[Mapping[str, float]]) -> bool:
    """Whether a run learned hardly more than the most frequent answer; says so loudly."""
    if task.kind == "number":
        return False
    majority = dev["label"].value_counts(normalize=True).max()
    best = max(record["accuracy"] for record in history)
    if best >= majority + COLLAPSE_GAIN:
        return False
    print(
        f"COLLAPSED: the best dev accuracy {best:.3f} is not {COLLAPSE_GAIN} above the majority share {majority:.3f}.",
        flush=True,
    )
    return True


def write_training(
    folder: str | Path,
    task: Task,
    dev: pd.DataFrame,
    history: list[dict[str, float]],
    seconds: float,
    parameters: int,
    compute: Compute,
    **more: Any,
) -> None:
    """Write ``training.json`` (the same at every rerun) and ``cost.json`` (which is not) beside trained weights."""
    content = {"history": history, "collapsed": collapsed(task, dev, history), **more}
    write_json(Path(folder) / "training.json", content)
    cost = {
        "train_seconds": round(seconds, 2),
        "peak_memory_mb": round(peak_memory_mb(compute), 1),
        "trainable_parameters": parameters,
    }
    write_json(Path(folder) / "cost.json", cost)
