"""Tasks whose labels are numbers: one value predicted, or some of its quantiles."""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from ct_assets.core import metrics_values
from ct_assets.core.tasks.base import PREDICTION, Floats, Metric, Task

#: Metrics that the median minimises among constants; the mean does the others.
_OF_THE_MEDIAN = ("mae", "wape")


@dataclass(frozen=True)
class Values(Task, ABC):
    """What tasks with numeric labels have in common."""

    method: ClassVar[str] = "predict"
    leak_scale: ClassVar[str] = "a rank correlation, put on the scale of an auc,"
    fewest_values: ClassVar[int] = 1
    needs: ClassVar[str] = ""

    def targets(self, label: pd.Series) -> npt.NDArray[Any]:
        """Labels as float64."""
        return label.to_numpy(dtype=np.float64)

    def encode(self, label: pd.Series) -> tuple[Floats | None, str | None]:
        """Labels as they are."""
        try:
            values = label.to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError):
            return None, "not numbers"
        missing, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
        if missing or infinite:
            return None, f"{missing or infinite} of {len(values)} are {'missing' if missing else 'infinite'}"
        return values, None if len(values) else "no rows"

    def codes(self, label: pd.Series) -> Floats:
        """Labels as they are."""
        values = pd.to_numeric(label, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isfinite(values), values, np.nan)

    def describe(self, labels: Floats) -> dict[str, float]:
        """Mean label, and rows."""
        rows = float(len(labels))
        return {"mean_label": float(labels.mean()) if rows else float("nan"), "rows": rows}

    def told(self, labels: Floats) -> str:
        """Mean and standard deviation."""
        return f"labels {labels.mean():.4g} on average, with a standard deviation of {labels.std():.4g}"

    def alone(self, feature: pd.Series, labels: Floats) -> float:
        """Absolute rank correlation (Spearman 1904), moved from [0, 1] to [0.5, 1] as AUC is from Somers' D."""
        ranks = feature.rank().to_numpy(dtype=np.float64), pd.Series(labels).rank().to_numpy(dtype=np.float64)
        if len(labels) < 2 or not all(rank.std() for rank in ranks):
            return 0.5
        return (1 + abs(float(np.corrcoef(*ranks)[0, 1]))) / 2


@dataclass(frozen=True)
class Regression(Values):
    """How much? Labels are numbers, a prediction is one number."""

    name: ClassVar[str] = "regression"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {
            "mae": metrics_values.mae,
            "rmse": metrics_values.rmse,
            "r2": metrics_values.r2,
            "wape": metrics_values.wape,
            "bias": metrics_values.bias,
            "relative_bias": metrics_values.relative_bias,
        }
    )
    shown: ClassVar[tuple[str, ...]] = ("mae", "rmse", "r2", "wape", "bias", "relative_bias")
    gate_metric: ClassVar[str] = "mae"
    calibration: ClassVar[tuple[str, str]] = ("relative_bias", "bias relative to the mean absolute label")

    def prior(self, labels: Floats, metric: str) -> Floats:
        """Mean or median label, as suits the metric."""
        return np.asarray(np.median(labels) if metric in _OF_THE_MEDIAN else labels.mean())

    def _arranged(self, raw: Floats, model: Any, rows: int) -> Floats:  # noqa: ARG002  there is one column
        if raw.ndim == 2 and raw.shape[1] == 1:
            raw = raw[:, 0]
        if raw.shape != (rows,):
            raise self._shape_error(raw, rows, "(n,) or (n, 1)")
        return raw


@dataclass(frozen=True)
class Quantile(Values):
    """Between what and what? Labels are numbers, a prediction has some quantiles of their distribution.

    Args:
        quantiles: Their levels in (0, 1), ascending.
    """

    quantiles: tuple[float, ...]

    name: ClassVar[str] = "quantile"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {
            "pinball": metrics_values.pinball,
            "coverage_error": metrics_values.coverage_error,
            "coverage": metrics_values.coverage,
            "interval_width": metrics_values.interval_width,
            "mae": metrics_values.central_mae,
        }
    )
    shown: ClassVar[tuple[str, ...]] = ("pinball", "coverage_error", "coverage", "interval_width", "mae")
    gate_metric: ClassVar[str] = "pinball"
    calibration: ClassVar[tuple[str, str]] = ("coverage_error", "mean coverage error of the quantiles")

    @property
    def columns(self) -> list[str]:
        """The quantile nearest to the median, and one column a quantile."""
        return [PREDICTION, *self.watched]

    @property
    def watched(self) -> list[str]:
        """One column a quantile; `prediction` is one of them again."""
        return [f"{PREDICTION}_q{100 * level:g}" for level in self.quantiles]

    @property
    def width(self) -> int | None:
        """One number a quantile."""
        return len(self.quantiles)

    @property
    def central(self) -> int:
        """Place of the quantile nearest to the median."""
        return metrics_values.central(self.quantiles)

    def prepare(self, estimator: Any) -> Any:
        """An estimator of one quantile becomes one of all; another is taken to predict all by itself."""
        from ct_assets.core.quantiles import QuantileModels, quantile_parameters

        return QuantileModels(estimator, self.quantiles) if quantile_parameters(estimator) else estimator

    def frame(self, predictions: Floats) -> pd.DataFrame:
        """The central quantile, and each."""
        columns = dict(zip(self.watched, predictions.T, strict=True))
        return pd.DataFrame({PREDICTION: predictions[:, self.central], **columns})

    def array(self, frame: pd.DataFrame) -> Floats:
        """The quantiles."""
        return frame[self.watched].to_numpy(dtype=np.float64)

    def measure(self, metric: str, labels: Floats, predictions: Floats) -> float:
        """One metric, which has to know the levels."""
        return self.metrics[metric](labels, predictions, self.quantiles)

    def prior(self, labels: Floats, metric: str) -> Floats:  # noqa: ARG002  the same for each
        """The labels' own quantiles."""
        return np.quantile(labels, self.quantiles)

    def _arranged(self, raw: Floats, model: Any, rows: int) -> Floats:  # noqa: ARG002  columns are in order
        """Sorted within each row.

        Quantiles that are estimated apart may cross; putting them in order brings them nearer to the true ones
        (Chernozhukov, Fernandez-Val and Galichon 2010).
        """
        if raw.ndim == 1 and len(self.quantiles) == 1:
            raw = raw[:, None]
        if raw.shape != (rows, len(self.quantiles)):
            expected = f"(n, {len(self.quantiles)}), one column a quantile"
            advice = "name an estimator with a parameter `quantile`, or one that predicts them all"
            raise self._shape_error(raw, rows, f"{expected}: {advice}")
        return np.sort(raw, axis=1)
