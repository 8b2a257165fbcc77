"""Training curves of bridges: loss and accuracy on dev."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from telepathy.files import read_json
from telepathy.report.figures import style
from telepathy.report.text import Names, method_title

COLUMNS = ["task", "method", "k", "seed", "step", "train_loss", "loss", "accuracy"]


def draw_training(folders: Sequence[str | Path], names: Names, pdf: str | Path, svg: str | Path) -> None:
    """Draw one row of two panels a task: loss and dev accuracy over optimiser steps, a line a run.

    Args:
        folders: ``…/runs/<task>/<method>/k<k>/seed<seed>/bridge``, each with its ``training.json``.
        names: titles of methods and tasks.
        pdf: file to write.
        svg: file to write.
    """
    history = pd.DataFrame([row for folder in folders for row in _history(Path(folder))], columns=COLUMNS)
    tasks = [task for task in names["tasks"] if task in set(history["task"])]
    with style.drawing(pdf, svg, (style.WIDTH, 0.4 + 1.7 * max(1, len(tasks)))) as figure:
        panels = figure.subplots(max(1, len(tasks)), 2, squeeze=False)
        for row, task in zip(panels, tasks):
            _curves(row[0], row[1], history[history["task"] == task], names)
            row[0].set_title(names["tasks"][task])
        if not tasks:
            for axes in panels[0]:
                style.say(axes, "No bridge was trained.")


def _curves(left: Axes, right: Axes, history: pd.DataFrame, names: Names) -> None:
    for place, ((method, k), runs) in enumerate(history.groupby(["method", "k"], sort=True)):
        look: dict[str, Any] = {"color": style.PALETTE[place % 10], "ls": style.DASHES[place % 4], "lw": 1.2, "ms": 3}
        look["marker"] = style.MARKERS[place % len(style.MARKERS)]
        label: str | None = method_title(names, str(method), k)
        for _, run in runs.groupby("seed", sort=True):
            left.plot(run["step"], run["loss"], **look)
            left.plot(run["step"], run["train_loss"], color=look["color"], lw=0.8, ls=":")
            right.plot(run["step"], 100 * run["accuracy"], label=label, **look)
            label = None  # one entry for all seeds
    top = 1.1 * history[["loss", "train_loss"]].max().max()  # there is no training loss at the start
    left.set(xlabel="optimiser step", ylabel="loss (nats)", ylim=(0, top))
    right.set(xlabel="optimiser step", ylabel="dev accuracy (percent)", ylim=(-2, 102))
    for axes in (left, right):
        axes.grid(color="0.9", lw=0.6)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(loc="lower right")


def _history(folder: Path) -> list[dict]:
    task, method, k, seed = folder.parts[-5:-1]
    run = {"task": task, "method": method, "k": int(k[1:]), "seed": int(seed[4:])}
    return [{**run, **record} for record in read_json(folder / "training.json")["history"]]
