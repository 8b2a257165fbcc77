"""The command line: show a study's table, check a task or a model of one's own before anything runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from telepathy.errors import TelepathyError
from telepathy.report.document import PACKAGES
from telepathy.report.facts import scorecard
from telepathy.report.markdown import DEFAULT_PARTS, PARTS, markdown
from telepathy.report.tables import cells


def show(folder: Path, console: Console) -> None:
    """Print the classification table (that of reasoning where it has no row), costs, verdicts and which files to open.

    Raises:
        TelepathyError: if the study has no table yet.
    """
    tables = [folder / "tables" / f"{name}.csv" for name in ("table1_classification", "table2_reasoning")]
    made = [frame for frame in map(pd.read_csv, filter(Path.is_file, tables)) if len(frame)]
    if not made:
        raise TelepathyError(f"{tables[0]} does not exist yet: run snakemake {tables[0]} first.")
    frame = made[0]
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
    _say_what_to_open(folder, console)


def _say_what_to_open(folder: Path, console: Console) -> None:
    claims, page, paper = (folder / name for name in ("claims.csv", "report.html", "paper.pdf"))
    if claims.is_file():
        counts = ", ".join(f"{count} {verdict}" for verdict, count in scorecard(pd.read_csv(claims)).items())
        console.print(f"Claims of the publication: {counts}")
    if page.is_file():
        console.print(f"Open in a browser: {page}")
    if paper.is_file():
        console.print(f"To print: {paper}")
    elif page.is_file():
        console.print(f"{paper} needs LaTeX: apt-get install {PACKAGES}, then .venv/bin/snakemake --cores all {paper}")


def plain(text: str) -> Text:
    """A text from a configuration or from data as it stands: neither markup nor codes that steer a terminal."""
    return Text("".join(char for char in text if char.isprintable()))


def insert(folder: Path, document: Path, parts: Sequence[str], console: Console) -> None:
    """Write tables of a study (see `telepathy.report.markdown`) between its marks in a document.

    Raises:
        TelepathyError: if the document has no marks, or the study no tables yet.
    """
    marks = f"<!-- {folder.name}:", f"<!-- end of {folder.name} -->"
    before, start, rest = document.read_text().partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not start or not end:
        raise TelepathyError(
            f"{document} has no place for the table: it needs the lines {marks[0]!r} and {marks[1]!r}."
        )
    first_line, _, _ = rest.partition("\n")
    text = markdown(folder, parts)
    document.write_text(f"{before}{start}{first_line}\n{text}\n{end}{after}")
    console.print(f"{document}: tables of {folder}")


def check_own_task(file: Path, sender: Path | None, receiver: Path | None, downloads: Path, console: Console) -> None:
    """Print what models will read of a task, and what is wrong with it.

    Raises:
        TelepathyError: if the task cannot be run.
    """
    from telepathy.models.loading import load_tokenizer_only
    from telepathy.tasks.check import check_data
    from telepathy.tasks.show import show_report
    from telepathy.tasks.spec import load_task

    named = [folder for folder in (sender, receiver) if folder is not None]
    folders = named or sorted(path.parent for path in Path("resources/models").glob("*/config.json"))
    report = check_data(load_task(file), [load_tokenizer_only(folder) for folder in folders], downloads)
    show_report(report, console)
    if not folders:
        console.print("No tokenizer was tried: name model folders with --sender and --receiver.")
    if report.problems:
        raise TelepathyError(f"The task {report.task.name} cannot be run as it is: see above.")


def check_own_model(folder: Path, console: Console) -> None:
    """Print what is known of a model and whether it fits this machine.

    Raises:
        TelepathyError: if the model cannot take part or does not fit.
    """
    from telepathy.models.check import check_model

    facts = check_model(folder)
    for name, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        console.print(f"{name.replace('_', ' '):17} {shown}", markup=False, highlight=False)
    if not facts["fits"]:
        raise TelepathyError(
            f"The model {folder.name} needs about {facts['needed_mb']} MiB, but {facts['device']} has "
            f"{facts['available_mb']} MiB: take a smaller model or a larger machine."
        )


def write_reference(document: Path, console: Console) -> None:
    """Write the reference of all settings."""
    from telepathy.files import atomic_path
    from telepathy.report.reference import reference

    with atomic_path(document) as partial:
        partial.write_text(reference())
    console.print(f"{document}: every setting, from the schemas")


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
    inserted.add_argument("--tables", nargs="+", choices=PARTS, default=DEFAULT_PARTS, help="which, in order")
    inserted.set_defaults(run=lambda options: insert(options.folder, options.document, options.tables, Console()))
    written = commands.add_parser("reference", help="write the reference of all settings")
    written.add_argument("document", type=Path, help="e.g. docs/configuration.md")
    written.set_defaults(run=lambda options: write_reference(options.document, Console()))
    _add_checks(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except TelepathyError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def _add_checks(commands: Any) -> None:
    tasks = commands.add_parser("tasks", help="look at a task").add_subparsers(required=True)
    task = tasks.add_parser("check", help="show a task's prompts, labels and balance, and what is wrong")
    task.add_argument("file", type=Path, help="the task's YAML")
    task.add_argument("--sender", type=Path, help="folder of a model; only its tokenizer is read")
    task.add_argument("--receiver", type=Path, help="folder of a model; only its tokenizer is read")
    task.add_argument("--downloads", type=Path, default=Path("resources/downloads"), help="folder that keeps downloads")
    task.set_defaults(
        run=lambda options: check_own_task(
            options.file, options.sender, options.receiver, options.downloads, Console(soft_wrap=True)
        )
    )
    models = commands.add_parser("models", help="look at a model").add_subparsers(required=True)
    model = models.add_parser("check", help="say whether a model can take part and fits this machine")
    model.add_argument("folder", type=Path, help="with config.json and tokenizer; weights are not read")
    model.set_defaults(run=lambda options: check_own_model(options.folder, Console()))


if __name__ == "__main__":
    sys.exit(main())
