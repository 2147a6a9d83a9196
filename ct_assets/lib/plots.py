"""The plots of an evaluation, as PNG bytes.

Drawn with matplotlib's object interface only: no pyplot, no global state, so they may be drawn in any thread; the same
data give the same bytes.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ct_assets.core.metrics import reliability_curve
from ct_assets.core.verdict import SliceResult

Floats = npt.NDArray[np.float64]

SHOWN_SLICES = 14
SHOWN_COLUMNS = 18

_DPI = 90
_WIDTH = 5.8
_CHALLENGER, _CHAMPION, _WORSE = "#2f6db3", "#8b929c", "#c0443a"
_NEGATIVE, _POSITIVE = "#3b8f87", "#d9822b"
_INK, _QUIET, _GRID, _DIAGONAL = "#2b2f36", "#666d78", "#e6e8eb", "#a9aeb6"
_SCORE_BINS = 40
_Z95 = 1.959964


def calibration(label: pd.Series, challenger: pd.Series, champion: pd.Series | None) -> bytes:
    """Observed rate against mean prediction in equal-width bins, with 95 % intervals around the challenger's.

    Rows with an unusable label or score are left out.
    """
    figure, axes = _figure(3.7)
    axes.plot([0, 1], [0, 1], color=_DIAGONAL, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    drawn = False
    if champion is not None:
        drawn = _reliability(axes, usable(label, champion), "champion", _CHAMPION, intervals=False)
    drawn = _reliability(axes, usable(label, challenger), "challenger", _CHALLENGER, intervals=True) or drawn
    if not drawn:
        return _message(figure, axes, "No usable predictions to calibrate")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="mean prediction of the bin", ylabel="observed rate")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    _legend(axes, "upper left")
    return _png(figure)


def scores(label: pd.Series, challenger: pd.Series, champion: pd.Series | None) -> bytes:
    """How the scores of each class are spread: the challenger's as areas, the champion's as lines."""
    figure, axes = _figure(3.7)
    labels, values = usable(label, challenger)
    edges = np.linspace(0, 1, _SCORE_BINS + 1)
    classes = ((0, _NEGATIVE), (1, _POSITIVE))
    for outcome, colour in classes:
        shares = _shares(values[labels == outcome], edges)
        if shares is not None:
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.5, label=f"challenger, label {outcome}")
    if champion is not None:
        labels, values = usable(label, champion)
        for outcome, colour in classes:
            shares = _shares(values[labels == outcome], edges)
            if shares is not None:
                axes.stairs(shares, edges, color=colour, linewidth=1.3, label=f"champion, label {outcome}")
    if not axes.patches:
        return _message(figure, axes, "No usable predictions")
    axes.set(xlim=(0, 1), xlabel="predicted probability", ylabel="share of the rows of that label")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _legend(axes, "upper right")
    return _png(figure)


def slices(rows: Sequence[SliceResult], metric: str, overall: float | None = None) -> bytes:
    """The first `SHOWN_SLICES` of `rows`, top down: champion's and challenger's metric, joined by a line.

    Hollow: not judged. Red: judged and failed. `overall` is the challenger's metric on all rows.
    """
    valued = [(row, row.challenger) for row in rows if row.challenger is not None][:SHOWN_SLICES]
    shown = [row for row, _ in valued]
    figure, axes = _figure(_height(len(shown)))
    if not shown:
        return _message(figure, axes, "No slice has a value to show")
    if overall is not None:
        axes.axvline(overall, color=_CHALLENGER, linewidth=1, linestyle=(0, (2, 3)), label="challenger, all rows")
    for place, (row, value) in enumerate(valued):
        colour = _CHALLENGER if row.passed else _WORSE
        if row.champion is not None:
            axes.plot([row.champion, value], [place, place], color=colour, alpha=0.45, linewidth=2, zorder=2)
            axes.plot([row.champion], [place], "o", color=_CHAMPION, markersize=5, zorder=3)
        face = colour if row.judged else "white"
        axes.plot([value], [place], "o", color=colour, markerfacecolor=face, markersize=6.5, zorder=4)
    marks: list[dict[str, Any]] = []
    if any(row.champion is not None for row in shown):
        marks.append({"color": _CHAMPION, "label": "champion"})
    if any(row.judged and row.passed for row in shown):
        marks.append({"color": _CHALLENGER, "label": "challenger"})
    if any(not row.passed for row in shown):
        marks.append({"color": _WORSE, "label": "challenger, failed"})
    if any(not row.judged for row in shown):
        marks.append({"color": _CHALLENGER, "markerfacecolor": "white", "label": "challenger, not judged"})
    for mark in marks:
        axes.plot([], [], "o", markersize=6, **mark)
    _name_rows(axes, [f"{row.column} = {row.value}" for row in shown])
    axes.set_xlabel(f"{metric} in the slice")
    _legend_above(figure)
    return _png(figure)


def importance(drops: Mapping[str, float], metric: str) -> bytes:
    """The `SHOWN_COLUMNS` columns whose permutation costs most, largest first."""
    finite = {name: drop for name, drop in drops.items() if np.isfinite(drop)}
    ranked = sorted(finite.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = ranked[:SHOWN_COLUMNS], ranked[SHOWN_COLUMNS:]
    figure, axes = _figure(_height(len(shown)))
    if not shown:
        return _message(figure, axes, "Importance was not measured")
    values = [drop for _, drop in shown]
    axes.barh(range(len(shown)), values, color=[_CHALLENGER if v > 0 else _CHAMPION for v in values], height=0.66)
    axes.axvline(0, color=_QUIET, linewidth=0.8)
    _name_rows(axes, [name for name, _ in shown])
    others = f" ({len(rest)} more: {rest[0][1]:.2g} or less)" if rest else ""
    axes.set_xlabel(f"{metric} lost when the column is permuted{others}")
    return _png(figure)


def usable(label: pd.Series, score: pd.Series) -> tuple[Floats, Floats]:
    """Labels and scores, row by row whatever the index, where the label is 0 or 1 and the score within [0, 1]."""
    labels = pd.to_numeric(label, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    values = pd.to_numeric(score, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    kept = ((labels == 0) | (labels == 1)) & (values >= 0) & (values <= 1)
    return labels[kept], values[kept]


def wilson_interval(rate: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """Ends of the 95 % interval of a rate observed in so many rows (Wilson 1927)."""
    centre = (rate + _Z95**2 / (2 * rows)) / (1 + _Z95**2 / rows)
    reach = np.sqrt(rate * (1 - rate) / rows + (_Z95 / (2 * rows)) ** 2) * _Z95 / (1 + _Z95**2 / rows)
    return centre - reach, centre + reach


def _reliability(axes: Axes, pairs: tuple[Floats, Floats], name: str, colour: str, *, intervals: bool) -> bool:
    curve = reliability_curve(*pairs)
    if curve.empty:
        return False
    if intervals:
        low, high = wilson_interval(curve["observed_rate"].to_numpy(), curve["rows"].to_numpy(dtype=np.float64))
        axes.vlines(curve["mean_predicted"], low, high, color=colour, alpha=0.4, linewidth=2)
    axes.plot(curve["mean_predicted"], curve["observed_rate"], "o-", color=colour, linewidth=1.4, ms=4, label=name)
    return True


def _shares(values: Floats, edges: Floats) -> Floats | None:
    return np.histogram(values, edges)[0] / len(values) if len(values) else None


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=8.5, length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=_QUIET, fontsize=9)
    return figure, axes


def _height(rows: int) -> float:
    return max(1.8, 0.95 + 0.23 * rows)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    # Names come from the data: without parse_math a "$" in one would be read as a formula.
    axes.set_yticks(range(len(names)), [_short(name) for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _short(name: str, width: int = 30) -> str:
    text = "".join(char if char.isprintable() else " " for char in name)
    return text if len(text) <= width else text[: width - 1] + "…"


def _legend(axes: Axes, place: Literal["upper left", "upper right"]) -> None:
    axes.legend(loc=place, frameon=False, fontsize=8.5, labelcolor=_INK, handlelength=1.4)


def _legend_above(figure: Figure) -> None:
    figure.legend(
        loc="outside upper center",
        ncols=2,
        frameon=False,
        fontsize=8.5,
        labelcolor=_INK,
        handlelength=1.4,
        columnspacing=1.4,
    )


def _message(figure: Figure, axes: Axes, text: str) -> bytes:
    axes.clear()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=_QUIET, fontsize=10)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
