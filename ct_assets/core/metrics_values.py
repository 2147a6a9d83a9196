"""Quality metrics of predicted numbers: of one value a row, and of several of its quantiles.

Labels `y` have shape (n,), predictions of a value `p` the same; predictions of quantiles have one column a level, in
ascending order, shape (n, k). Without rows every metric is NaN.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def mae(y: Any, p: Any) -> float:
    """Mean absolute error."""
    return _mean(np.abs(_errors(y, p)))


def rmse(y: Any, p: Any) -> float:
    """Square root of the mean squared error."""
    return float(np.sqrt(_mean(_errors(y, p) ** 2)))


def r2(y: Any, p: Any) -> float:
    """Share of the labels' variance that the predictions explain; NaN where the labels do not vary."""
    errors, labels = _errors(y, p), np.asarray(y, dtype=np.float64)
    total = float(np.sum((labels - labels.mean()) ** 2)) if len(labels) else 0.0
    return 1 - float(np.sum(errors**2)) / total if total else float("nan")


def wape(y: Any, p: Any) -> float:
    """Sum of absolute errors over the sum of absolute labels: like MAPE, but labels near 0 do not blow it up."""
    return _ratio(np.abs(_errors(y, p)).sum(), y)


def bias(y: Any, p: Any) -> float:
    """Mean of prediction minus label: above 0, the model predicts too much."""
    return _mean(_errors(y, p))


def relative_bias(y: Any, p: Any) -> float:
    """Absolute value of the bias over the mean absolute label: a regression is calibrated where this is 0."""
    return _ratio(abs(_errors(y, p).sum()), y)


def pinball(y: Any, p: Any, levels: Sequence[float]) -> float:
    """Mean over rows and levels of the pinball loss, whose minimum is the quantile (Koenker and Bassett 1978)."""
    labels, predicted = _checked(y, p, levels)
    under = labels[:, None] - predicted
    weights = np.asarray(levels)
    return _mean(np.maximum(weights * under, (weights - 1) * under))


def coverage(y: Any, p: Any, levels: Sequence[float]) -> float:
    """Share of labels within the outer interval, from the lowest level to the highest, ends included."""
    labels, predicted = _checked(y, p, levels)
    if len(levels) < 2:
        return float("nan")
    return _mean((predicted[:, 0] <= labels) & (labels <= predicted[:, -1]))


def coverage_by_level(y: Any, p: Any, levels: Sequence[float]) -> tuple[Floats, Floats]:
    """For each level, the share of labels below its prediction, and of those below or equal to it."""
    labels, predicted = _checked(y, p, levels)
    if not len(labels):
        return np.full(len(levels), np.nan), np.full(len(levels), np.nan)
    return (labels[:, None] < predicted).mean(axis=0), (labels[:, None] <= predicted).mean(axis=0)


def coverage_error(y: Any, p: Any, levels: Sequence[float]) -> float:
    """Mean over the levels of how far the share of labels up to its prediction is from the level.

    Where labels equal predictions, as many zeros do, the shares below and up to the prediction enclose the level of an
    exact quantile: then there is no error. Without ties it is the mean of |share - level|.
    """
    below, up_to = coverage_by_level(y, p, levels)
    wanted = np.asarray(levels)
    return _mean(np.maximum(0.0, np.maximum(below - wanted, wanted - up_to)))


def interval_width(y: Any, p: Any, levels: Sequence[float]) -> float:
    """Mean distance of the highest level's prediction from the lowest one's, in the unit of the label."""
    _, predicted = _checked(y, p, levels)
    return _mean(predicted[:, -1] - predicted[:, 0]) if len(levels) > 1 else float("nan")


def central_mae(y: Any, p: Any, levels: Sequence[float]) -> float:
    """Mean absolute error of the prediction whose level is nearest to the median."""
    _, predicted = _checked(y, p, levels)
    return mae(y, predicted[:, central(levels)])


def central(levels: Sequence[float]) -> int:
    """Place of the level nearest to the median; the lower one of two."""
    return int(np.argmin(np.round(np.abs(np.asarray(levels) - 0.5), 12)))


def _mean(values: npt.NDArray[Any]) -> float:
    return float(np.mean(values)) if values.size else float("nan")


def _ratio(total: float, y: Any) -> float:
    size = float(np.abs(np.asarray(y, dtype=np.float64)).sum())
    return float(total) / size if size else float("nan")


def _errors(y: Any, p: Any) -> Floats:
    labels, predicted = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != predicted.shape:
        raise ValueError(
            f"labels have shape {labels.shape} and predictions {predicted.shape}; expected one equal length"
        )
    errors: Floats = predicted - labels
    if not np.all(np.isfinite(errors)):
        raise ValueError("labels or predictions hold NaN or infinity; drop rows whose label is not yet known")
    return errors


def _checked(y: Any, p: Any, levels: Sequence[float]) -> tuple[Floats, Floats]:
    labels, predicted = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    if labels.ndim != 1 or predicted.shape != (len(labels), len(levels)):
        raise ValueError(
            f"labels have shape {labels.shape} and predictions {predicted.shape}; expected (n,) and "
            f"(n, {len(levels)}), one column a level"
        )
    if not (np.all(np.isfinite(labels)) and np.all(np.isfinite(predicted))):
        raise ValueError("labels or predictions hold NaN or infinity; drop rows whose label is not yet known")
    return labels, predicted
