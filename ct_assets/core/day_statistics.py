"""What one day of a column is like, in a few numbers that later days are compared with.

Numbers: mean, logarithm of the standard deviation, and share of missing values; the largest and smallest hundredth
count as the quantiles, so that a few extreme values do not stand for a day. Categories: share of missing values, and
of each of 16 groups that a checksum of the name puts a category in: a handful of numbers however many there are.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd

Statistics = dict[str, tuple[float | None, float | None]]
"""Name to value and variance of the value, by the number of rows; None where it is undefined."""

_GROUPS = 16
_TAIL = 0.01
#: Squares of larger values, and sums of them, are beyond the largest double.
_LARGEST = 1e140
_SMALLEST = 1e-12


def day_statistics(rows: pd.DataFrame) -> dict[str, Statistics]:
    """Statistics of each column of one day's rows; moments are left out."""
    return {
        str(name): _rounded(_numeric(series) if pd.api.types.is_numeric_dtype(series.dtype) else _categorical(series))
        for name, series in rows.items()
        if not pd.api.types.is_datetime64_any_dtype(series.dtype)
    }


def series_of(
    days: Sequence[Mapping[str, Statistics]], column: str
) -> tuple[list[str], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Names of a column's statistics, and their values and variances: a row a day, a column a statistic.

    Args:
        days: Of `day_statistics`, oldest first; a day without the column, or with another kind of it, has NaN.
        column: The column.
    """
    names = list(days[-1].get(column, {})) if days else []
    pairs = [[day.get(column, {}).get(name, (None, None)) for name in names] for day in days]
    array = np.array(pairs, dtype=np.float64).reshape(len(days), len(names), 2)
    return names, array[:, :, 0], array[:, :, 1]


def _rounded(statistics: Statistics) -> Statistics:
    """To six digits, far more than days differ by: many days are read every day."""
    return {
        name: (None if value is None else float(f"{value:.6g}"), None if error is None else float(f"{error:.3g}"))
        for name, (value, error) in statistics.items()
    }


def _numeric(series: pd.Series) -> Statistics:
    values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    found = np.clip(values[np.isfinite(values)], -_LARGEST, _LARGEST)
    result = {"missing": _share(len(values) - len(found), len(values))}
    if not len(found):
        return {**result, "mean": (None, None), "log spread": (None, None)}
    found = np.clip(found, *np.quantile(found, (_TAIL, 1 - _TAIL)))
    count, spread = len(found), float(found.std())
    of_spread = (math.log(max(spread, _SMALLEST)), 0.5 / (count - 1)) if count > 1 else (None, None)
    return {**result, "mean": (float(found.mean()), spread**2 / count), "log spread": of_spread}


def _categorical(series: pd.Series) -> Statistics:
    codes, names = pd.factorize(series, use_na_sentinel=True)
    known = codes[codes >= 0]
    groups = np.array([_group(str(name)) for name in names], dtype=np.intp)
    counts = np.bincount(groups[known], minlength=_GROUPS) if len(known) else np.zeros(_GROUPS, dtype=np.intp)
    shares = {f"group {place}": _share(int(rows), len(known)) for place, rows in enumerate(counts)}
    return {"missing": _share(len(codes) - len(known), len(codes)), **shares}


def _share(part: int, rows: int) -> tuple[float | None, float | None]:
    if not rows:
        return None, None
    # As if one row more of each kind had been seen (Agresti and Caffo 2000): a share of 0 varies too.
    likely = (part + 1) / (rows + 2)
    return part / rows, likely * (1 - likely) / rows


@lru_cache(maxsize=65536)
def _group(category: str) -> int:
    return zlib.crc32(category.encode()) % _GROUPS
