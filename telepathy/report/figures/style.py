"""How all figures look, and how they are written so that the same data give the same bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from telepathy.files import atomic_path
from telepathy.report.text import Names

matplotlib.use("agg")

WIDTH = 7.0
"""Inches between the margins of a page."""

SETTINGS: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 8,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "telepathy",
    "text.parse_math": False,  # a dollar sign in somebody's text is no formula
}

PALETTE = sns.color_palette("colorblind").as_hex()
BRIDGE, BASELINE, VARIANT, CONTROL = PALETTE[0], "#4d4d4d", PALETTE[1], "#8c8c8c"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
DASHES = ("-", "--", "-.", ":")


@contextmanager
def drawing(pdf: str | Path, svg: str | Path, size: tuple[float, float]) -> Iterator[Figure]:
    """Yield an empty figure of some inches and write it to both files when the block ends."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        _settle(figure)
        with atomic_path(pdf) as partial:
            figure.savefig(partial, format="pdf", bbox_inches="tight", metadata={"CreationDate": None})
        with atomic_path(svg) as partial:
            figure.savefig(partial, format="svg", bbox_inches="tight", metadata={"Date": None})


def _settle(figure: Figure) -> None:
    """Lay the figure out once, to a millionth of its size.

    The solver of matplotlib's layout rounds in another order in every process, and ids in an SVG are hashes of all
    digits.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        corners = axes.get_position(original=True).get_points()
        axes.set_position(Bbox(np.round(corners, 6)))


def say(axes: Axes, note: str) -> None:
    """Put a note in the place of a picture that the data do not give."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, note, ha="center", va="center", wrap=True, transform=axes.transAxes, style="italic")


def ordered(methods: Any, names: Names) -> list[str]:
    """Methods in the order of config.yaml, unknown ones last."""
    places = {name: place for place, name in enumerate(names["methods"])}
    return sorted(set(methods), key=lambda name: (places.get(name, len(places)), name))
