"""Confusion matrices: which labels each method takes for which."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from telepathy.report.figures import style
from telepathy.report.text import Names, method_title, plain

NONE = "(none)"
READABLE = 12
"""Most labels whose names and numbers can be read in a panel."""


def draw_confusion(
    files: Sequence[str | Path], labels: Mapping[str, Sequence[str]], names: Names, pdf: str | Path, svg: str | Path
) -> None:
    """Draw one row of panels a task, one panel a main method, its seeds together.

    A row of a panel is a true label, a column an answer, a cell the share of the row in percent.

    Args:
        files: ``…/runs/<task>/<method>/k<k>/seed<seed>/predictions.parquet``.
        labels: task -> its labels in order; a task that is absent here has none.
        names: titles of methods and tasks.
        pdf: file to write.
        svg: file to write.
    """
    answers = _answers(files, labels, names)
    tasks = [task for task in names["tasks"] if task in answers]
    columns = max((len(answers[task]) for task in tasks), default=1)
    heights = [_inches(labels[task]) for task in tasks] or [1.5]
    with style.drawing(pdf, svg, (max(style.WIDTH, 1.5 * columns), 0.3 + sum(heights))) as figure:
        panels = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
        for row, task in zip(panels, tasks):
            for axes, (method, k) in zip(row, sorted(answers[task], key=_order(names))):
                _panel(axes, answers[task][method, k], labels[task])
                axes.set_title(method_title(names, method, k).replace(" (", "\n("), fontsize=7.5)
            for axes in row[len(answers[task]) :]:
                axes.set_axis_off()
            row[0].set_ylabel(f"{names['tasks'][task]}\ntrue label")
            for axes in row[1 : len(answers[task])]:
                axes.set_yticks([])
        if not tasks:
            style.say(panels[0, 0], "No task of this study has labels.")


def _order(names: Names):
    places = list(names["methods"])
    return lambda pair: (places.index(pair[0]), pair[1])


def _inches(labels: Sequence[str]) -> float:
    return 1.1 + 0.2 * min(max(len(labels), 3), READABLE)


def _answers(
    files: Sequence[str | Path], labels: Mapping[str, Sequence[str]], names: Names
) -> dict[str, dict[tuple[str, int], np.ndarray]]:
    found: dict[str, dict[tuple[str, int], np.ndarray]] = {}
    for file in map(Path, files):
        task, method, k = file.parts[-5:-2]
        if labels.get(task) and names["methods"].get(method, {}).get("group") == "main":
            counts = found.setdefault(task, {})
            key = method, int(k[1:])
            counts[key] = counts.get(key, 0) + confusion(pd.read_parquet(file), labels[task])
    return found


def confusion(predictions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Count examples by true label and answer, ``[labels, labels + 1]``; the last column has no valid answer."""
    answers = predictions["prediction"].where(predictions["prediction"].isin(labels), NONE)
    table = pd.crosstab(predictions["label"], answers)
    return table.reindex(index=list(labels), columns=[*labels, NONE], fill_value=0).to_numpy()


def _panel(axes: Axes, counts: np.ndarray, labels: Sequence[str]) -> None:
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
        yticklabels=ticks[: len(labels)] if few else False,  # type: ignore[index]
    )
    axes.tick_params(length=0, labelsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(axis="y", rotation=0)
    axes.set_xlabel("answer")
