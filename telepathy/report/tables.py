"""Tables of a study: csv for machines, LaTeX for papers, text for the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from telepathy.files import atomic_path, write_csv
from telepathy.report.latex import render


def accuracy_table(summary: pd.DataFrame, tasks: Mapping[str, str], methods: Mapping[str, str]) -> pd.DataFrame:
    """One row a method and token count, with mean and spread over seeds of every task.

    Args:
        summary: rows of ``summary.csv``.
        tasks: task -> title, in the order of the columns.
        methods: method -> title, in the order of the rows.

    Returns:
        Columns ``method``, ``title``, ``soft_tokens``, ``task``, ``n``, ``seeds``, ``accuracy`` (percent, mean over
        seeds), ``std`` (points; empty for one seed) and ``majority`` (percent).
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
    table = table.sort_values(
        ["method", "soft_tokens", "task"], key=lambda col: col.map(order) if col.name == "method" else col
    )
    return table[["method", "title", "soft_tokens", "task", "n", "seeds", "accuracy", "std", "majority"]].round(4)


def cells(table: pd.DataFrame, tasks: Mapping[str, str]) -> list[dict]:
    """Rows for templates: title, soft tokens, and a cell ``mean ± std`` a task (a dash for none)."""
    rows = []
    for _, group in table.groupby(["method", "soft_tokens"], sort=False):
        found = {row["task"]: _cell(row) for row in group.to_dict("records")}
        first = group.iloc[0]
        texts = [found.get(task, "--") for task in tasks]
        rows.append(
            {"method": first["method"], "title": first["title"], "k": int(first["soft_tokens"]), "cells": texts}
        )
    return rows


def _cell(row: Mapping[Any, Any]) -> str:
    spread = "" if pd.isna(row["std"]) else f" ± {row['std']:.1f}"
    return f"{row['accuracy']:.1f}{spread}"


def write_accuracy_table(
    summary: str | Path,
    tasks: Mapping[str, str],
    methods: Mapping[str, str],
    title: str,
    name: str,
    tex: str | Path,
    csv: str | Path,
) -> None:
    """Write the accuracy of every method on some tasks as LaTeX and csv.

    Args:
        summary: path of ``summary.csv``.
        tasks: task -> title, in the order of the columns.
        methods: method -> title, in the order of the rows.
        title: the study's title, for the caption.
        name: the table's name, for its LaTeX label.
        tex: LaTeX file to write.
        csv: csv file to write.
    """
    table = accuracy_table(pd.read_csv(summary), tasks, methods)
    facts = table.groupby("task").agg(n=("n", "first"), majority=("majority", "first"))
    shown = {task: text for task, text in tasks.items() if task in facts.index}
    text = render(
        "accuracy.tex.jinja",
        study=title,
        label=name,
        tasks=[{"title": text, **facts.loc[task].to_dict()} for task, text in shown.items()],
        rows=cells(table, shown),
        seeds=int(table["seeds"].max()) if len(table) else 0,
    )
    write_csv(csv, table)
    with atomic_path(tex) as partial:
        partial.write_text(text)
