"""Small studies whose results are written through the library, for tests of what is concluded from results."""

from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd

from telepathy.files import sha256_of, write_json, write_parquet

LABELS = ["no", "yes"]


def some_right(n: int, count: int, start: int = 0) -> np.ndarray:
    """``[n]``, right for ``count`` examples in a row, from ``start`` on and around the end."""
    return np.isin(np.arange(n), (start + np.arange(count)) % n)


def predictions(right: np.ndarray) -> pd.DataFrame:
    """Predictions of two labels that are right as told; what is wrong is the other label."""
    gold = np.arange(len(right)) % 3 > 0
    said = np.where(right, gold, ~gold)
    return pd.DataFrame(
        {
            "id": [f"test-{place:05d}" for place in range(len(right))],
            "label": [LABELS[value] for value in gold.astype(int)],
            "prediction": [LABELS[value] for value in said.astype(int)],
        }
    )


def write_run(folder: Path, task: str, method: str, k: int, seed: int, right: np.ndarray) -> Path:
    """Write one run's predictions and metrics; return the path of the predictions."""
    run = folder / "runs" / task / method / f"k{k}" / f"seed{seed}"
    frame = predictions(right)
    write_parquet(run / "predictions.parquet", frame)
    hashes = {"predictions.parquet": sha256_of(run / "predictions.parquet")}
    counts = {"n": len(right), "correct": int(right.sum()), "accuracy": float(right.mean()), "unparsed": 0}
    counts["majority"] = float(frame["label"].value_counts(normalize=True).max())
    entry = {"study": folder.name, "task": task, "method": method, "k": k, "seed": seed}
    write_json(run / "metrics.json", {"run": entry, "metrics": counts, "provenance": {}, "files": hashes})
    return run / "predictions.parquet"


def write_study(folder: Path, runs: Mapping[tuple[str, str, int], Mapping[int, np.ndarray]]) -> list[Path]:
    """Write runs given as (task, method, k) -> seed -> right answers; return the paths of their predictions."""
    return [write_run(folder, *run, seed, right) for run, seeds in runs.items() for seed, right in seeds.items()]


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.tags, self.open = [], [], False

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        self.open = tag in ("th", "td") or (self.open and tag == "strong")
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.open = self.open and tag == "strong"

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1] += data


def read_html(text: str) -> tuple[list[list[str]], set[str]]:
    """Rows of an HTML table as texts, and the tags that it uses."""
    reader = _Reader()
    reader.feed(text)
    return reader.rows, set(reader.tags)
