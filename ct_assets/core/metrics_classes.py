"""Quality metrics of a classifier of several classes.

Labels `y` are places in the task's order of classes, shape (n,); probabilities `p` have one column a class, shape
(n, k). Without rows every metric is NaN.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ct_assets.core.metrics import auc, expected_calibration_error

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]


def logloss(y: Any, p: Any) -> float:
    """Mean negative log likelihood, natural log; probabilities are clipped to [eps, 1 - eps] of float64."""
    labels, scores = _checked(y, p)
    if not len(labels):
        return float("nan")
    eps = float(np.finfo(np.float64).eps)
    return float(-np.mean(np.log(np.clip(_of_label(labels, scores), eps, 1 - eps))))


def brier(y: Any, p: Any) -> float:
    """Mean squared distance of the probabilities from the label, over all classes: from 0 to 2 (Brier 1950)."""
    labels, scores = _checked(y, p)
    if not len(labels):
        return float("nan")
    return float(np.mean((scores**2).sum(axis=1) - 2 * _of_label(labels, scores) + 1))


def accuracy(y: Any, p: Any) -> float:
    """Share of rows whose most likely class is the label."""
    labels, scores = _checked(y, p)
    return float(np.mean(scores.argmax(axis=1) == labels)) if len(labels) else float("nan")


def balanced_accuracy(y: Any, p: Any) -> float:
    """Mean recall of the classes that occur among the labels: each counts the same, however rare."""
    table = by_class(y, p)
    return float(table.loc[table["rows"] > 0, "recall"].mean())


def macro_f1(y: Any, p: Any) -> float:
    """Mean F1 of the classes that occur among labels or predictions."""
    return float(by_class(y, p)["f1"].mean())


def auc_ovr(y: Any, p: Any) -> float:
    """Mean over the classes of the AUC of one class against the rest; classes without both sides are left out."""
    labels, scores = _checked(y, p)
    areas = np.array([auc(labels == place, scores[:, place]) for place in range(scores.shape[1])])
    known = areas[np.isfinite(areas)]
    return float(known.mean()) if len(known) else float("nan")


def ece(y: Any, p: Any) -> float:
    """Expected calibration error of the most likely class: is it right as often as it says? (Guo et al. 2017)."""
    return expected_calibration_error(*top_label(y, p))


def top_label(y: Any, p: Any) -> tuple[Floats, Floats]:
    """Whether the most likely class is the label, 0 or 1, and its probability."""
    labels, scores = _checked(y, p)
    # A sum that rounding has carried past 1 is a certainty.
    return (scores.argmax(axis=1) == labels).astype(np.float64), np.minimum(scores.max(axis=1, initial=0.0), 1.0)


def confusion(y: Any, p: Any) -> npt.NDArray[np.int64]:
    """Rows by label (first axis) and most likely class (second), shape (k, k)."""
    labels, scores = _checked(y, p)
    classes = scores.shape[1]
    pairs = labels * classes + scores.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def by_class(y: Any, p: Any) -> pd.DataFrame:
    """Rows (by label), precision, recall and F1 of each class, one row a class in their order.

    A class that is never predicted has precision 0, one without labels recall 0; F1 is NaN where it is neither.
    """
    table = confusion(y, p)
    hits, labelled, predicted = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    with np.errstate(invalid="ignore"):
        f1 = 2 * hits / (labelled + predicted)
    return pd.DataFrame(
        {
            "rows": labelled,
            "precision": hits / np.maximum(predicted, 1),
            "recall": hits / np.maximum(labelled, 1),
            "f1": f1,
        }
    )


def _of_label(labels: Codes, scores: Floats) -> Floats:
    return scores[np.arange(len(labels)), labels]


def _checked(y: Any, p: Any) -> tuple[Codes, Floats]:
    labels, scores = np.asarray(y), np.asarray(p, dtype=np.float64)
    if labels.ndim != 1 or scores.ndim != 2 or len(labels) != len(scores):
        raise ValueError(f"labels have shape {labels.shape} and probabilities {scores.shape}; expected (n,) and (n, k)")
    codes = labels.astype(np.intp)
    if np.any(codes != labels) or np.any((codes < 0) | (codes >= scores.shape[1])):
        raise ValueError(f"labels hold a value that is no place among the {scores.shape[1]} classes")
    if not np.all((scores >= 0) & (scores <= 1 + 1e-6)):
        raise ValueError("probabilities hold NaN or a value outside [0, 1]; pass one column a class")
    return codes, scores
