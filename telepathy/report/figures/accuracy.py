"""Accuracy of every method with its interval, and over numbers of soft tokens."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from telepathy.report.figures import style
from telepathy.report.text import Names, method_title

KEYS = ["task", "method", "soft_tokens"]
LOOKS = {
    "main": (style.BASELINE, "s"),
    "variant": (style.VARIANT, "D"),
    "control": (style.CONTROL, "X"),
    "ablation": (style.PALETTE[2], "^"),
}


def draw_accuracy(statistics: str | Path, summary: str | Path, names: Names, pdf: str | Path, svg: str | Path) -> None:
    """Draw one panel a task and one row a method: mean with 95 % interval, seeds as small points, majority as a line.

    Args:
        statistics: ``statistics.csv``.
        summary: ``summary.csv``, for the majority shares.
        names: titles of methods and tasks; methods of the group ``ablation`` are left to their table.
        pdf: file to write.
        svg: file to write.
    """
    table = pd.read_csv(statistics)
    kept = [name for name, entry in names["methods"].items() if entry.get("group") != "ablation"]
    table = table[table["method"].isin(kept) & table["statistic"].isin(["accuracy", "accuracy_run"])]
    tasks = [task for task in names["tasks"] if task in set(table["task"])]
    majority = pd.read_csv(summary).groupby("task")["majority"].mean() * 100
    rows = {task: _rows(table[table["task"] == task], names) for task in tasks}
    heights = [len(rows[task]) + 1.6 for task in tasks] or [4]
    with style.drawing(pdf, svg, (style.WIDTH, 0.9 + 0.19 * sum(heights))) as figure:
        panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
        for axes, task in zip(panels, tasks):
            share = majority.get(task)
            _panel(axes, rows[task], table[table["task"] == task], names, share)
            axes.set_title(names["tasks"][task])
        if tasks:
            panels[-1].set_xlabel("accuracy on the test examples (percent)")
            figure.legend(handles=_legend(), loc="outside upper center", ncols=3)
        else:
            style.say(panels[0], "No run of this study has an accuracy.")


def _rows(table: pd.DataFrame, names: Names) -> list[tuple[str, float]]:
    """Methods and token counts of one task, from top to bottom."""
    places = {name: place for place, name in enumerate(style.ordered(table["method"], names))}
    pairs = table[["method", "soft_tokens"]].fillna({"soft_tokens": 0}).drop_duplicates()
    return sorted(pairs.itertuples(index=False, name=None), key=lambda pair: (places[pair[0]], pair[1]))


def _panel(
    axes: Axes, rows: list[tuple[str, float]], table: pd.DataFrame, names: Names, majority: float | None
) -> None:
    for place, (method, count) in enumerate(rows):
        group = names["methods"][method].get("group", "main")
        colour, marker = (style.BRIDGE, "o") if method == "bridge" else LOOKS[group]
        here = table[(table["method"] == method) & (table["soft_tokens"].fillna(0) == count)]
        seeds = here.loc[here["statistic"] == "accuracy_run", "estimate"]
        if len(seeds) > 1:
            axes.plot(seeds, [place] * len(seeds), "o", ms=3, mfc="none", mec=colour, mew=0.7, zorder=3)
        for row in here[here["statistic"] == "accuracy"].to_dict("records"):
            axes.plot([row["low"], row["high"]], [place, place], color=colour, lw=1.4, zorder=2)
            axes.plot(row["estimate"], place, marker, ms=5, color=colour, zorder=4)
    if majority is not None and majority == majority:
        axes.axvline(majority, color="black", lw=0.8, ls=":", zorder=1)
    axes.set_yticks(range(len(rows)), [method_title(names, *row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-2, 102)
    axes.grid(axis="x", color="0.9", lw=0.6)


def _legend() -> list[Line2D]:
    def entry(label: str, colour: str, marker: str, **look: object) -> Line2D:
        return Line2D([], [], color=colour, marker=marker, ms=5, lw=1.4, label=label, **look)  # type: ignore[arg-type]

    return [
        entry("bridge", style.BRIDGE, "o"),
        entry("baseline", *LOOKS["main"]),
        entry("variant, or as published", *LOOKS["variant"]),
        entry("control", *LOOKS["control"]),
        Line2D([], [], color="black", marker="o", mfc="none", ms=3, mew=0.7, lw=0, label="one seed"),
        Line2D([], [], color="black", lw=0.8, ls=":", label="share of the most frequent label"),
    ]


def draw_tokens(statistics: str | Path, names: Names, pdf: str | Path, svg: str | Path) -> None:
    """Draw the accuracy of each bridge over its number of soft tokens, a line a task and method.

    Args:
        statistics: ``statistics.csv``.
        names: titles of methods and tasks.
        pdf: file to write.
        svg: file to write.
    """
    table = pd.read_csv(statistics)
    table = table[table["soft_tokens"].fillna(0) > 0]
    means = table[table["statistic"] == "accuracy"].sort_values([*KEYS])
    lines = [(str(task), str(method), part) for (task, method), part in means.groupby(["task", "method"])]
    lines = [line for line in lines if len(line[2]) > 1]
    with style.drawing(pdf, svg, (0.75 * style.WIDTH, 2.8)) as figure:
        axes = figure.subplots()
        for place, (task, method, part) in enumerate(lines):
            colour = style.PALETTE[place % len(style.PALETTE)]
            dash, marker = style.DASHES[place % 4], style.MARKERS[place % len(style.MARKERS)]
            title = f"{names['tasks'].get(task, task)}: {method_title(names, method)}"
            axes.fill_between(part["soft_tokens"], part["low"], part["high"], color=colour, alpha=0.15, lw=0)
            axes.plot(part["soft_tokens"], part["estimate"], dash, marker=marker, ms=5, color=colour, label=title)
            runs = table[(table["statistic"] == "accuracy_run") & (table["task"] == task) & (table["method"] == method)]
            axes.plot(runs["soft_tokens"], runs["estimate"], "o", ms=3, mfc="none", mec=colour, mew=0.7)
        _finish_tokens(axes, sorted({count for *_, part in lines for count in part["soft_tokens"]}))


def _finish_tokens(axes: Axes, counts: list[float]) -> None:
    if not counts:
        style.say(axes, "No bridge of this study was trained with several numbers of soft tokens.")
        return
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [f"{count:.0f}" for count in counts], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(counts) / np.sqrt(1.5), max(counts) * np.sqrt(1.5))
    axes.set_xlabel("soft tokens k (logarithmic)")
    axes.set_ylabel("accuracy (percent)")
    axes.grid(color="0.9", lw=0.6)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2))
