"""The command line: ``python -m telepathy show results/demo`` prints a study's table and where its files lie."""

import argparse
import sys
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from telepathy.errors import TelepathyError
from telepathy.report.markdown import markdown
from telepathy.report.tables import cells

MARKS = ("<!-- demo:", "<!-- end of demo -->")


def show(folder: Path, console: Console) -> None:
    """Print the classification table and the costs of a study.

    Raises:
        TelepathyError: if the study has no table yet.
    """
    csv = folder / "tables" / "table1_classification.csv"
    if not csv.is_file():
        raise TelepathyError(f"{csv} does not exist yet: run snakemake {csv} first.")
    frame = pd.read_csv(csv)
    tasks = {task: task for task in frame["task"].unique()}
    table = Table(title=f"Accuracy in percent, {folder}")
    for column in ("method", "k", *tasks):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in cells(frame, tasks):
        table.add_row(plain(row["title"]), str(row["k"] or "-"), *row["cells"])
    console.print(table)
    costs = folder / "costs.csv"
    if costs.is_file():
        seconds = pd.read_csv(costs)["seconds"].sum()
        console.print(f"Jobs took {seconds / 60:.1f} minutes of machine time; by rule: {costs}")
    console.print(f"Results: {folder}/summary.csv, {folder}/tables/, {folder}/runs/")


def plain(text: str) -> Text:
    """A text from a configuration or from data as it stands: neither markup nor codes that steer a terminal."""
    return Text("".join(char for char in text if char.isprintable()))


def insert(folder: Path, document: Path, console: Console) -> None:
    """Write a study's tables and costs as Markdown between the marks of a document.

    Raises:
        TelepathyError: if the document has no marks, or the study no tables yet.
    """
    before, start, rest = document.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not start or not end:
        raise TelepathyError(
            f"{document} has no place for the table: it needs the lines {MARKS[0]!r} and {MARKS[1]!r}."
        )
    first_line, _, _ = rest.partition("\n")
    text = markdown(folder)
    document.write_text(f"{before}{start}{first_line}\n{text}\n{end}{after}")
    console.print(f"{document}: tables of {folder}")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="telepathy", description=__doc__)
    commands = parser.add_subparsers(required=True)
    shown = commands.add_parser("show", help="print a study's table")
    shown.add_argument("folder", type=Path, help="e.g. results/demo")
    shown.set_defaults(run=lambda options: show(options.folder, Console()))
    inserted = commands.add_parser("insert", help="write a study's tables into a document")
    inserted.add_argument("folder", type=Path, help="e.g. results/demo")
    inserted.add_argument("document", type=Path, help="e.g. README.md")
    inserted.set_defaults(run=lambda options: insert(options.folder, options.document, Console()))
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except TelepathyError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
