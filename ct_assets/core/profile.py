"""Mergeable statistics of one partition: profile each arrival once, add profiles up for any window.

Counts merge exactly: `profile(a).merge(profile(b))` has the counts of `profile(concat([a, b]))`. Two choices make that
possible. Numeric bins have fixed edges, taken once from a reference frame (`bin_edges`). And where a column has more
categories than `cap`, the ones kept are chosen by a hash of their name, not by frequency: a "most frequent" cut
differs from partition to partition and does not add up, while the `cap` smallest hashes of a union are always among
the smallest of each part (the argument of the bottom-k sketch, Cohen and Kaplan 2007). Up to `cap` categories,
nothing is dropped.
"""

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

CATEGORY_CAP = 500

LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class NumericColumn:
    """A numeric column. `counts[i]` holds edges[i-1] <= x < edges[i], open at both ends; empty without edges.

    `count` is of finite values; NaN and infinities are `missing`. `m2` is the sum of squared deviations, at most the
    largest double.
    """

    count: int
    missing: int
    min: float | None
    max: float | None
    mean: float
    m2: float
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    kind: str = "numeric"

    @property
    def std(self) -> float:
        """Sample standard deviation (n - 1); NaN below two values."""
        return math.sqrt(self.m2 / (self.count - 1)) if self.count > 1 else float("nan")

    def merge(self, other: "NumericColumn") -> "NumericColumn":
        """Counts added; mean and m2 by the pairwise update of Chan, Golub and LeVeque (1983)."""
        if self.edges != other.edges:
            raise ValueError("bin edges differ; profile every partition with the edges of one reference frame")
        count = self.count + other.count
        share = other.count / count if count else 0.0
        # Halves, as the difference of two doubles may be beyond the largest one.
        delta = other.mean / 2 - self.mean / 2
        return NumericColumn(
            count=count,
            missing=self.missing + other.missing,
            min=min((x for x in (self.min, other.min) if x is not None), default=None),
            max=max((x for x in (self.max, other.max) if x is not None), default=None),
            mean=self.mean + 2 * (delta * share),
            m2=min(self.m2 + other.m2 + 4 * delta * delta * self.count * share, LARGEST),
            edges=self.edges,
            counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
        )


@dataclass(frozen=True)
class CategoricalColumn:
    """A categorical column: rows per kept category, and the rows of all the others in `other`."""

    count: int
    missing: int
    counts: Mapping[str, int] = field(default_factory=dict)
    other: int = 0
    kind: str = "categorical"

    def merge(self, other: "CategoricalColumn", cap: int) -> "CategoricalColumn":
        """Counts added, cut to `cap` categories again."""
        union = dict(self.counts)
        for category, rows in other.counts.items():
            union[category] = union.get(category, 0) + rows
        return _capped(union, self.other + other.other, self.missing + other.missing, cap)

    def complete_up_to(self) -> tuple[int, str] | None:
        """The rank (see `category_rank`) up to which every category is counted by name; None: all of them."""
        return max(map(category_rank, self.counts)) if self.other and self.counts else None


Column = NumericColumn | CategoricalColumn


@dataclass(frozen=True)
class Profile:
    """Statistics of a set of rows, by column. Values of a column that a partition did not have are missing."""

    rows: int
    columns: Mapping[str, Column]
    cap: int = CATEGORY_CAP

    def merge(self, other: "Profile") -> "Profile":
        """The profile of both sets of rows together.

        Raises ValueError if caps, edges or the kind of a column differ, naming the column.
        """
        if self.cap != other.cap:
            raise ValueError(f"profiles keep {self.cap} and {other.cap} categories; use one cap")
        names = sorted({*self.columns, *other.columns})
        return Profile(self.rows + other.rows, {name: self._merged(name, other) for name in names}, self.cap)

    def _merged(self, name: str, other: "Profile") -> Column:
        mine, theirs = self.columns.get(name), other.columns.get(name)
        if mine is None or theirs is None:
            present = mine or theirs
            assert present is not None
            return _more_missing(present, other.rows if theirs is None else self.rows)
        # A partition without one value of a column cannot tell its kind; the other one does.
        if theirs.count == 0 and _shape(theirs) != _shape(mine):
            return _more_missing(mine, theirs.missing)
        if mine.count == 0 and _shape(theirs) != _shape(mine):
            return _more_missing(theirs, mine.missing)
        try:
            if isinstance(mine, NumericColumn) and isinstance(theirs, NumericColumn):
                return mine.merge(theirs)
            if isinstance(mine, CategoricalColumn) and isinstance(theirs, CategoricalColumn):
                return mine.merge(theirs, self.cap)
        except ValueError as error:
            raise ValueError(f"column {name!r}: {error}") from error
        raise ValueError(f"column {name!r} is {mine.kind} in one profile and {theirs.kind} in the other")

    @staticmethod
    def merged(profiles: Iterable["Profile"]) -> "Profile":
        """All profiles merged, in order; of none: the empty profile."""
        parts = list(profiles)
        return reduce(Profile.merge, parts) if parts else Profile(0, {})

    def to_json(self) -> str:
        """Stable JSON text: the same profile always gives the same text."""
        document = {"rows": self.rows, "cap": self.cap, "columns": {k: asdict(c) for k, c in self.columns.items()}}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "Profile":
        """The profile that `to_json` wrote. Raises ValueError for anything else."""
        try:
            document = json.loads(text)
            columns = {name: _column_from(values) for name, values in document["columns"].items()}
            return Profile(document["rows"], columns, document["cap"])
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a profile written by Profile.to_json: {error!r}") from error


def profile(
    frame: pd.DataFrame, edges: Mapping[str, Sequence[float]] | None = None, cap: int = CATEGORY_CAP
) -> Profile:
    """Profile the columns of a frame.

    Numbers are numeric, text, categories and booleans categorical. Timestamps are left out: they never repeat, so they
    would always drift; freshness is watched elsewhere.

    Parameters: `edges` per numeric column, ascending (see `bin_edges`); a numeric column without edges gets moments
    and range, no bins. `cap`: how many categories of a column are counted by name.
    Raises ValueError where a column with edges holds text, naming it.
    """
    edges = edges or {}
    columns: dict[str, Column] = {}
    for name in sorted(map(str, frame.columns)):
        series = frame[name]
        if pd.api.types.is_datetime64_any_dtype(series.dtype) or pd.api.types.is_timedelta64_dtype(series.dtype):
            continue
        values = _numbers(series, required=name in edges)
        columns[name] = _categorical(series, cap) if values is None else _numeric(values, edges.get(name, ()))
    return Profile(len(frame), columns, cap)


def bin_edges(frame: pd.DataFrame, bins: int = 20) -> dict[str, list[float]]:
    """Inner bin edges of each numeric column, at the quantiles of a reference frame.

    A value that makes up more than one quantile (an atom such as 0 mm of rain), and each value of a column with at most
    `bins` distinct ones, gets a bin of its own, so a shift away from it shows. Columns without a value are left out.
    """
    result: dict[str, list[float]] = {}
    for name in sorted(map(str, frame.columns)):
        values = _numbers(frame[name], required=False)
        if values is None or pd.api.types.is_datetime64_any_dtype(frame[name].dtype):
            continue
        finite = np.sort(values[np.isfinite(values)])
        if not len(finite):
            continue
        positions = np.arange(1, bins) * len(finite) // bins
        cuts, repeats = np.unique(finite[positions], return_counts=True)
        atoms = cuts[repeats > 1]
        distinct = finite[np.concatenate(([True], finite[1:] != finite[:-1]))]
        if len(distinct) <= bins:
            cuts, atoms = distinct, distinct[-1:]
        edges = np.unique(np.concatenate((cuts, np.nextafter(atoms, np.inf))))
        # After the largest double comes infinity, which JSON does not have.
        result[name] = [float(edge) for edge in edges if np.isfinite(edge)]
    return result


def category_rank(category: str) -> tuple[int, str]:
    """The fixed order in which categories are kept: by checksum of the name, then by name."""
    return zlib.crc32(category.encode()), category


def _numbers(series: pd.Series, required: bool) -> npt.NDArray[np.float64] | None:
    """The values as float64 with NaN for missing, or None if the column is not numeric."""
    dtype = series.dtype
    if not required and isinstance(dtype, pd.StringDtype | pd.CategoricalDtype):
        return None
    if pd.api.types.is_object_dtype(dtype):
        series = series.infer_objects()
        if required and series.isna().all():
            return np.full(len(series), np.nan)
    if pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype):
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    if required:
        raise ValueError(
            f"column {series.name!r} has bin edges but holds {series.dtype} values, expected numbers; "
            "fix the source or drop the column from the edges"
        )
    return None


def _numeric(values: npt.NDArray[np.float64], edges: Sequence[float]) -> NumericColumn:
    rows = len(values)
    finite = values[np.isfinite(values)]
    count = len(finite)
    bins = len(edges) + 1 if len(edges) else 0
    counts: tuple[int, ...] = (0,) * bins
    if count and bins:
        where = np.searchsorted(np.asarray(edges, dtype=np.float64), finite, side="right")
        counts = tuple(np.bincount(where, minlength=bins).tolist())
    mean, m2 = _moments(finite)
    return NumericColumn(
        count=count,
        missing=rows - count,
        min=float(finite.min()) if count else None,
        max=float(finite.max()) if count else None,
        mean=mean,
        m2=m2,
        edges=tuple(map(float, edges)),
        counts=counts,
    )


def _moments(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean and sum of squared deviations; what is beyond the largest double is that double."""
    if not len(values):
        return 0.0, 0.0
    with np.errstate(over="ignore"):
        mean = float(values.mean())
        if not math.isfinite(mean):
            mean = float(np.sum(values / len(values)))
        centred = values - mean
        return mean, min(float(np.dot(centred, centred)), LARGEST)


def _categorical(series: pd.Series, cap: int) -> CategoricalColumn:
    codes, values = pd.factorize(series, use_na_sentinel=True)
    known = codes[codes >= 0]
    counts: dict[str, int] = {}
    for value, rows in zip(values, np.bincount(known, minlength=len(values)).tolist(), strict=True):
        counts[str(value)] = counts.get(str(value), 0) + rows
    return _capped(counts, 0, len(codes) - len(known), cap)


def _capped(counts: dict[str, int], other: int, missing: int, cap: int) -> CategoricalColumn:
    total = sum(counts.values()) + other
    names = sorted(counts) if len(counts) <= cap else sorted(sorted(counts, key=category_rank)[:cap])
    kept = {name: counts[name] for name in names}
    return CategoricalColumn(count=total, missing=missing, counts=kept, other=total - sum(kept.values()))


def _shape(column: Column) -> tuple[object, ...]:
    return (column.kind, column.edges) if isinstance(column, NumericColumn) else (column.kind,)


def _more_missing(column: Column, rows: int) -> Column:
    values = {**vars(column), "missing": column.missing + rows}
    return type(column)(**values)


def _column_from(values: dict[str, Any]) -> Column:
    if values["kind"] == "numeric":
        return NumericColumn(**{**values, "edges": tuple(values["edges"]), "counts": tuple(values["counts"])})
    if values["kind"] == "categorical":
        return CategoricalColumn(**values)
    raise TypeError(f"unknown kind of column {values['kind']!r}")
