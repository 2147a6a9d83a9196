"""What the plots of an evaluation are drawn on.

Drawn with matplotlib's object interface only: no pyplot, no global state, so they may be drawn in any thread; the same
data give the same bytes.
"""

import io
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

CHALLENGER, CHAMPION, WORSE = "#2f6db3", "#8b929c", "#c0443a"
NEGATIVE, POSITIVE = "#3b8f87", "#d9822b"
INK, QUIET, GRID, DIAGONAL = "#2b2f36", "#666d78", "#e6e8eb", "#a9aeb6"

_DPI = 90
_WIDTH = 5.8


def figure_of(height: float) -> tuple[Figure, Axes]:
    """A figure of the page's width, so many inches high, and its axes."""
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.8)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8.5, length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=QUIET, fontsize=9)
    return figure, axes


def height_for(rows: int) -> float:
    """Inches that a chart with so many rows of names needs."""
    return max(1.8, 0.95 + 0.23 * rows)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a chart, top down."""
    # Names come from the data: without parse_math a "$" in one would be read as a formula.
    axes.set_yticks(range(len(names)), [_short(name) for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))


def name_columns(axes: Axes, names: Sequence[str]) -> None:
    """Name the columns of a chart, aslant where their names would overlap."""
    texts = [_short(name, 14) for name in names]
    axes.set_xticks(range(len(names)), texts, parse_math=False)
    if sum(map(len, texts)) > 60:
        for text in axes.get_xticklabels():
            text.set(rotation=35, ha="right", rotation_mode="anchor")


def _short(name: str, width: int = 30) -> str:
    text = "".join(char if char.isprintable() else " " for char in name)
    return text if len(text) <= width else text[: width - 1] + "…"


def legend(axes: Axes, place: Literal["upper left", "upper right"]) -> None:
    """A legend within the axes."""
    axes.legend(loc=place, frameon=False, fontsize=8.5, labelcolor=INK, handlelength=1.4)


def legend_above(figure: Figure) -> None:
    """A legend above the axes, for charts that fill them."""
    figure.legend(
        loc="outside upper center",
        ncols=2,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        handlelength=1.4,
        columnspacing=1.4,
    )


def message(figure: Figure, axes: Axes, text: str) -> bytes:
    """A sentence in place of a chart that has nothing to show."""
    axes.clear()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=QUIET, fontsize=10)
    return png(figure)


def png(figure: Figure) -> bytes:
    """The figure's bytes: the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
