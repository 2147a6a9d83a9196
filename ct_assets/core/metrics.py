"""Quality metrics of a binary classifier's predictions, and which direction of each metric is better.

Those of other tasks are in `metrics_classes` and `metrics_values`; `ct_assets.core.tasks` says which task has which.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]

#: For each metric of any task: is higher better? `prevalence` and `rows` describe the data, `bias` and `coverage` are
#: best at a value of their own: they have no direction.
HIGHER_IS_BETTER: Mapping[str, bool] = MappingProxyType(
    {
        **dict.fromkeys(("auc", "f1", "average_precision", "mcc"), True),
        **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "auc_ovr", "r2"), True),
        **dict.fromkeys(("logloss", "brier", "ece"), False),
        **dict.fromkeys(("mae", "rmse", "wape", "relative_bias"), False),
        **dict.fromkeys(("pinball", "coverage_error", "interval_width"), False),
    }
)

#: Losses in the unit of the labels, or whose size follows their rarity: a tolerance of one is a share of it.
RELATIVE_TOLERANCE = frozenset(("mae", "rmse", "pinball", "interval_width", "logloss", "brier"))

ECE_BINS = 15


def auc(y: Any, p: Any) -> float:
    """Area under the ROC curve by the rank formula of Mann and Whitney (1947); ties count half. NaN with one class."""
    labels, scores = _checked(y, p)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    order = np.argsort(scores)
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    sizes = np.diff(np.append(starts, len(ordered)))
    mean_rank = starts + (sizes + 1) / 2
    positives_per_tie = np.add.reduceat(labels[order], starts)
    rank_sum = float(np.dot(mean_rank, positives_per_tie))
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def logloss(y: Any, p: Any) -> float:
    """Mean negative log likelihood, natural log; probabilities are clipped to [eps, 1 - eps] of float64."""
    labels, scores = _checked(y, p)
    if not len(labels):
        return float("nan")
    eps = float(np.finfo(np.float64).eps)
    clipped = np.clip(scores, eps, 1 - eps)
    return float(-np.mean(np.where(labels == 1, np.log(clipped), np.log1p(-clipped))))


def brier(y: Any, p: Any) -> float:
    """Mean squared difference of probability and label (Brier 1950)."""
    labels, scores = _checked(y, p)
    return float(np.mean((scores - labels) ** 2)) if len(labels) else float("nan")


def f1(y: Any, p: Any, threshold: float = 0.5) -> float:
    """Harmonic mean of precision and recall of class 1, predicted where p >= threshold; NaN if neither has a 1."""
    labels, scores = _checked(y, p)
    predicted = scores >= threshold
    denominator = float(labels.sum() + predicted.sum())
    return float(2 * labels[predicted].sum() / denominator) if denominator else float("nan")


def average_precision(y: Any, p: Any) -> float:
    """Mean precision over the positives, each at the threshold that reaches it; ties are reached together.

    Unlike `auc` it falls with the share of positives, so it tells models apart where positives are rare (Davis and
    Goadrich 2006); a model without skill reaches about that share. NaN without a positive.
    """
    labels, scores = _checked(y, p)
    if not labels.sum():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    found = np.cumsum(labels[order])[ends]
    return float(np.sum(np.diff(found, prepend=0.0) * found / (ends + 1)) / found[-1])


def mcc(y: Any, p: Any, threshold: float = 0.5) -> float:
    """Correlation of label and predicted class (Matthews 1975), 1 where p >= threshold; 0 if either is constant."""
    labels, scores = _checked(y, p)
    if not len(labels):
        return float("nan")
    predicted = (scores >= threshold).astype(np.float64)
    spread = float(labels.std() * predicted.std())
    return float(np.mean((labels - labels.mean()) * (predicted - predicted.mean())) / spread) if spread else 0.0


def expected_calibration_error(y: Any, p: Any, bins: int = ECE_BINS) -> float:
    """Row-weighted mean |observed rate - mean prediction| over equal-width bins.

    The estimator of Naeini, Cooper and Hauskrecht (2015) in the form of Guo et al. (2017), 15 bins. It is biased
    upwards on small samples: even a perfectly calibrated model shows about sqrt(bins / rows) / 3.
    """
    curve = reliability_curve(y, p, bins)
    if curve.empty:
        return float("nan")
    gaps = (curve["observed_rate"] - curve["mean_predicted"]).abs()
    return float((gaps * curve["rows"]).sum() / curve["rows"].sum())


def reliability_curve(y: Any, p: Any, bins: int = ECE_BINS) -> pd.DataFrame:
    """Observed rate against mean prediction in equal-width bins (k/bins, (k+1)/bins]; the first one includes 0.

    Returns one row per non-empty bin, ascending: low, high, rows, mean_predicted, observed_rate.
    """
    labels, scores = _checked(y, p)
    if bins < 1:
        raise ValueError(f"bins is {bins}, expected at least 1")
    index = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], scores, side="left")
    rows = np.bincount(index, minlength=bins)
    kept = np.flatnonzero(rows)
    return pd.DataFrame(
        {
            "low": kept / bins,
            "high": (kept + 1) / bins,
            "rows": rows[kept],
            "mean_predicted": np.bincount(index, weights=scores, minlength=bins)[kept] / rows[kept],
            "observed_rate": np.bincount(index, weights=labels, minlength=bins)[kept] / rows[kept],
        }
    )


def higher_is_better(metric: str) -> bool:
    """Whether more of `metric` is better. Raises ValueError for a metric without a direction."""
    if metric not in HIGHER_IS_BETTER:
        raise ValueError(f"metric {metric!r} has no direction; choose one of {', '.join(sorted(HIGHER_IS_BETTER))}")
    return HIGHER_IS_BETTER[metric]


def advantage(metric: str, value: float, other: float) -> float:
    """By how much `value` is better than `other`: positive is better whatever the metric's direction."""
    return value - other if higher_is_better(metric) else other - value


def allowed_loss(metric: str, tolerance: float, value: float) -> float:
    """By how much a metric may be worse than `value` within a tolerance, in the unit of the metric.

    Of a loss whose size depends on the labels the tolerance is a share of `value`; of a metric on a scale of its own,
    such as auc, it is absolute.
    """
    return tolerance * abs(value) if metric in RELATIVE_TOLERANCE else tolerance


def _checked(y: Any, p: Any) -> tuple[Floats, Floats]:
    labels = np.asarray(y, dtype=np.float64)
    scores = np.asarray(p, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(
            f"labels have shape {labels.shape} and probabilities {scores.shape}; expected one equal length"
        )
    if not np.all((labels == 0) | (labels == 1)):
        raise ValueError("labels hold a value other than 0 and 1; drop rows whose label is not yet known")
    if not np.all((scores >= 0) & (scores <= 1)):
        raise ValueError("probabilities hold NaN or a value outside [0, 1]; pass the probability of class 1")
    return labels, scores
