"""Latency: against accuracy, and where the time goes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter

from telepathy.report.figures import style
from telepathy.report.text import Names

ARMS = {"direct_receiver": "zero_shot_receiver", "direct_sender": "zero_shot_sender"}
"""Arms of the benchmark that have another name than the method whose accuracy they have."""
PARTS = {"sender_ms": "sender", "bridge_ms": "bridge", "receiver_ms": "receiver", "rest_ms": "tokenising and host"}
HATCHES = ("", "///", "\\\\\\", "xx")


def _measured(latency: str | Path) -> pd.DataFrame:
    """Arms at batch size 1 under the protocol of equal work; of several modes the fastest."""
    table = pd.read_csv(latency)
    table = table[(table["protocol"] == "equal_work") & (table["batch_size"] == 1) & table["median_ms"].notna()]
    return table.sort_values(["median_ms", "arm"]).drop_duplicates("arm")


def _title(arm: str) -> str:
    return arm.replace("_", " ")


def draw_pareto(
    latency: str | Path,
    statistics: str | Path,
    task: str,
    soft_tokens: int,
    names: Names,
    pdf: str | Path,
    svg: str | Path,
) -> None:
    """Draw accuracy over latency at batch size 1, a point an arm; what no other point beats in both is joined.

    Args:
        latency: ``latency.csv``.
        statistics: ``statistics.csv``.
        task: what was timed; the accuracies are those on its test examples.
        soft_tokens: of the bridge that was timed.
        names: titles of tasks.
        pdf: file to write.
        svg: file to write.
    """
    accuracy = pd.read_csv(statistics).query("statistic == 'accuracy'")
    timed = accuracy[(accuracy["task"] == task) & accuracy["soft_tokens"].isin([0, soft_tokens])]
    points = _points(_measured(latency), timed)
    with style.drawing(pdf, svg, (0.9 * style.WIDTH, 3)) as figure:
        axes = figure.subplots()
        if points.empty:
            style.say(axes, "No arm has both a latency and an accuracy.")
            return
        for place, row in enumerate(points.to_dict("records")):
            _point(axes, row, place)
        # Only a point that is more accurate than all faster ones is on the front.
        front = points[points["estimate"] > points["estimate"].cummax().shift(fill_value=float("-inf"))]
        label = "no other arm is faster and better"
        axes.plot(front["median_ms"], front["estimate"], color="0.6", lw=0.8, ls="--", zorder=0, label=label)
        _log_ms(axes)
        axes.set_ylabel("accuracy (percent)")
        axes.set_title(f"{names['tasks'].get(task, task)}, {points['device'].iloc[0]}")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))


def _point(axes: Axes, row: Mapping[Any, Any], place: int) -> None:
    errors = [[row["estimate"] - row["low"]], [row["high"] - row["estimate"]]]
    look: dict[str, Any] = {"color": style.PALETTE[place % 10], "fmt": style.MARKERS[place % len(style.MARKERS)]}
    axes.errorbar(row["median_ms"], row["estimate"], yerr=errors, ms=6, label=_title(row["arm"]), **look)


def _points(measured: pd.DataFrame, accuracy: pd.DataFrame) -> pd.DataFrame:
    # A relay whose length is fixed answers no better than one that stops by itself.
    measured = measured[~measured["arm"].str.endswith("_fixed")]
    methods = measured["arm"].str.replace(r"^text_relay_\d+$", "text_relay", regex=True).replace(ARMS)
    columns = ["method", "soft_tokens", "estimate", "low", "high"]
    found = measured.assign(method=methods).merge(accuracy[columns], on="method")
    return found.sort_values(["median_ms", "arm"], ignore_index=True)


def _log_ms(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(LogFormatter())
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    axes.set_xlabel("milliseconds an example, batch size 1 (logarithmic)")
    axes.grid(color="0.9", lw=0.6)


def draw_latency(latency: str | Path, pdf: str | Path, svg: str | Path) -> None:
    """Draw the median time of every arm at batch size 1, by part, with the roofline as a mark.

    Args:
        latency: ``latency.csv``.
        pdf: file to write.
        svg: file to write.
    """
    table = _measured(latency)
    parts = table[["sender_ms", "bridge_ms", "receiver_ms"]].fillna(0)
    parts["rest_ms"] = (table["median_ms"] - parts.sum(axis=1)).clip(lower=0)
    with style.drawing(pdf, svg, (style.WIDTH, 0.9 + 0.34 * max(len(table), 2))) as figure:
        axes = figure.subplots()
        if table.empty:
            style.say(axes, "No arm was measured at batch size 1.")
            return
        _bars(axes, parts)
        axes.plot(table["roofline_ms"], range(len(table)), "|", ms=15, mew=2, color="black", label="roofline")
        for place, median in enumerate(table["median_ms"]):
            axes.annotate(f"{median:.1f}", (median, place), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(table)), [_title(arm) for arm in table["arm"]])
        axes.set_ylim(len(table) - 0.4, -0.6)
        axes.set_xlabel(f"milliseconds an example, batch size 1, {table['device'].iloc[0]}")
        axes.margins(x=0.08)
        figure.legend(loc="outside lower center", ncols=5)


def _bars(axes: Axes, parts: pd.DataFrame) -> None:
    start = pd.Series(0.0, index=parts.index)
    for place, (column, title) in enumerate(PARTS.items()):
        look: dict[str, Any] = {"color": style.PALETTE[place], "hatch": HATCHES[place], "label": title}
        axes.barh(range(len(parts)), parts[column], left=start, height=0.6, edgecolor="white", **look)
        start = start + parts[column]
