"""Sudden changes in daily statistics that the days before do not explain.

Days differ: by season, by weekday, and one day resembles the next. So a day is compared with the days before it, and
the difference with those that earlier days had from theirs. A slow change, such as a season, never makes a step,
however far it goes; a change of unit, a stuck sensor or a new population does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from ct_assets.core.day_statistics import Statistics, series_of

Floats = npt.NDArray[np.float64]

BEFORE = 7
"""Days whose median a day is compared with: a week, so that each weekday is among them."""

LONGEST = 56
"""Newest earlier differences that count."""

FALSE_ALARMS_A_YEAR = 0.05
"""Chance that a year of daily looks at a column that did not change shows a step, by the union bound."""

_LOOKS_A_YEAR = 365
_BEYOND_LARGEST = 1.5


@dataclass(frozen=True)
class Step:
    """A sudden change that lasts.

    Attributes:
        statistic: Which statistic of the column changed.
        day: Place of the first day of the change.
        before: Median of the week before.
        now: The newest day's value.
    """

    statistic: str
    day: int
    before: float
    now: float


def last_step(days: Sequence[Mapping[str, Statistics]], column: str, first: int, history: int) -> Step | None:
    """The oldest step of a column that lasts, of whichever statistic.

    Args:
        days: Of `day_statistics`, oldest first.
        column: The column.
        first: Steps before this day do not count.
        history: As of `steps`.
    """
    names, values, variances = series_of(days, column)
    if not names:
        return None
    places = steps(values, variances, first, history, len(names))
    if np.all(places < 0):
        return None
    number = int(np.argmin(np.where(places < 0, len(days), places)))
    day = int(places[number])
    before = float(np.median(values[day - BEFORE : day, number]))
    return Step(names[number], day, before, float(values[-1, number]))


def steps(values: Floats, variances: Floats, first: int = 0, history: int = 14, tests: int = 1) -> npt.NDArray[np.intp]:
    """The oldest step of each statistic that still lasts: the place of its first day, or -1.

    A day is a step where it differs from the median of the 7 days before by more than Student's quantile times what
    earlier days differed by, and more than 1.5 times the largest such difference (the largest one left out: one bad
    day must not hide the next change). It lasts while the two newest days differ as much from those 7 days, and at
    least half as much as it did. A day without a value is taken for like the one before.

    Args:
        values: A row a day, oldest first, and a column a statistic; NaN where a day has none.
        variances: Of the values, from their number of rows.
        first: Steps before this day do not count; one of up to 3 days before it still does, as the median of the 7
            days before is of the time before the step.
        history: Earlier differences needed to say what is usual, at least 3.
        tests: Statistics that are tested together.

    Returns:
        Shape (statistics,).
    """
    days, count = values.shape
    found = np.full(count, -1, dtype=np.intp)
    if days < BEFORE + history + 2:
        return found
    values, variances = (pd.DataFrame(each).ffill().bfill().to_numpy() for each in (values, variances))
    windows = np.lib.stride_tricks.sliding_window_view(values, BEFORE, axis=0)[:-1]
    base = np.median(windows, axis=-1)  # of day BEFORE + i
    error = np.lib.stride_tricks.sliding_window_view(variances, BEFORE, axis=0)[:-1].mean(axis=-1) / BEFORE
    error = error + variances[BEFORE:]
    change = values[BEFORE:] - base
    newest = values[-2:]
    for place in range(max(first - BEFORE, history), len(change) - 1):
        past = np.sort(np.abs(change[max(0, place - LONGEST) : place]), axis=0)[:-1]
        with np.errstate(invalid="ignore", over="ignore"):
            usual = np.sqrt(np.maximum(np.mean(past**2, axis=0), error[place]))
            limit = np.maximum(quantile(len(past), tests) * usual, _BEYOND_LARGEST * past[-1])
            away = np.sign(change[place]) * (newest - base[place])
            left = np.maximum(limit, np.abs(change[place]) / 2)
            lasting = (np.abs(change[place]) > limit) & np.all(away > left, axis=0)
        found[lasting & (found < 0)] = place + BEFORE
    return found


@lru_cache(maxsize=256)
def quantile(freedom: int, tests: int) -> float:
    """Student's, two-sided."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - FALSE_ALARMS_A_YEAR / (2 * _LOOKS_A_YEAR * tests)))
