"""Tasks whose labels are classes, and whose predictions are probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from ct_assets.core import metrics, metrics_classes
from ct_assets.core.tasks.base import PREDICTION, Floats, Metric, PredictionError, Task

#: Probabilities of a row may miss a sum of 1 by this much, which single precision does.
_SUM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Binary(Task):
    """Did it happen? Labels are 0 and 1, a prediction is the probability of 1."""

    name: ClassVar[str] = "binary"
    method: ClassVar[str] = "predict_proba"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {
            "auc": metrics.auc,
            "logloss": metrics.logloss,
            "brier": metrics.brier,
            "f1": metrics.f1,
            "ece": metrics.expected_calibration_error,
            "average_precision": metrics.average_precision,
            "mcc": metrics.mcc,
        }
    )
    shown: ClassVar[tuple[str, ...]] = ("auc", "logloss", "brier", "f1", "ece")
    gate_metric: ClassVar[str] = "auc"
    calibration: ClassVar[tuple[str, str]] = ("ece", "expected calibration error")

    def targets(self, label: pd.Series) -> npt.NDArray[Any]:
        """Labels as they are."""
        return label.to_numpy()

    def encode(self, label: pd.Series) -> tuple[Floats | None, str | None]:
        """Labels as 0.0/1.0; with one class only they are still returned."""
        try:
            values = label.to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError):
            return None, "not numbers, expected 0 and 1"
        unknown = int(np.isnan(values).sum())
        if unknown:
            return None, f"{unknown} of {len(values)} are missing"
        strange = int((~np.isin(values, (0.0, 1.0))).sum())
        if strange:
            return None, f"{strange} of {len(values)} are neither 0 nor 1"
        return values, _too_few_classes(values)

    def codes(self, label: pd.Series) -> Floats:
        """Labels as 0.0/1.0."""
        values = pd.to_numeric(label, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where((values == 0) | (values == 1), values, np.nan)

    def problem(self, predictions: Floats) -> str | None:
        """NaN, or outside of [0, 1]."""
        return _no_probabilities(predictions)

    def in_range(self, predictions: Floats) -> npt.NDArray[np.bool_]:
        """Which are probabilities."""
        return (predictions >= 0) & (predictions <= 1)

    def describe(self, labels: Floats) -> dict[str, float]:
        """Share of positives, and rows."""
        rows = float(len(labels))
        return {"prevalence": float(labels.mean()) if rows else float("nan"), "rows": rows}

    def told(self, labels: Floats) -> str:
        """Share of positives."""
        return f"{labels.mean():.1%} with label 1"

    def alone(self, feature: pd.Series, labels: Floats) -> float:
        """AUC of the feature as it is or reversed."""
        return _best_order(metrics.auc(labels, _ranks(feature)))

    def prior(self, labels: Floats, metric: str) -> Floats:  # noqa: ARG002  the same for each
        """Share of positives."""
        return np.asarray(labels.mean())

    def _arranged(self, raw: Floats, model: Any, rows: int) -> Floats:  # noqa: ARG002  the column is always the second
        if raw.ndim == 2 and raw.shape[1] == 2:
            raw = raw[:, 1]
        if raw.shape != (rows,):
            raise self._shape_error(raw, rows, "(n,) or (n, 2)")
        return raw

    def _stored(self, label: pd.Series) -> pd.Series:
        return label.astype("int8")


@dataclass(frozen=True)
class Multiclass(Task):
    """Which of several? Labels are names of classes, a prediction has the probability of each.

    Args:
        classes: Their names, in the order of the probabilities; at least 2.
    """

    classes: tuple[str, ...]

    name: ClassVar[str] = "multiclass"
    method: ClassVar[str] = "predict_proba"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {
            "logloss": metrics_classes.logloss,
            "accuracy": metrics_classes.accuracy,
            "balanced_accuracy": metrics_classes.balanced_accuracy,
            "macro_f1": metrics_classes.macro_f1,
            "auc_ovr": metrics_classes.auc_ovr,
            "brier": metrics_classes.brier,
            "ece": metrics_classes.ece,
        }
    )
    shown: ClassVar[tuple[str, ...]] = (
        "logloss",
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "auc_ovr",
        "brier",
        "ece",
    )
    gate_metric: ClassVar[str] = "logloss"
    calibration: ClassVar[tuple[str, str]] = ("ece", "expected calibration error of the most likely class")
    needs: ClassVar[str] = "two classes"

    @property
    def columns(self) -> list[str]:
        """The most likely class, and a probability a class."""
        return [PREDICTION, *self.probability_columns]

    @property
    def probability_columns(self) -> list[str]:
        """One a class, in their order."""
        return [f"{PREDICTION}_{name}" for name in self.classes]

    @property
    def text_columns(self) -> list[str]:
        """The most likely class."""
        return [PREDICTION]

    @property
    def width(self) -> int | None:
        """One number a class."""
        return len(self.classes)

    def targets(self, label: pd.Series) -> npt.NDArray[Any]:
        """Names of classes, as a NumPy text array, which can be stored."""
        return label.to_numpy().astype(str)

    def watched_label(self, label: pd.Series) -> pd.Series:
        """Names of classes."""
        return self._stored(label)

    def encode(self, label: pd.Series) -> tuple[Floats | None, str | None]:
        """Places of the labels in the order of classes; with one class only they are still returned."""
        missing, values = int(label.isna().sum()), self.codes(label)
        if missing:
            return None, f"{missing} of {len(label)} are missing"
        strange = np.isnan(values)
        if strange.any():
            named = ", ".join(sorted({repr(str(name)) for name in label[strange].unique()})[:3])
            return None, (
                f"{int(strange.sum())} of {len(label)} are none of the classes {', '.join(self.classes)} "
                f"(but {named:.120})"
            )
        return values, _too_few_classes(values)

    def codes(self, label: pd.Series) -> Floats:
        """Places of the labels in the order of classes."""
        places = pd.Index(self.classes).get_indexer(pd.Index(_texts(label)))
        return np.where(places >= 0, places, np.nan).astype(np.float64)

    def problem(self, predictions: Floats) -> str | None:
        """NaN, outside of [0, 1], or not adding up to 1."""
        off = int((~self.in_range(predictions)).sum())
        return _no_probabilities(predictions) or (
            f"the probabilities of {off} of {len(predictions)} rows do not sum to 1" if off else None
        )

    def in_range(self, predictions: Floats) -> npt.NDArray[np.bool_]:
        """Which rows are a distribution over the classes."""
        each = (predictions >= 0) & (predictions <= 1)
        whole: npt.NDArray[np.bool_] = np.abs(predictions.sum(axis=1) - 1) <= _SUM_TOLERANCE
        return each.all(axis=1) & whole

    def frame(self, predictions: Floats) -> pd.DataFrame:
        """The most likely class, the first of several, and the probability of each."""
        names = self.likeliest(predictions)
        return pd.DataFrame({PREDICTION: names, **dict(zip(self.probability_columns, predictions.T, strict=True))})

    def likeliest(self, predictions: Floats) -> npt.NDArray[np.object_]:
        """Name of the most likely class by row; None where there is no prediction."""
        names = np.array([*self.classes, None], dtype=object)
        known = np.isfinite(predictions).all(axis=1)
        return names[np.where(known, np.nan_to_num(predictions).argmax(axis=1), len(self.classes))]

    def array(self, frame: pd.DataFrame) -> Floats:
        """The probabilities."""
        return frame[self.probability_columns].to_numpy(dtype=np.float64)

    def told(self, labels: Floats) -> str:
        """Share of each class."""
        shares = self._shares(labels)
        return ", ".join(f"{share:.1%} {name}" for name, share in zip(self.classes, shares, strict=True))

    def alone(self, feature: pd.Series, labels: Floats) -> float:
        """Best AUC of one class against the rest, of the feature as it is or reversed."""
        ranks = _ranks(feature)
        return max(_best_order(metrics.auc(labels == place, ranks)) for place in range(len(self.classes)))

    def prior(self, labels: Floats, metric: str) -> Floats:  # noqa: ARG002  the same for each
        """Share of each class."""
        return self._shares(labels)

    def _shares(self, labels: Floats) -> Floats:
        return (np.bincount(labels.astype(np.intp), minlength=len(self.classes)) / len(labels)).astype(np.float64)

    def _arranged(self, raw: Floats, model: Any, rows: int) -> Floats:
        """Columns in the spec's order; a class that the training examples lacked has probability 0."""
        names = [str(name) for name in getattr(model, "classes_", self.classes)]
        if raw.shape != (rows, len(names)):
            raise self._shape_error(raw, rows, f"(n, {len(names)}), one column a class")
        if strange := [name for name in names if name not in self.classes]:
            raise PredictionError(
                f"the model knows the class {strange[0]!r}, which is none of {', '.join(self.classes)}; expected a "
                "model of these classes: a model of others needs a name of its own"
            )
        result = np.zeros((rows, len(self.classes)))
        result[:, [self.classes.index(name) for name in names]] = raw
        return result

    def _stored(self, label: pd.Series) -> pd.Series:
        return pd.Series(_texts(label), index=label.index, dtype=object, name=label.name)


def _texts(label: pd.Series) -> npt.NDArray[np.object_]:
    texts = np.array([str(value) for value in label], dtype=object)
    texts[label.isna().to_numpy()] = None
    return texts


def _too_few_classes(values: Floats) -> str | None:
    if len(np.unique(values)) >= 2:
        return None
    return "only one class present" if len(values) else "no rows"


def _no_probabilities(predictions: Floats) -> str | None:
    """The first thing that is wrong with some rows; None when all their numbers lie in [0, 1]."""
    rows = predictions.reshape(len(predictions), -1) if len(predictions) else predictions.reshape(0, 1)
    broken = int(np.isnan(rows).any(axis=1).sum())
    if broken:
        return f"{broken} of {len(rows)} predictions are NaN"
    outside = int(((rows < 0) | (rows > 1)).any(axis=1).sum())
    return f"{outside} of {len(rows)} predictions are outside [0, 1]" if outside else None


def _ranks(feature: pd.Series) -> Floats:
    return np.asarray(feature.rank(pct=True), dtype=np.float64)


def _best_order(area: float) -> float:
    return max(area, 1 - area) if np.isfinite(area) else 0.5
