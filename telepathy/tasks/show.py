"""Print what `telepathy.tasks.check` found, for people."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from telepathy.tasks.check import ModelView, TaskReport

SHOWN_LABELS = 20


def show_report(report: TaskReport, console: Console) -> None:
    """Print a task's prompt, balance, tokens, and what is wrong in one sentence each."""
    task = report.task
    console.print(Text(f"{task.title} ({task.name}, {task.kind})", style="bold"))
    console.print(Text("\nThe first training example:", style="bold"))
    console.print(_plain(report.example))
    console.print(_balance(report))
    for view in report.views:
        if not view.problems:
            _show_view(view, console)
    for style, heading, lines in (
        ("red", "These stop a run:", report.problems),
        ("yellow", "Worth a thought:", report.remarks),
    ):
        if lines:
            console.print(Text(f"\n{heading}", style=f"bold {style}"))
        for line in lines:
            console.print(_plain(f"  - {line}"))
    if not report.problems and not report.remarks:
        console.print(Text("\nNothing is wrong.", style="bold green"))


def _plain(text: str) -> Text:
    """Text of the data with nothing in it that a terminal would obey."""
    return Text("".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text))


def _balance(report: TaskReport) -> Table:
    table = Table(title="Examples")
    for column in ("answer", *report.balance.columns, "share of test"):
        table.add_column(column, justify="left" if column == "answer" else "right")
    whole = max(1, report.balance["test"].sum())
    for name, row in report.balance.iterrows():
        table.add_row(_plain(str(name)), *(str(value) for value in row), f"{100 * row['test'] / whole:.1f} %")
    return table


def _show_view(view: ModelView, console: Console) -> None:
    least, median, most = view.lengths
    console.print(Text(f"\n{view.model} reads {least} to {most} tokens (median {median}); ", style="bold"), end="")
    console.print(Text(f"{100 * view.cut:.1f} % of the prompts are cut. The first one, as it reads it:"))
    console.print(_plain(view.prompt), style="dim")
    if not view.labels:
        return
    table = Table(title=f"Answers in the tokens of {view.model}")
    table.add_column("answer")
    table.add_column("tokens", justify="right")
    table.add_column("as pieces")
    for name, pieces in list(view.labels.items())[:SHOWN_LABELS]:
        table.add_row(_plain(name), str(len(pieces)), _plain(" ".join(f"[{piece}]" for piece in pieces)))
    console.print(table)
    if len(view.labels) > SHOWN_LABELS:
        console.print(Text(f"and {len(view.labels) - SHOWN_LABELS} more"))
