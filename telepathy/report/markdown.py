"""A study's tables as Markdown, for documents that people read in a repository."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from telepathy.errors import TelepathyError
from telepathy.report.result_tables import interval_text, p_text
from telepathy.report.tables import cells

PARTS = ("accuracy", "seeds", "differences", "costs")
DEFAULT_PARTS = ("accuracy", "costs")


def markdown(folder: str | Path, parts: Sequence[str] = DEFAULT_PARTS) -> str:
    """Some tables of a study, one after the other.

    Args:
        folder: the study's results.
        parts: any of ``accuracy`` (the baseline, else the classification table, that of ablations and that of
            reasoning), ``seeds`` (how much seeds differ), ``differences`` (of the declared comparisons) and
            ``costs`` (by rule).

    Raises:
        TelepathyError: if the study has no table yet.
    """
    tables = Path(folder) / "tables"
    write = {
        "accuracy": lambda: _accuracies(tables),
        "seeds": lambda: _seeds(pd.read_csv(_made(tables / "table10_seeds.csv"))),
        "differences": lambda: _differences(pd.read_csv(_made(tables / "table7_statistics.csv"))),
        "costs": lambda: _costs(Path(folder) / "costs.csv"),
    }
    return "\n\n".join(write[part]() for part in parts) + "\n"


def _made(path: Path) -> Path:
    if not path.is_file():
        raise TelepathyError(f"{path.parent} has no table yet: run snakemake {path} first.")
    return path


def _accuracies(tables: Path) -> str:
    baselines = tables / "table3_baselines.csv"
    first = "table3_baselines" if baselines.is_file() else "table1_classification"
    names = (first, "table6_ablations", "table2_reasoning")
    paths = [tables / f"{name}.csv" for name in names]
    there = [path for path in paths if path.is_file() and len(pd.read_csv(path))]
    return "\n\n".join(map(_table, there or [_made(tables / "table1_classification.csv")]))


def _seeds(frame: pd.DataFrame) -> str:
    lines = ["| task | method | k | seeds | accuracy in percent | lowest | probe | collapsed |"]
    lines.append("| --- | --- |" + " ---: |" * 6)
    for row in frame.to_dict("records"):
        probe = ("", "") if pd.isna(row["probe"]) else (f"{row['probe']:.1f}", f"{row['collapsed']:.0f}")
        cells = [row["task"], f"`{row['method']}`", row["soft_tokens"] or "", row["seeds"]]
        cells += [f"{row['accuracy']:.1f} ± {row['std']:.1f}", f"{row['lowest']:.1f}", *probe]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _differences(frame: pd.DataFrame) -> str:
    lines = [
        "| task | difference in points | estimate | 95 % interval | p (Holm) |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in frame.to_dict("records"):
        cells = [row["task"], f"`{row['method']}` − `{row['versus']}`", f"{row['difference']:+.1f}"]
        lines.append(f"| {' | '.join([*cells, interval_text(row), p_text(row['p_adjusted'])])} |")
    return "\n".join(lines)


def _table(path: Path) -> str:
    frame = pd.read_csv(path)
    facts = frame.groupby("task", sort=False)[["n", "majority"]].first()
    heads = [f"{task} (n {row['n']:.0f}, majority {row['majority']:.1f})" for task, row in facts.iterrows()]
    lines = [f"| accuracy in percent | k | {' | '.join(heads)} |", "| --- " + "| ---: " * (1 + len(heads)) + "|"]
    for row in cells(frame, {task: task for task in facts.index}):
        lines.append(f"| {row['title']} | {row['k'] or ''} | {' | '.join(row['cells'])} |".replace(" -- ", "  "))
    return "\n".join(lines)


def _costs(path: Path) -> str:
    costs = pd.read_csv(path)
    shown = costs.head(6).to_dict("records")
    rules = ", ".join(f"{row['rule']} {row['seconds'] / 60:.1f} ({row['jobs']})" for row in shown)
    return (
        f"Mean ± standard deviation over seeds. {costs['jobs'].sum()} jobs took "
        f"{costs['seconds'].sum() / 60:.0f} minutes of machine time; the most in {rules} minutes (jobs)."
    )
