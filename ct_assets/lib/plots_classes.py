"""The plots of an evaluation of several classes, as PNG bytes. Rows that cannot be used are left out of each."""

import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from ct_assets.core.metrics_classes import by_class, confusion, top_label
from ct_assets.core.tasks import Multiclass
from ct_assets.lib.canvas import (
    CHALLENGER,
    CHAMPION,
    DIAGONAL,
    INK,
    NEGATIVE,
    POSITIVE,
    figure_of,
    height_for,
    legend,
    legend_above,
    message,
    name_columns,
    name_rows,
    png,
)
from ct_assets.lib.plots import Prediction, reliability

SHOWN_CLASSES = 16
#: Cells of a larger matrix would be too small to read a share in.
_WRITTEN_CLASSES = 10


def calibration(task: Multiclass, label: pd.Series, challenger: Prediction, champion: Prediction | None) -> bytes:
    """How often the most likely class is right, against its probability, with 95 % intervals of the challenger's."""
    figure, axes = figure_of(3.7)
    axes.plot([0, 1], [0, 1], color=DIAGONAL, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    drawn = False
    for name, colour, predictions in (("champion", CHAMPION, champion), ("challenger", CHALLENGER, challenger)):
        if predictions is not None:
            pairs = top_label(*task.usable(label, predictions))
            drawn = reliability(axes, pairs, name, colour, intervals=name == "challenger") or drawn
    if not drawn:
        return message(figure, axes, "No usable predictions to calibrate")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="mean probability of the most likely class")
    axes.set_ylabel("share of rows of that class")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend(axes, "upper left")
    return png(figure)


def confusions(task: Multiclass, label: pd.Series, challenger: Prediction) -> bytes:
    """For the rows of each label, the share that the challenger gives each class; the largest classes only."""
    labels, predictions = task.usable(label, challenger)
    shown = _largest(task, labels)
    figure, axes = figure_of(max(2.4, 1.2 + 0.3 * len(shown)))
    if not len(labels):
        return message(figure, axes, "No usable predictions")
    table = confusion(labels, predictions)
    shares = (table / np.maximum(table.sum(axis=1, keepdims=True), 1))[np.ix_(shown, shown)]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    names = [task.classes[place] for place in shown]
    name_rows(axes, names)
    name_columns(axes, names)
    axes.set(xlabel="most likely class", ylabel="label")
    axes.grid(visible=False)
    if len(shown) <= _WRITTEN_CLASSES:
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 0.6 else INK
            axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=colour, fontsize=8.5)
    return png(figure)


def classes(task: Multiclass, label: pd.Series, challenger: Prediction, champion: Prediction | None) -> bytes:
    """Precision, recall and F1 of each class; the champion's F1 as a line. The largest classes only, largest first."""
    labels, predictions = task.usable(label, challenger)
    shown = _largest(task, labels)
    figure, axes = figure_of(height_for(len(shown)) + 0.4)
    if not len(labels):
        return message(figure, axes, "No usable predictions")
    table = by_class(labels, predictions).iloc[shown]
    places = np.arange(len(shown))
    axes.plot(table["precision"], places, "^", color=NEGATIVE, markersize=6, label="precision", zorder=3)
    axes.plot(table["recall"], places, "v", color=POSITIVE, markersize=6, label="recall", zorder=3)
    axes.plot(table["f1"], places, "o", color=CHALLENGER, markersize=7, label="F1", zorder=4)
    if champion is not None:
        theirs = by_class(*task.usable(label, champion)).iloc[shown]
        axes.vlines(theirs["f1"], places - 0.3, places + 0.3, color=CHAMPION, linewidth=2.4, label="champion's F1")
    name_rows(axes, [f"{task.classes[p]} ({table['rows'].iloc[i]:,} rows)" for i, p in enumerate(shown)])
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend_above(figure)
    return png(figure)


def _largest(task: Multiclass, labels: np.ndarray) -> list[int]:
    """Places of the classes to show: the most frequent ones, in the task's order where all fit."""
    rows = np.bincount(labels.astype(np.intp), minlength=len(task.classes))
    if len(rows) <= SHOWN_CLASSES:
        return list(range(len(rows)))
    return np.argsort(-rows, kind="stable")[:SHOWN_CLASSES].tolist()
