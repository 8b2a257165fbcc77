"""Confusion matrices: which labels each method takes for which."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from telepathy.analysis.predictions import read_predictions
from telepathy.report.figures import style
from telepathy.report.text import Names, method_title, plain

Key = tuple[str, int]
"""Method and number of soft tokens."""

NONE = "(none)"
COLUMNS = 5
"""Panels in a line."""
READABLE = 12
"""Most labels whose names and numbers can be read in a panel."""


def draw_confusion(
    files: Sequence[str | Path], labels: Mapping[str, Sequence[str]], names: Names, pdf: str | Path, svg: str | Path
) -> None:
    """Draw lines of panels, a task after the other, one panel a main method, its seeds together.

    A row of a panel is a true label, a column an answer, a cell the share of the row in percent.

    Args:
        files: ``…/runs/<task>/<method>/k<k>/seed<seed>/predictions.parquet``.
        labels: task -> its labels in order; a task that is absent here has none.
        names: titles of methods and tasks.
        pdf: file to write.
        svg: file to write.
    """
    answers = _answers(files, labels, names)
    lines = [line for task in names["tasks"] if task in answers for line in _lines(task, answers[task], names)]
    heights = [_inches(labels[task]) for task, _ in lines] or [1.5]
    with style.drawing(pdf, svg, (style.WIDTH, 0.3 + sum(heights))) as figure:
        panels = figure.subplots(len(heights), COLUMNS, squeeze=False, height_ratios=heights)
        for row, (task, keys) in zip(panels, lines):
            for place, (axes, key) in enumerate(zip(row, keys)):
                _panel(axes, answers[task][key], labels[task], first=place == 0)
                title = textwrap.fill(method_title(names, *key), 20)
                axes.set_title(title, fontsize=7)
            for axes in row[len(keys) :]:
                axes.set_axis_off()
            row[0].set_ylabel(f"{names['tasks'][task]}\ntrue label")
        if not lines:
            for axes in panels[0]:
                axes.set_axis_off()
            style.say(panels[0, COLUMNS // 2], "No task of this study has labels.")


def _lines(task: str, answers: Mapping[Key, np.ndarray], names: Names) -> list[tuple[str, list[Key]]]:
    """Methods of one task in lines of panels."""
    places = list(names["methods"])
    keys = sorted(answers, key=lambda key: (places.index(key[0]), key[1]))
    return [(task, keys[start : start + COLUMNS]) for start in range(0, len(keys), COLUMNS)]


def _inches(labels: Sequence[str]) -> float:
    return 1.1 + 0.2 * min(max(len(labels), 3), READABLE)


def _answers(
    files: Sequence[str | Path], labels: Mapping[str, Sequence[str]], names: Names
) -> dict[str, dict[Key, np.ndarray]]:
    found: dict[str, dict[Key, np.ndarray]] = {}
    for file in map(Path, files):
        task, method, k = file.parts[-5:-2]
        if labels.get(task) and names["methods"].get(method, {}).get("group") == "main":
            counts = found.setdefault(task, {})
            key = method, int(k[1:])
            counts[key] = counts.get(key, 0) + confusion(read_predictions(file), labels[task])
    return found


def confusion(predictions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Count examples by true label and answer, ``[labels, labels + 1]``; the last column has no valid answer."""
    answers = predictions["prediction"].where(predictions["prediction"].isin(labels), NONE)
    table = pd.crosstab(predictions["label"], answers)
    return table.reindex(index=list(labels), columns=[*labels, NONE], fill_value=0).to_numpy()


def _panel(axes: Axes, counts: np.ndarray, labels: Sequence[str], first: bool) -> None:
    columns = [*labels, NONE]
    if not counts[:, -1].any():
        counts, columns = counts[:, :-1], columns[:-1]
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    few = len(labels) <= READABLE
    ticks = [plain(label, 14).split(" … (")[0] for label in columns] if few else False
    sns.heatmap(
        shares,
        ax=axes,
        vmin=0,
        vmax=100,
        cmap="Blues",
        cbar=False,
        annot=few and len(labels) <= 8,
        fmt=".0f",
        annot_kws={"size": 7},
        square=False,
        linewidths=0.5 if few else 0,
        linecolor="white",
        xticklabels=ticks,
        yticklabels=[plain(label, 14).split(" … (")[0] for label in labels] if few and first else False,
    )
    axes.tick_params(length=0, labelsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(axis="y", rotation=0)
    axes.set_xlabel("answer")
