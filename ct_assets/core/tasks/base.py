"""What every kind of task answers about itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

PREDICTION = "prediction"
LABEL = "label"

Floats = npt.NDArray[np.float64]
Metric = Callable[..., float]


class PredictionError(ValueError):
    """A model's answer that has not the shape its task asks for."""


@dataclass(frozen=True)
class Task(ABC):
    """One kind of task.

    Attributes:
        name: As in `ModelSpec.task`.
        method: What an estimator is asked by.
        metrics: Every metric it has, by name; those with a direction can be gated on.
        shown: Those that are shown unless the spec says otherwise; every verdict has them.
        gate_metric: The one that gate and policy look at unless they say otherwise.
        calibration: The metric that tells whether predictions mean what they say, and its name in words.
        leak_scale: What `alone` measures, in words.
        fewest_values: Distinct labels that an estimator needs to be fitted on.
        needs: What labels have to hold for models to be told apart, in words; empty if nothing.
    """

    name: ClassVar[str]
    method: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    shown: ClassVar[tuple[str, ...]]
    gate_metric: ClassVar[str]
    calibration: ClassVar[tuple[str, str]]
    leak_scale: ClassVar[str] = "an auc"
    fewest_values: ClassVar[int] = 2
    needs: ClassVar[str] = "both classes"

    @property
    def columns(self) -> list[str]:
        """The prediction's columns as stored: `prediction` first."""
        return [PREDICTION]

    @property
    def text_columns(self) -> list[str]:
        """Those of them that hold text."""
        return []

    @property
    def watched(self) -> list[str]:
        """Those of them whose drift is watched."""
        return self.columns

    @property
    def width(self) -> int | None:
        """Numbers a row: None for one, in shape (n,)."""
        return None

    def prepare(self, estimator: Any) -> Any:
        """The unfitted estimator, made to predict what the task asks for."""
        return estimator

    @abstractmethod
    def targets(self, label: pd.Series) -> npt.NDArray[Any]:
        """Labels as an estimator is fitted on them, shape (n,)."""

    @abstractmethod
    def encode(self, label: pd.Series) -> tuple[Floats | None, str | None]:
        """Labels as numbers, shape (n,), or None; and what is wrong with them, or None.

        Labels that are usable but do not tell models apart come with both.
        """

    @abstractmethod
    def codes(self, label: pd.Series) -> Floats:
        """Labels as numbers, shape (n,), NaN where one is missing or none that the task knows."""

    def stored(self, label: pd.Series) -> pd.Series:
        """Labels in the type they are stored in.

        Raises:
            ValueError: One is none that the task knows.
        """
        values, problem = self.encode(label)
        if values is None and len(label):
            raise ValueError(
                f"labels of a {self.name} task: {problem}; mend the label's SQL, or "
                "start a model of another task or other classes under a name of its own"
            )
        return self._stored(label)

    def watched_label(self, label: pd.Series) -> pd.Series:
        """Stored labels, as their drift is watched: numbers, or names of classes."""
        return label.astype("float64")

    def predict(self, model: Any, inputs: pd.DataFrame) -> Floats:
        """Ask a fitted model.

        Returns:
            Its predictions, not yet checked to be in range.

        Raises:
            PredictionError: They have another shape than the task's.
        """
        if not len(inputs):
            return self.unknown(0)
        return self._arranged(np.asarray(getattr(model, self.method)(inputs), dtype=np.float64), model, len(inputs))

    def unknown(self, rows: int) -> Floats:
        """Predictions of a model that is not there: NaN."""
        return np.full(rows if self.width is None else (rows, self.width), np.nan)

    def problem(self, predictions: Floats) -> str | None:
        """What is wrong with predictions, in words; None when they are usable."""
        broken = int((~self.in_range(predictions)).sum())
        return f"{broken} of {len(predictions)} predictions are NaN or infinite" if broken else None

    def in_range(self, predictions: Floats) -> npt.NDArray[np.bool_]:
        """Which rows can be used, shape (n,)."""
        finite: npt.NDArray[np.bool_] = np.isfinite(predictions)
        return finite if self.width is None else np.all(finite, axis=1)

    def usable(self, label: pd.Series, predictions: Any) -> tuple[Floats, Floats]:
        """Labels as numbers and predictions, of the rows where both can be used; the index is ignored."""
        labels, values = self.codes(label), np.asarray(predictions, dtype=np.float64)
        kept = np.isfinite(labels) & self.in_range(values)
        return labels[kept], values[kept]

    def frame(self, predictions: Floats) -> pd.DataFrame:
        """Predictions as stored, with `columns`; NaN gives missing values."""
        return pd.DataFrame({PREDICTION: predictions})

    def array(self, frame: pd.DataFrame) -> Floats:
        """Predictions from a frame that has `columns`."""
        return frame[PREDICTION].to_numpy(dtype=np.float64)

    def measure(self, metric: str, labels: Floats, predictions: Floats) -> float:
        """One metric of checked labels and predictions; NaN where the data leave it undefined."""
        return self.metrics[metric](labels, predictions)

    def figures(self, labels: Floats, predictions: Floats, wanted: Sequence[str] = ()) -> dict[str, float]:
        """The metrics that are always shown, those `wanted`, and what describes the labels."""
        names = dict.fromkeys((*self.shown, *wanted))
        return {name: self.measure(name, labels, predictions) for name in names} | self.describe(labels)

    def describe(self, labels: Floats) -> dict[str, float]:
        """Figures of the labels alone."""
        return {"rows": float(len(labels))}

    @abstractmethod
    def told(self, labels: Floats) -> str:
        """What the labels are like, in words."""

    @abstractmethod
    def alone(self, feature: pd.Series, labels: Floats) -> float:
        """How well a numeric feature alone orders the labels, either way round: 0.5 not at all, 1 perfectly.

        Args:
            feature: Without missing values.
            labels: Those of the same rows.
        """

    @abstractmethod
    def prior(self, labels: Floats, metric: str) -> Floats:
        """The best prediction that is the same for every row, shape () or (k,), as far as `metric` is concerned."""

    @abstractmethod
    def _arranged(self, raw: Floats, model: Any, rows: int) -> Floats: ...

    def _stored(self, label: pd.Series) -> pd.Series:
        return label.astype("float64")

    def _shape_error(self, raw: Floats, rows: int, expected: str) -> PredictionError:
        return PredictionError(f"{self.method} gave shape {raw.shape} for {rows} rows, expected {expected}")
