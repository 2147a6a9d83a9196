"""The plots of an evaluation, as PNG bytes: those of binary tasks, and those of every task."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ct_assets.core.metrics import reliability_curve
from ct_assets.core.tasks import BINARY
from ct_assets.core.verdict import SliceResult
from ct_assets.lib.canvas import (
    CHALLENGER,
    CHAMPION,
    DIAGONAL,
    NEGATIVE,
    POSITIVE,
    QUIET,
    WORSE,
    figure_of,
    height_for,
    legend,
    legend_above,
    message,
    name_rows,
    png,
)

Prediction = pd.Series | npt.NDArray[np.float64]

Floats = npt.NDArray[np.float64]

SHOWN_SLICES = 14
SHOWN_COLUMNS = 18

_SCORE_BINS = 40
_Z95 = 1.959964


def calibration(label: pd.Series, challenger: Prediction, champion: Prediction | None) -> bytes:
    """Observed rate against mean prediction in equal-width bins, with 95 % intervals around the challenger's.

    Rows with an unusable label or score are left out.
    """
    figure, axes = figure_of(3.7)
    axes.plot([0, 1], [0, 1], color=DIAGONAL, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    drawn = False
    if champion is not None:
        drawn = reliability(axes, BINARY.usable(label, champion), "champion", CHAMPION, intervals=False)
    drawn = reliability(axes, BINARY.usable(label, challenger), "challenger", CHALLENGER, intervals=True) or drawn
    if not drawn:
        return message(figure, axes, "No usable predictions to calibrate")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="mean prediction of the bin", ylabel="observed rate")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend(axes, "upper left")
    return png(figure)


def scores(label: pd.Series, challenger: Prediction, champion: Prediction | None) -> bytes:
    """How the scores of each class are spread: the challenger's as areas, the champion's as lines."""
    figure, axes = figure_of(3.7)
    labels, values = BINARY.usable(label, challenger)
    edges = np.linspace(0, 1, _SCORE_BINS + 1)
    classes = ((0, NEGATIVE), (1, POSITIVE))
    for outcome, colour in classes:
        shares = _shares(values[labels == outcome], edges)
        if shares is not None:
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.5, label=f"challenger, label {outcome}")
    if champion is not None:
        labels, values = BINARY.usable(label, champion)
        for outcome, colour in classes:
            shares = _shares(values[labels == outcome], edges)
            if shares is not None:
                axes.stairs(shares, edges, color=colour, linewidth=1.3, label=f"champion, label {outcome}")
    if not axes.patches:
        return message(figure, axes, "No usable predictions")
    axes.set(xlim=(0, 1), xlabel="predicted probability", ylabel="share of the rows of that label")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    legend(axes, "upper right")
    return png(figure)


def slices(rows: Sequence[SliceResult], metric: str, overall: float | None = None) -> bytes:
    """The first `SHOWN_SLICES` of `rows`, top down: champion's and challenger's metric, joined by a line.

    Hollow: not judged. Red: judged and failed. `overall` is the challenger's metric on all rows.
    """
    valued = [(row, row.challenger) for row in rows if row.challenger is not None][:SHOWN_SLICES]
    shown = [row for row, _ in valued]
    figure, axes = figure_of(height_for(len(shown)))
    if not shown:
        return message(figure, axes, "No slice has a value to show")
    if overall is not None:
        axes.axvline(overall, color=CHALLENGER, linewidth=1, linestyle=(0, (2, 3)), label="challenger, all rows")
    for place, (row, value) in enumerate(valued):
        colour = CHALLENGER if row.passed else WORSE
        if row.champion is not None:
            axes.plot([row.champion, value], [place, place], color=colour, alpha=0.45, linewidth=2, zorder=2)
            axes.plot([row.champion], [place], "o", color=CHAMPION, markersize=5, zorder=3)
        face = colour if row.judged else "white"
        axes.plot([value], [place], "o", color=colour, markerfacecolor=face, markersize=6.5, zorder=4)
    marks: list[dict[str, Any]] = []
    if any(row.champion is not None for row in shown):
        marks.append({"color": CHAMPION, "label": "champion"})
    if any(row.judged and row.passed for row in shown):
        marks.append({"color": CHALLENGER, "label": "challenger"})
    if any(not row.passed for row in shown):
        marks.append({"color": WORSE, "label": "challenger, failed"})
    if any(not row.judged for row in shown):
        marks.append({"color": CHALLENGER, "markerfacecolor": "white", "label": "challenger, not judged"})
    for mark in marks:
        axes.plot([], [], "o", markersize=6, **mark)
    name_rows(axes, [f"{row.column} = {row.value}" for row in shown])
    axes.set_xlabel(f"{metric} in the slice")
    legend_above(figure)
    return png(figure)


def importance(drops: Mapping[str, float], metric: str) -> bytes:
    """The `SHOWN_COLUMNS` columns whose permutation costs most, largest first."""
    finite = {name: drop for name, drop in drops.items() if np.isfinite(drop)}
    ranked = sorted(finite.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = ranked[:SHOWN_COLUMNS], ranked[SHOWN_COLUMNS:]
    figure, axes = figure_of(height_for(len(shown)))
    if not shown:
        return message(figure, axes, "Importance was not measured")
    values = [drop for _, drop in shown]
    axes.barh(range(len(shown)), values, color=[CHALLENGER if v > 0 else CHAMPION for v in values], height=0.66)
    axes.axvline(0, color=QUIET, linewidth=0.8)
    name_rows(axes, [name for name, _ in shown])
    others = f" ({len(rest)} more: {rest[0][1]:.2g} or less)" if rest else ""
    axes.set_xlabel(f"{metric} lost when the column is permuted{others}")
    return png(figure)


def wilson_interval(rate: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """Ends of the 95 % interval of a rate observed in so many rows (Wilson 1927)."""
    centre = (rate + _Z95**2 / (2 * rows)) / (1 + _Z95**2 / rows)
    reach = np.sqrt(rate * (1 - rate) / rows + (_Z95 / (2 * rows)) ** 2) * _Z95 / (1 + _Z95**2 / rows)
    return centre - reach, centre + reach


def reliability(axes: Axes, pairs: tuple[Floats, Floats], name: str, colour: str, *, intervals: bool) -> bool:
    """Draw the observed rate against the mean prediction of each bin; False where there is nothing to draw."""
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
