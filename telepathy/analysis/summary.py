"""One tidy row a run."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from telepathy.files import read_json, write_csv

COLUMNS = [
    "task",
    "method",
    "soft_tokens",
    "seed",
    "n",
    "correct",
    "accuracy",
    "majority",
    "unparsed",
    "collapsed",
    "accuracy_normalised",
    "accuracy_calibrated",
    "macro_f1",
    "trainable_parameters",
    "train_seconds",
    "peak_memory_mb",
]


def summarise(metrics: Iterable[str | Path], target: str | Path) -> pd.DataFrame:
    """Gather ``metrics.json`` files (and the ``cost.json`` and ``training.json`` beside them) into ``summary.csv``.

    Accuracies are shares between 0 and 1. Columns that a method does not have are empty.
    """
    rows = [_row(Path(path)) for path in metrics]
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS)
    frame = frame.sort_values(["task", "method", "soft_tokens", "seed"], ignore_index=True)
    write_csv(target, frame)
    return frame


def _row(path: Path) -> dict:
    content = read_json(path)
    run = content["run"]
    row = {
        "task": run["task"],
        "method": run["method"],
        "soft_tokens": run["k"],
        "seed": run["seed"],
        **content["metrics"],
    }
    for trained in sorted(path.parent.glob("*/training.json")):
        row["collapsed"] = read_json(trained)["collapsed"]
    for cost in sorted({*path.parent.glob("*/cost.json"), *path.parent.glob("cost.json")}):
        row.update(read_json(cost))
    return row
