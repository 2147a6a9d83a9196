"""The metric on parts of the test rows: by category, or by bins of a number."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ct_assets.core.trial import Trial, gain, rarer_class
from ct_assets.core.verdict import SliceResult

DISTINCT_NUMBERS = 20
"""A column of more numbers than these is cut into bins of equal size."""
BINS = 5
MOST_SLICES = 100
"""Of more categories, the smallest ones are one slice together."""
MISSING, OTHERS = "(missing)", "(others)"


def slice_results(trial: Trial, columns: pd.DataFrame | None) -> tuple[SliceResult, ...]:
    """Both models' metric on each value, or bin of values, of each column.

    A slice is judged if it has the rows, and of classes the rows of each, that the policy asks for.
    """
    if columns is None:
        return ()
    return tuple(
        _result(trial, str(column), value, rows)
        for column in columns.columns
        for value, rows in _slices(columns[column])
    )


def _slices(column: pd.Series) -> list[tuple[str, npt.NDArray[np.intp]]]:
    """Name and row positions of each slice; bins in ascending order, categories by name."""
    numbers = _numbers(column)
    names, order = _categories(column) if numbers is None else _binned(numbers)
    places = pd.Series(names).groupby(names).indices
    return [(name, np.asarray(places[name])) for name in order if name in places]


def _numbers(column: pd.Series) -> npt.NDArray[np.float64] | None:
    """The column as numbers, NaN where one is missing, if it holds more of them than can be shown one by one."""
    if pd.api.types.is_bool_dtype(column) or isinstance(column.dtype, pd.CategoricalDtype):
        return None
    known = column.dropna()
    if known.nunique() <= DISTINCT_NUMBERS:
        return None
    if pd.api.types.is_datetime64_any_dtype(column):
        seconds = (pd.to_datetime(column, utc=True) - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
        return np.asarray(seconds, dtype=np.float64)
    if pd.api.types.is_object_dtype(column) and any(isinstance(value, str) for value in known):
        return None
    numbers = pd.to_numeric(column, errors="coerce")
    if not pd.api.types.is_numeric_dtype(numbers) or numbers.notna().sum() < len(known):
        return None
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan)


def _binned(numbers: npt.NDArray[np.float64]) -> tuple[npt.NDArray[Any], list[str]]:
    """Name of each row's bin, and the names in order: bins of equal size by the quantiles of these very rows."""
    finite = numbers[np.isfinite(numbers)]
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, BINS + 1)[1:-1])) if len(finite) else np.empty(0)
    bounds = [-np.inf, *edges.tolist(), np.inf]
    labels = [f"[{low:.6g}, {high:.6g})" for low, high in pairwise(bounds)]
    names = np.array(labels, dtype=object)[np.searchsorted(edges, numbers, side="right")]
    names[np.isnan(numbers)] = MISSING
    return names, [MISSING, *labels]


def _categories(column: pd.Series) -> tuple[npt.NDArray[Any], list[str]]:
    """Name of each row's category, and the names in order; small ones together where there are too many to show."""
    named = column.astype(object).where(column.notna(), MISSING).map(_text)
    largest = named.value_counts().head(MOST_SLICES).index
    if named.nunique() > MOST_SLICES:
        named = named.where(named.isin(largest), OTHERS)
    return named.to_numpy(dtype=object), sorted(named.unique())


def _text(value: object) -> str:
    """A slice's value in words; inputs are floats, also those that count."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _result(trial: Trial, column: str, value: str, rows: npt.NDArray[np.intp]) -> SliceResult:
    mine, theirs = trial.value(trial.challenger, rows), trial.value(trial.champion, rows)
    policy, delta = trial.policy, None if mine is None or theirs is None else mine - theirs
    assert trial.labels is not None
    rarer = rarer_class(trial.task, trial.labels[rows])
    enough = len(rows) >= policy.min_slice_rows and (rarer is None or rarer >= policy.min_class_rows)
    judged = delta is not None and enough
    loss = -gain(policy.metric, mine, theirs) if mine is not None and theirs is not None else 0.0
    return SliceResult(
        column=column,
        value=value,
        rows=len(rows),
        challenger=mine,
        champion=theirs,
        delta=delta,
        judged=judged,
        passed=not judged or loss < policy.slice_tolerance or (policy.slice_tolerance > 0 and loss == 0),
    )
