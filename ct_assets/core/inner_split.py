"""Splits within one training (early stopping, calibration, a search over parameters), in time order.

What an estimator decides by rows that it does not fit has to be decided as the gate decides: by newer rows, whose first
prediction came when every fitted row was mature. A random split lets neighbours in label time vouch for each other: a
model that remembers looks better there than it will be (Lopez de Prado, Advances in Financial Machine Learning,
chapter 7).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ct_assets.core.division import MATURES, divide

Positions = npt.NDArray[np.intp]


@dataclass(frozen=True)
class RowTimes:
    """When each row to fit was predicted for, and when it was mature.

    Attributes:
        predicted: Times of prediction, shape (n,).
        matures: Times of maturity, shape (n,).
        by_maturity: Whether the newest rows are those that matured last, as where each event matures by itself.
    """

    predicted: pd.Series
    matures: pd.Series
    by_maturity: bool = False

    @classmethod
    def of(cls, examples: pd.DataFrame, reach: timedelta | None) -> "RowTimes":
        """The times of examples; rows without `event_timestamp` count as one after the other, mature at once.

        Args:
            examples: With `event_timestamp`, and `matures_at` where each event matures by itself.
            reach: Time from prediction to maturity; None where each event says so.
        """
        if "event_timestamp" not in examples:
            order = pd.Series(pd.Timestamp(0, tz="UTC") + pd.to_timedelta(np.arange(len(examples)), unit="s"))
            return cls(order, order)
        predicted = examples["event_timestamp"].reset_index(drop=True)
        if MATURES in examples:
            return cls(predicted, examples[MATURES].reset_index(drop=True), reach is None)
        return cls(predicted, predicted + (reach or timedelta(0)))

    def take(self, rows: Positions) -> "RowTimes":
        """Those of some of the rows."""
        predicted, matures = (series.iloc[rows].reset_index(drop=True) for series in (self.predicted, self.matures))
        return RowTimes(predicted, matures, self.by_maturity)


_fitted: ContextVar[RowTimes | None] = ContextVar("times of the rows that are being fitted", default=None)


@contextmanager
def fitting_rows_of(times: RowTimes | None) -> Iterator[None]:
    """Within the block, estimators split the rows that they fit by these times."""
    token = _fitted.set(times)
    try:
        yield
    finally:
        _fitted.reset(token)


class TimeOrderedSplit:
    """A splitter of scikit-learn (`cv`) in time order, with an embargo of the label's reach.

    The newest rows are cut into consecutive folds; each is tested on by what was fitted on the rows that were mature at
    the fold's first prediction. The times of the rows are those of the training that the platform runs: the splitter
    belongs to an estimator of a spec, or to a block of `fitting_rows_of`.

    Args:
        folds: How many.
        share: Of the rows, in each fold.
    """

    def __init__(self, folds: int = 1, share: float = 0.2) -> None:
        self.folds = folds
        self.share = share

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Positions, Positions]]:  # noqa: ARG002  scikit-learn's signature
        """Positions to fit and to test on, the oldest fold first.

        Raises:
            ValueError: The times of these rows are not known, or no row was mature before a fold.
        """
        if not (self.folds >= 1 and 0 < self.share * self.folds < 1):
            raise ValueError(
                f"TimeOrderedSplit has folds {self.folds} of a share of {self.share:g} each; expected one or more that "
                "leave rows to fit: folds * share below 1"
            )
        times, rows = _fitted.get(), np.shape(X)[0] if hasattr(X, "shape") else len(X)
        if times is None or len(times.predicted) != rows:
            known = "none" if times is None else f"those of {len(times.predicted)}"
            raise ValueError(
                f"the times of the {rows} rows to split are not known ({known} are); expected a training by the "
                "platform, in which the estimator that splits gets all rows, not a sample of another one"
            )
        for starts, earlier, newest in self.of(times):
            if not len(earlier) or not len(newest):
                raise ValueError(
                    f"none of the {rows} rows was mature at {starts.isoformat()}, the first prediction of "
                    f"{self.share:.0%} of them to test on; expected a smaller share, fewer folds or a longer history"
                )
            yield earlier, newest

    def of(self, times: RowTimes) -> Iterator[tuple[pd.Timestamp, Positions, Positions]]:
        """The folds of rows, the oldest first: its first prediction, and positions to fit and to test on.

        No row may have been mature in time.
        """
        order = times.matures if times.by_maturity else times.predicted
        ordered = order.sort_values(ignore_index=True)
        if ordered.empty:
            return
        begins = [ordered.iloc[int(len(ordered) * (1 - n * self.share))] for n in range(self.folds, 0, -1)]
        for starts, end in zip(begins, [*begins[1:], None], strict=True):
            rows = np.flatnonzero(np.ones(len(order)) if end is None else order < end)
            part = divide(times.predicted.iloc[rows], times.matures.iloc[rows], starts, times.by_maturity)
            yield part.starts, rows[part.train], rows[part.holdout]

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: ARG002  scikit-learn's signature
        """How many folds."""
        return self.folds


def splits_at_random(estimator: Any) -> list[str]:
    """Which parts of an estimator decide by a split of their rows that is not in time order, and what to use instead.

    Args:
        estimator: Unfitted, with all that it is made of.
    """
    found = ((prefix, split_problem(name, params)) for prefix, name, params in _parts(estimator))
    return [f"{prefix}{problem}" for prefix, problem in found if problem]


def stacked_at_random(estimator: Any) -> list[str]:
    """Names of the parts of an estimator that learn from predictions, or means, for folds in any order."""
    named = ((name, params) for _, name, params in _parts(estimator))
    return [name for name, params in named if _stacks(name) and not is_in_time_order(params.get("cv"))]


FOLDED = frozenset(
    {
        "CalibratedClassifierCV",
        "TunedThresholdClassifierCV",
        "GridSearchCV",
        "RandomizedSearchCV",
        "HalvingGridSearchCV",
        "HalvingRandomSearchCV",
        "LogisticRegressionCV",
        "RidgeCV",
        "RidgeClassifierCV",
        "ElasticNetCV",
        "LassoCV",
        "LarsCV",
        "LassoLarsCV",
        "OrthogonalMatchingPursuitCV",
        "RFECV",
        "SequentialFeatureSelector",
    }
)
"""Estimators of scikit-learn that split into folds also where no `cv` is given."""
_STOPS = (
    "stops by a random part of the rows, which are neighbours in time of those that it fits; use "
    "ct_assets.core.estimators.early_stopped around a histogram gradient boosting or LightGBM estimator, or a fixed "
    "number of iterations"
)
_FOLDS = (
    "splits the rows into folds that are not in time order; use cv: {path: ct_assets.core.estimators.time_ordered, "
    "params: {folds: 1, share: 0.2}}"
)
_LOOKED_AT = ("cv", "early_stopping", "n_iter_no_change", "estimator")


def split_problem(name: str, params: Mapping[str, Any]) -> str:
    """What is wrong with how an estimator splits its rows, by its class's name and parameters; empty if nothing.

    Args:
        name: Of the class.
        params: Those that are known; a splitter is a `TimeOrderedSplit`, or a mapping that names it.
    """
    stopping = params.get("early_stopping", False)
    if stopping is True or (stopping == "auto" and "HistGradientBoosting" not in name):
        return f"early_stopping: {name} {_STOPS}"
    if name.startswith("GradientBoosting") and params.get("n_iter_no_change") is not None:
        return f"n_iter_no_change: {name} {_STOPS}"
    frozen = name == "CalibratedClassifierCV" and type(params.get("estimator")).__name__ == "FrozenEstimator"
    # A chain predicts by what it was fitted on unless it is asked for folds.
    unasked = name.endswith("Chain") and params.get("cv") is None
    if "cv" not in params or frozen or unasked or _stacks(name) or is_in_time_order(params["cv"]):
        return ""
    return f"cv: {name} {_FOLDS}"


def is_in_time_order(cv: Any) -> bool:
    """Whether a splitter goes by time; of one that is written, whether its path names such a one."""
    if isinstance(cv, Mapping):
        return str(cv.get("path", "")).rpartition(".")[2] in ("time_ordered", "TimeOrderedSplit")
    return cv == "prefit" or isinstance(cv, TimeOrderedSplit)


def _stacks(name: str) -> bool:
    return name.startswith("Stacking") or name == "TargetEncoder"


def _parts(estimator: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """An estimator and those that it is made of: prefix of its parameters, name of its class, and what is looked at."""
    if not hasattr(estimator, "get_params") or isinstance(estimator, type):
        return
    params = estimator.get_params()
    parts = {"": estimator, **{f"{name}__": value for name, value in params.items() if hasattr(value, "get_params")}}
    for prefix, part in parts.items():
        if not isinstance(part, type):
            own = {name: params[f"{prefix}{name}"] for name in _LOOKED_AT if f"{prefix}{name}" in params}
            yield prefix, type(part).__name__, own
