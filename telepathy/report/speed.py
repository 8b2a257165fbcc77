"""The speed table of a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from telepathy.files import write_csv
from telepathy.report.tables import Cell, Head, Table, number

TITLES = {
    "bridge": "Bridge",
    "bridge_no_answer": "Bridge, no answer decoded",
    "direct_receiver": "Receiver alone",
    "direct_sender": "Sender alone",
    "label_relay": "Label relay",
}


LEAST_CALLS = 6
"""Fewest calls that tell a 95 % interval of the median: five all lie on one side of it in 1 of 16 cases."""

HEADS = [
    Head("Arm"),
    number("Batch"),
    Head("Mode"),
    *map(number, ("Median ms", "95 %", "Examples/s", "Tokens", "Least ms", "Ratio")),
]
CAPTION = (
    "Speed in the study “{study}” on {hardware}: median milliseconds a call, from text to chosen label in every arm "
    "(equal work), with the bootstrap 95 % interval of the median; examples a second; tokens written; the least time "
    "that bytes and operations would take at the machine's measured rates, and the ratio to it. Rows marked “as "
    "published” follow the publication's unequal protocol. {calls} timed calls an arm; fewer than 6 "
    "tell no interval."
)


def write_speed_table(
    latency: str | Path, study: str, name: str, tex: str | Path, csv: str | Path, html: str | Path
) -> None:
    """Write ``latency.csv`` as a table.

    Args:
        latency: path of ``latency.csv``.
        study: the study's title, for the caption.
        name: the table's name.
        tex: LaTeX file to write.
        csv: csv file to write.
        html: HTML fragment to write.
    """
    frame = pd.read_csv(latency)
    rows = [_row(row) for row in frame.to_dict("records")]
    calls = sorted({int(frame["n"].min()), int(frame["n"].max())})
    caption = CAPTION.format(
        study=study, hardware=" and ".join(frame["hardware"].unique()), calls=" to ".join(map(str, calls))
    )
    write_csv(csv, pd.DataFrame(rows, columns=[head.text for head in HEADS]))
    cells = [[Cell(text) for text in row] for row in rows]
    Table(name=name, caption=caption, heads=HEADS, rows=cells).write(tex, html)


def arm_title(arm: str) -> str:
    """What an arm is called in tables."""
    if arm in TITLES:
        return TITLES[arm]
    tokens, _, fixed = arm.removeprefix("text_relay_").partition("_")
    return f"Text relay, {tokens} tokens" if fixed else f"Text relay, up to {tokens} tokens"


def _row(row: Mapping[Any, Any]) -> list[str]:
    published = row["protocol"] == "as_published"
    arm = "text_relay_50_fixed" if published and row["arm"] == "text_relay_50" else row["arm"]
    least = ["--" if pd.isna(row[name]) else f"{row[name]:.1f}" for name in ("roofline_ms", "roofline_ratio")]
    return [
        arm_title(arm),
        str(row["batch_size"]),
        f"{row['mode']}, as published" if published else row["mode"],
        f"{row['median_ms']:.1f}",
        f"{row['low_ms']:.1f}–{row['high_ms']:.1f}" if row["n"] >= LEAST_CALLS else "--",
        f"{row['examples_per_s']:.1f}",
        f"{row['tokens_generated']:.0f}",
        *least,
    ]
