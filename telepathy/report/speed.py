"""The speed table of a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from telepathy.files import atomic_path
from telepathy.report.latex import render

TITLES = {
    "bridge": "Bridge",
    "bridge_no_answer": "Bridge, no answer decoded",
    "direct_receiver": "Receiver alone",
    "direct_sender": "Sender alone",
    "label_relay": "Label relay",
}


def write_speed_table(latency: str | Path, study: str, target: str | Path) -> None:
    """Write ``latency.csv`` as a LaTeX table.

    Args:
        latency: path of ``latency.csv``.
        study: the study's title, for the caption.
        target: LaTeX file to write.
    """
    table = pd.read_csv(latency)
    text = render(
        "speed.tex.jinja",
        study=study,
        hardware=" and ".join(table["hardware"].unique()),
        smallest=table["n"].min(),
        largest=table["n"].max(),
        rows=[_row(row) for row in table.to_dict("records")],
    )
    with atomic_path(target) as partial:
        partial.write_text(text)


def arm_title(arm: str) -> str:
    """What an arm is called in tables."""
    if arm in TITLES:
        return TITLES[arm]
    tokens, _, fixed = arm.removeprefix("text_relay_").partition("_")
    return f"Text relay, {tokens} tokens" if fixed else f"Text relay, up to {tokens} tokens"


def _row(row: Mapping[Any, Any]) -> dict[str, Any]:
    published = row["protocol"] == "as_published"
    arm = "text_relay_50_fixed" if published and row["arm"] == "text_relay_50" else row["arm"]
    return {
        "arm": arm_title(arm),
        "batch_size": row["batch_size"],
        "mode": f"{row['mode']}, as published" if published else row["mode"],
        "median": f"{row['median_ms']:.1f}",
        "interval": f"{row['low_ms']:.1f}--{row['high_ms']:.1f}",
        "rate": f"{row['examples_per_s']:.1f}",
        "tokens": f"{row['tokens_generated']:.0f}",
        "least": "--" if pd.isna(row["roofline_ms"]) else f"{row['roofline_ms']:.1f}",
        "ratio": "--" if pd.isna(row["roofline_ratio"]) else f"{row['roofline_ratio']:.1f}",
    }
