"""The plots of an evaluation of numbers, as PNG bytes. Rows that cannot be used are left out of each."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ct_assets.core.metrics_values import coverage_by_level
from ct_assets.core.tasks import Quantile, Regression
from ct_assets.lib.canvas import (
    CHALLENGER,
    CHAMPION,
    DIAGONAL,
    QUIET,
    figure_of,
    legend,
    legend_above,
    message,
    png,
)
from ct_assets.lib.plots import Prediction, wilson_interval

Floats = npt.NDArray[np.float64]

_BINS = 40
#: Of values that a chart spans, the share that lies beyond it on either side: a single outlier would stretch it.
_BEYOND = 0.002


def values(task: Regression, label: pd.Series, challenger: Prediction) -> bytes:
    """Where labels lie against predictions: darker where there are more rows."""
    figure, axes = figure_of(3.9)
    labels, predictions = task.usable(label, challenger)
    if not len(labels):
        return message(figure, axes, "No usable predictions")
    low, high = _span(np.concatenate([labels, predictions]))
    axes.hexbin(
        predictions, labels, gridsize=_BINS, extent=(low, high, low, high), bins="log", cmap="Blues", mincnt=1, vmin=0.3
    )
    axes.plot([low, high], [low, high], color=DIAGONAL, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="prediction", ylabel="label")
    return png(figure)


def residuals(task: Regression, label: pd.Series, challenger: Prediction, champion: Prediction | None) -> bytes:
    """How prediction minus label is spread: the challenger's as an area, the champion's as a line."""
    figure, axes = figure_of(3.7)
    errors = {"challenger": _errors(task, label, challenger)}
    if champion is not None:
        errors["champion"] = _errors(task, label, champion)
    if not len(errors["challenger"]):
        return message(figure, axes, "No usable predictions")
    low, high = _span(np.concatenate(list(errors.values())))
    _spread(axes, errors, np.linspace(low, high, _BINS + 1))
    axes.axvline(0, color=QUIET, linewidth=1)
    axes.set_xlabel("prediction − label")
    legend_above(figure)
    return png(figure)


def coverage(task: Quantile, label: pd.Series, challenger: Prediction, champion: Prediction | None) -> bytes:
    """Share of labels up to each predicted quantile, against its level, with 95 % intervals of the challenger's."""
    figure, axes = figure_of(3.7)
    axes.plot([0, 1], [0, 1], color=DIAGONAL, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    levels = np.asarray(task.quantiles)
    drawn = False
    for name, colour, predictions in (("champion", CHAMPION, champion), ("challenger", CHALLENGER, challenger)):
        labels, found = task.usable(label, np.empty((len(label), 0)) if predictions is None else predictions)
        if predictions is None or not len(labels):
            continue
        shares = coverage_by_level(labels, found, task.quantiles)[1]
        if name == "challenger":
            low, high = wilson_interval(shares, np.full(len(shares), float(len(labels))))
            axes.vlines(levels, low, high, color=colour, alpha=0.4, linewidth=2)
        axes.plot(levels, shares, "o-", color=colour, linewidth=1.4, markersize=5, label=name)
        drawn = True
    if not drawn:
        return message(figure, axes, "No usable predictions")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="level of the quantile", ylabel="labels up to it")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend(axes, "upper left")
    return png(figure)


def widths(task: Quantile, label: pd.Series, challenger: Prediction, champion: Prediction | None) -> bytes:
    """How wide the interval between the outer quantiles is: the challenger's as an area, the champion's as a line."""
    figure, axes = figure_of(3.7)
    sides = {"challenger": challenger} | ({} if champion is None else {"champion": champion})
    found = {side: np.ptp(task.usable(label, predictions)[1], axis=1) for side, predictions in sides.items()}
    if len(task.quantiles) < 2 or not len(found["challenger"]):
        return message(figure, axes, "No interval to show")
    _, high = _span(np.concatenate(list(found.values())))
    _spread(axes, found, np.linspace(0, high, _BINS + 1))
    axes.set_xlabel(f"width from the {task.quantiles[0]:g} to the {task.quantiles[-1]:g} quantile")
    legend_above(figure)
    return png(figure)


def _errors(task: Regression, label: pd.Series, predictions: Prediction) -> Floats:
    labels, found = task.usable(label, predictions)
    return found - labels


def _spread(axes: Axes, found: Mapping[str, Floats], edges: Floats) -> None:
    """The challenger's values as an area, the champion's as a line, each with its mean."""
    for side, each in found.items():
        if len(each):
            shares, name = np.histogram(each, edges)[0] / len(each), f"{side}, mean {each.mean():.3g}"
            if side == "challenger":
                axes.stairs(shares, edges, fill=True, color=CHALLENGER, alpha=0.5, label=name)
            else:
                axes.stairs(shares, edges, color=CHAMPION, linewidth=1.6, label=name)
    axes.set(xlim=(edges[0], edges[-1]), ylabel="share of rows")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _span(found: Floats) -> tuple[float, float]:
    """Ends of a chart that shows all but the outermost values, with some room."""
    low, high = np.quantile(found, [_BEYOND, 1 - _BEYOND])
    room = 0.03 * (high - low) or max(1.0, abs(low)) * 0.5
    return float(low - room), float(high + room)
