"""What a bridge sends, from the files that the rule inspect_bridge wrote."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from sklearn.manifold import TSNE

from telepathy.files import read_json
from telepathy.report.figures import style
from telepathy.report.text import Names, plain

LINE = 60
"""Tokens in a line of the attention figure."""
LABELS = 8
"""Most labels whose words are shown."""


def draw_soft_tokens(tables: Sequence[str | Path], names: Names, pdf: str | Path, svg: str | Path) -> None:
    """Draw the soft tokens of test examples in two dimensions (t-SNE), a panel a task, a colour and mark a label.

    Args:
        tables: ``…/inspection/<task>.parquet``.
        names: titles of tasks.
        pdf: file to write.
        svg: file to write.
    """
    columns = min(2, len(tables)) or 1
    lines = -(-len(tables) // columns) or 1
    with style.drawing(pdf, svg, (style.WIDTH * (0.55 if columns == 1 else 1), 3.3 * lines)) as figure:
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, table in zip(panels, map(Path, tables)):
            _scatter(axes, pd.read_parquet(table))
            axes.set_title(names["tasks"].get(table.stem, table.stem))
        for axes in panels[len(tables) :]:
            axes.set_axis_off()


def _scatter(axes: Axes, frame: pd.DataFrame) -> None:
    vectors = frame.filter(regex=r"^c\d+$").to_numpy()
    if len(frame) < 6 or not vectors.std():
        style.say(axes, "Too few examples, or soft tokens that are all alike.")
        return
    perplexity = min(30, (len(frame) - 1) / 3)
    flat = TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(vectors)
    labels = sorted(frame["label"].astype(str).unique())
    for place, label in enumerate(labels):
        chosen = flat[(frame["label"].astype(str) == label).to_numpy()]
        look: dict[str, Any] = {
            "marker": style.MARKERS[place % len(style.MARKERS)],
            "s": 14,
            "lw": 0.4,
            "edgecolor": "white",
        }
        axes.scatter(*chosen.T, color=style.PALETTE[place % 10], label=plain(label, 24), **look)
    axes.set(xticks=[], yticks=[], xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
    if len(labels) <= 12:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.08), ncols=2, markerscale=1.4)


def draw_attention(facts: Sequence[str | Path], names: Names, pdf: str | Path, svg: str | Path) -> None:
    """Draw which tokens of real examples each soft token reads, long texts in several lines.

    Two examples a task, or one where there are more than two tasks.

    Args:
        facts: ``…/inspection/<task>.json``.
        names: titles of tasks.
        pdf: file to write.
        svg: file to write.
    """
    contents = [read_json(path) for path in facts]
    some = 2 if len(contents) <= 2 else 1
    strips = [
        strip
        for content in contents
        for example in content["examples"][:some]
        for strip in _strips(content, example, names)
    ]
    heights = [0.85 + 0.07 * len(strip["weights"]) for strip in strips] or [1]
    with style.drawing(pdf, svg, (style.WIDTH, sum(heights) + 0.2)) as figure:
        panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, strip in zip(panels, strips):
            _strip(axes, strip)
        if not strips:
            style.say(panels[0], "The bridge of this study has no attention to show.")


def _strips(content: dict, example: dict, names: Names) -> list[dict[str, Any]]:
    if example["attention"] is None:
        return []
    weights = 100 * np.array(example["attention"])
    task = content["run"]["task"]
    title = f"{names['tasks'].get(task, task)}, {plain(example['id'], 30)}, label: {plain(example['label'], 24)}"
    top = np.quantile(weights, 0.995)
    return [
        {
            "title": title if not start else "",
            "weights": weights[:, start : start + LINE],
            "tokens": example["tokens"][start : start + LINE],
            "top": top,
        }
        for start in range(0, len(example["tokens"]), LINE)
    ]


def _strip(axes: Axes, strip: dict[str, Any]) -> None:
    weights = strip["weights"]
    axes.pcolormesh(weights, cmap="Blues", vmin=0, vmax=strip["top"], edgecolor="0.93", lw=0.2)
    axes.set_xticks(np.arange(len(strip["tokens"])) + 0.5, [_token(token) for token in strip["tokens"]], rotation=90)
    axes.set_yticks([0.5, len(weights) - 0.5], ["1", str(len(weights))])
    axes.set(xlim=(0, LINE), ylim=(len(weights), 0))
    axes.set_ylabel("soft token")
    axes.tick_params(axis="x", length=0, labelsize=6)
    axes.set_title(strip["title"], fontsize=8)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _token(token: str) -> str:
    return "⏎" if token.strip(" ") == "\n" else plain(token, 14).split(" … (")[0]


def draw_words(facts: Sequence[str | Path], names: Names, pdf: str | Path, svg: str | Path) -> None:
    """Draw the words of the receiver's vocabulary nearest to each label's mean soft tokens, and to what is their own.

    Args:
        facts: ``…/inspection/<task>.json``.
        names: titles of tasks.
        pdf: file to write.
        svg: file to write.
    """
    contents = [read_json(path) for path in facts]
    shown = [(content, key) for content in contents for key in ("words", "apart")]
    heights = [0.9 + 0.19 * len(next(iter(content[key].values()), [])) for content, key in shown] or [1]
    with style.drawing(pdf, svg, (style.WIDTH, sum(heights))) as figure:
        panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (content, key) in zip(panels, shown):
            task = content["run"]["task"]
            _words(axes, dict(list(content[key].items())[:LABELS]))
            what = (
                "nearest to the soft tokens" if key == "words" else "nearest to what sets a label's soft tokens apart"
            )
            axes.set_title(f"{names['tasks'].get(task, task)}: {what}")


def _words(axes: Axes, words: dict[str, list]) -> None:
    cosines = np.array([[(row or [{"cosine": 0}])[0]["cosine"] for row in rows] for rows in words.values()]).T
    joined = 3 if len(words) <= 2 else 2 if len(words) <= 4 else 1
    texts = [
        [", ".join(plain(hit["word"], 14).split(" … (")[0] for hit in row[:joined]) for row in rows]
        for rows in words.values()
    ]
    sns.heatmap(
        cosines,
        ax=axes,
        annot=np.array(texts).T,
        fmt="",
        annot_kws={"size": 6.5},
        cmap="Blues",
        vmin=0,
        vmax=max(0.5, float(cosines.max(initial=0))),
        linewidths=0.6,
        linecolor="white",
        cbar_kws={"label": "cosine of the first word"},
        xticklabels=[plain(label, 24) for label in words],
        yticklabels=range(1, len(cosines) + 1),
    )
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)
    axes.set(ylabel="soft token", xlabel="label of the text")
