"""What a model has to beat to be worth its keep."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ct_assets.core.inputs import MISSING_CATEGORY
from ct_assets.core.spec import BaselineSpec
from ct_assets.core.tasks import Binary, Multiclass, Quantile, Task

Floats = npt.NDArray[np.float64]


class Baseline(ABC):
    """A naive model, asked like any other."""

    @abstractmethod
    def predict(self, features: pd.DataFrame, /) -> Floats:
        """A prediction a row, as the task shapes it."""

    def predict_proba(self, features: pd.DataFrame, /) -> Floats:
        """The same: for classes, a prediction is probabilities."""
        return self.predict(features)

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What it learned, as JSON can hold it; `baseline_from` reads it."""


class Prior(Baseline):
    """Predicts the same for every row.

    Args:
        prediction: A number, or one for each class or quantile: for a binary task the share of positives.
    """

    def __init__(self, prediction: float | Floats) -> None:
        self.prediction = np.asarray(prediction, dtype=np.float64)

    def predict(self, features: pd.DataFrame, /) -> Floats:
        """Shape (n,) or (n, k)."""
        return np.broadcast_to(self.prediction, (len(features), *self.prediction.shape)).copy()

    def to_dict(self) -> dict[str, Any]:
        """Its prediction."""
        return {"prediction": self.prediction.tolist()}


class Persistence(Baseline):
    """Predicts the value of a numeric input column.

    Args:
        column: The column, such as the value of a day ago.
        prior: For rows where it is missing.
        offsets: Added to the value; one for each quantile, or 0.
    """

    def __init__(self, column: str, prior: Prior, offsets: Floats) -> None:
        self.column = column
        self.prior = prior
        self.offsets = offsets

    def predict(self, features: pd.DataFrame, /) -> Floats:
        """Shape (n,) or (n, k)."""
        values = features[self.column].to_numpy(dtype=np.float64, na_value=np.nan)
        found = np.add.outer(values, self.offsets)
        return np.where(np.isfinite(found), found, self.prior.predict(features))

    def to_dict(self) -> dict[str, Any]:
        """Its column, its prior and its offsets."""
        return {"column": self.column, **self.prior.to_dict(), "offsets": self.offsets.tolist()}


class LastClass(Baseline):
    """Predicts how often each class followed the value of an input column, among the examples trained on.

    Args:
        column: The column, such as the last class known.
        prior: For rows where it is missing or has a value that no example had.
        shares: Value -> share of each class.
    """

    def __init__(self, column: str, prior: Prior, shares: Mapping[str, Floats]) -> None:
        self.column = column
        self.prior = prior
        self.shares = shares

    def predict(self, features: pd.DataFrame, /) -> Floats:
        """Shape (n, k); the second of two columns is that of class 1."""
        result = self.prior.predict(features)
        values = _keys(features[self.column])
        for value, shares in self.shares.items():
            result[values == value] = shares
        return result

    def to_dict(self) -> dict[str, Any]:
        """Its column, its prior and the shares by value."""
        shares = {value: each.tolist() for value, each in self.shares.items()}
        return {"column": self.column, **self.prior.to_dict(), "shares": shares}


def fit_baseline(task: Task, spec: BaselineSpec, metric: str, examples: pd.DataFrame) -> Baseline:
    """The naive model of a spec.

    Args:
        task: The model's task.
        spec: Which naive model.
        metric: What it has to be good at: the mean label minimises another one than the median.
        examples: Those that the challenger was trained on, with `label` and the column that the spec names; labels are
            usable.

    Returns:
        A model to be asked as the task asks.
    """
    labels, problem = task.encode(examples["label"])
    if labels is None or not len(labels):
        raise ValueError(f"a baseline needs the labels of training examples: {problem}; mend the label's SQL")
    prior = task.prior(labels, metric)
    if spec.kind == "prior" or spec.column is None:
        return Prior(prior)
    column = examples[spec.column]
    if isinstance(task, Binary | Multiclass):
        shares = np.array([1 - prior, prior]) if isinstance(task, Binary) else prior
        return LastClass(spec.column, Prior(shares), _shares(_keys(column), labels, shares))
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.isfinite(values)
    offsets: Floats = np.zeros(())
    if isinstance(task, Quantile):
        # Without a value there is no error either, and the prior predicts every row.
        missing = np.full(len(task.quantiles), np.nan)
        offsets = task.prior(labels[known] - values[known], metric) if known.any() else missing
    return Persistence(spec.column, Prior(prior), offsets)


def baseline_from(content: Mapping[str, Any]) -> Baseline:
    """The naive model of which `to_dict` gave this."""
    prior = Prior(np.asarray(content["prediction"], dtype=np.float64))
    if "offsets" in content:
        return Persistence(content["column"], prior, np.asarray(content["offsets"], dtype=np.float64))
    if "shares" in content:
        shares = {value: np.asarray(each, dtype=np.float64) for value, each in content["shares"].items()}
        return LastClass(content["column"], prior, shares)
    return prior


def in_words(spec: BaselineSpec, task: Task) -> str:
    """What the naive model does."""
    if spec.kind == "input":
        if isinstance(task, Binary | Multiclass):
            return f"predicts how often each class followed the value of {spec.column}"
        spread = ", with the quantiles of its past errors" if isinstance(task, Quantile) else ""
        return f"predicts the value of {spec.column}{spread}"
    same = {
        "binary": "the share of positives",
        "multiclass": "the share of each class",
        "regression": "the mean or median label, as suits the metric,",
        "quantile": "the quantiles of the labels",
    }
    return f"predicts {same[task.name]} for every row"


def _shares(keys: npt.NDArray[np.object_], labels: Floats, prior: Floats) -> dict[str, Floats]:
    """Share of each class by value, as if each value had been seen once more for each class, in the prior's shares."""
    result = {}
    for value in sorted({key for key in keys if key is not None}):
        counts = np.bincount(labels[keys == value].astype(np.intp), minlength=len(prior))
        result[value] = (counts + len(prior) * prior) / (counts.sum() + len(prior))
    return result


def _keys(column: pd.Series) -> npt.NDArray[Any]:
    """Values as text; None where one is missing."""
    keys = np.array([str(value) for value in column], dtype=object)
    keys[column.isna().to_numpy() | (keys == MISSING_CATEGORY)] = None
    return keys
