"""Tables of a study: csv for machines, LaTeX for papers, HTML for pages, from files of results only."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from telepathy.analysis.rows import read_statistics
from telepathy.files import atomic_path, write_csv
from telepathy.report.latex import render

SCORERS = {
    "labels": "Labels are scored by the log-likelihood of their whole text",
    "boolean": "labels are scored by the log-likelihood of their whole text",
    "multiple_choice": "labels are scored by the log-likelihood of their whole text",
    "number": "numbers are generated and must match exactly",
}
MARKS = (
    "Bold: the best mean of a column and what is not significantly worse than it (paired over seeds and examples, "
    "Holm within the column, 5 %); nothing is bold where that is all."
)


class Cell(NamedTuple):
    """Text of a cell, and whether it is marked as best."""

    text: str
    best: bool = False


class Head(NamedTuple):
    """Head of a column: its text, LaTeX column type, and whether it holds numbers."""

    text: str
    column: str = "l"
    number: bool = False
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a reader sees of a table, in any format.

    Attributes:
        name: of its file; LaTeX label and HTML id follow from it.
        caption: what the numbers are, with n, seeds and scorer.
        heads: one a column.
        rows: one cell a column each.
        long: whether it may break over pages.
    """

    name: str
    caption: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    long: bool = False

    def write(self, tex: str | Path, html: str | Path) -> None:
        """Write the table as LaTeX and as an HTML fragment."""
        values = {name: getattr(self, name) for name in ("name", "caption", "heads", "rows", "long")}
        for path, template in ((tex, "table.tex.jinja"), (html, "table.html.jinja")):
            with atomic_path(path) as partial:
                partial.write_text(render(template, **values))


def number(text: str) -> Head:
    """Head of a column of numbers."""
    return Head(text, "r", number=True)


def wide(share: float) -> str:
    """LaTeX column of running text that takes a share of the line."""
    return rf">{{\raggedright\arraybackslash}}p{{{share}\linewidth}}"


def accuracy_table(
    summary: pd.DataFrame,
    tasks: Mapping[str, str],
    methods: Mapping[str, str],
    best: Collection[tuple[str, str, int]] = (),
) -> pd.DataFrame:
    """One row a method and token count, with mean and spread over seeds of every task.

    Args:
        summary: rows of ``summary.csv``.
        tasks: task -> title, in the order of the columns.
        methods: method -> title, in the order of the rows.
        best: task, method and token count of what is marked.

    Returns:
        Columns ``method``, ``title``, ``soft_tokens``, ``task``, ``n``, ``seeds``, ``accuracy`` (percent, mean over
        seeds), ``std`` (points; empty for one seed), ``majority`` (percent) and ``best``.
    """
    kept = summary[summary["task"].isin(list(tasks)) & summary["method"].isin(list(methods))]
    table = kept.groupby(["method", "soft_tokens", "task"], as_index=False).agg(
        n=("n", "first"),
        seeds=("seed", "size"),
        accuracy=("accuracy", lambda shares: 100 * shares.mean()),
        std=("accuracy", lambda shares: 100 * shares.std(ddof=1)),
        majority=("majority", lambda shares: 100 * shares.mean()),
    )
    order = {name: place for place, name in enumerate(methods)}
    table["title"] = table["method"].map(dict(methods))
    table["best"] = [run in best for run in zip(table["task"], table["method"], table["soft_tokens"])]
    table = table.sort_values(
        ["method", "soft_tokens", "task"], key=lambda col: col.map(order) if col.name == "method" else col
    )
    columns = ["method", "title", "soft_tokens", "task", "n", "seeds", "accuracy", "std", "majority", "best"]
    return table[columns].round(4)


def best_runs(statistics: pd.DataFrame, table: str) -> set[tuple[str, str, int]]:
    """What a table marks: the best of each column, and what is not significantly worse.

    Args:
        statistics: rows of ``statistics.csv``; a family ``best of <table>, <task>`` compares the best of a column
            with all others.
        table: name of the table.

    Returns:
        Task, method and token count of each; nothing of a column in which nothing is significantly worse.
    """
    found: set[tuple[str, str, int]] = set()
    rows = statistics[statistics["statistic"] == "difference"]
    for family, column in rows.groupby("family"):
        if not str(family).startswith(f"best of {table}, ") or not column["significant"].eq(True).any():
            continue
        level = column[column["significant"].eq(False)]
        found.update(zip(column["task"], column["method"], column["soft_tokens"].astype(int)))
        found.update(zip(level["task"], level["versus"], level["versus_soft_tokens"].astype(int)))
    return found


def cells(table: pd.DataFrame, tasks: Mapping[str, str]) -> list[dict]:
    """Rows for templates: title, soft tokens, and a cell ``mean ± std`` a task (a dash for none)."""
    rows = []
    for _, group in table.groupby(["method", "soft_tokens"], sort=False):
        found = {row["task"]: _cell(row) for row in group.to_dict("records")}
        marked = set(group[group["best"].astype(bool)]["task"]) if "best" in group else set()
        first = group.iloc[0]
        row = {"method": first["method"], "title": first["title"], "k": int(first["soft_tokens"])}
        texts = [found.get(task, "--") for task in tasks]
        rows.append({**row, "cells": texts, "best": [task in marked for task in tasks]})
    return rows


def _cell(row: Mapping[Any, Any]) -> str:
    spread = "" if pd.isna(row["std"]) else f" ± {row['std']:.1f}"
    return f"{row['accuracy']:.1f}{spread}"


def write_accuracy_table(
    summary: str | Path,
    statistics: str | Path,
    tasks: Mapping[str, str],
    methods: Mapping[str, str],
    kinds: Iterable[str],
    title: str,
    name: str,
    tex: str | Path,
    csv: str | Path,
    html: str | Path,
) -> None:
    """Write the accuracy of every method on some tasks.

    Args:
        summary: path of ``summary.csv``.
        statistics: path of ``statistics.csv``, which says what is best.
        tasks: task -> title, in the order of the columns.
        methods: method -> title, in the order of the rows.
        kinds: kinds of the tasks, which say how answers are scored.
        title: the study's title, for the caption.
        name: the table's name.
        tex: LaTeX file to write.
        csv: csv file to write.
        html: HTML fragment to write.
    """
    found = read_statistics(statistics)
    table = accuracy_table(pd.read_csv(summary), tasks, methods, best_runs(found, name))
    shown = {task: text for task, text in tasks.items() if task in set(table["task"])}
    heads = [Head("Method", wide(0.3)), number("k"), *(number(text) for text in shown.values())]
    rows = [
        [Cell(row["title"]), Cell(str(row["k"] or "--")), *map(Cell, row["cells"], row["best"])]
        for row in cells(table, shown)
    ]
    caption = " ".join([_facts(table, shown, title), scorer(kinds), _published(methods), MARKS, *_wrong(table, shown)])
    write_csv(csv, table)
    Table(name=name, caption=caption, heads=heads, rows=rows).write(tex, html)


def _facts(table: pd.DataFrame, tasks: Mapping[str, str], title: str) -> str:
    first = table.groupby("task")[["n", "majority"]].first().to_dict("index")
    sizes = [
        f"{text}: n = {first[task]['n']:.0f}, majority share {first[task]['majority']:.1f}"
        for task, text in tasks.items()
    ]
    seeds = int(table["seeds"].max()) if len(table) else 0
    spread = (
        f"Mean ± standard deviation over {seeds} seeds at most; a value without ± is of one run."
        if seeds > 1
        else "Every value is of one run, so that the spread over seeds is not known."
    )
    where = f" ({'; '.join(sizes)})" if sizes else ": the study has no run for this table"
    return f"Accuracy in percent on the test examples of the study “{title}”{where}. {spread} k: soft tokens."


def scorer(kinds: Iterable[str]) -> str:
    """How the answers of some kinds of tasks are scored, as a sentence."""
    ways = "; ".join(dict.fromkeys(SCORERS[kind].lower() for kind in SCORERS if kind in set(kinds)))
    return f"{ways[:1].upper()}{ways[1:]}."


def _published(methods: Mapping[str, str]) -> str:
    if not any(name.endswith("_as_published") for name in methods):
        return ""
    return "Of methods that write freely (as published) the first label found counts; an answer without one is wrong."


def _wrong(table: pd.DataFrame, tasks: Mapping[str, str]) -> list[str]:
    """A note on every method that has no right answer at all: no number is missing there."""
    none = table[table["accuracy"] == 0]
    names = [f"{row['title']} on {tasks[row['task']]}" for row in none.to_dict("records")]
    return [f"All answers wrong: {'; '.join(names)}."] if names else []
