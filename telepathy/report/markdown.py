"""A study's tables as Markdown, for documents that people read in a repository."""

from pathlib import Path

import pandas as pd

from telepathy.errors import TelepathyError
from telepathy.report.tables import cells


def markdown(folder: str | Path) -> str:
    """The baseline (else the classification) and the reasoning table of a study, and its costs by rule.

    Raises:
        TelepathyError: if the study has no table yet.
    """
    tables = Path(folder) / "tables"
    names = ["table3_baselines", "table1_classification"]
    first = next((name for name in names if (tables / f"{name}.csv").is_file()), None)
    if first is None:
        raise TelepathyError(f"{tables} has no table yet: run snakemake {tables}/{names[1]}.csv first.")
    parts = [_table(tables / f"{first}.csv")]
    if (tables / "table2_reasoning.csv").is_file():
        parts.append(_table(tables / "table2_reasoning.csv"))
    return "\n\n".join([*parts, _costs(Path(folder) / "costs.csv")]) + "\n"


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
