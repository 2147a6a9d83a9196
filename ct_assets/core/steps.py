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


def last_steps(
    days: Sequence[Mapping[str, Statistics]], columns: Sequence[str], first: int, history: int
) -> dict[str, Step]:
    """The oldest step of each column that lasts, of whichever statistic; nothing for a column without one.

    Args:
        days: Of `day_statistics`, oldest first.
        columns: Those to look at; each of the days has them.
        first: Steps before this day do not count.
        history: As of `steps`.
    """
    parts = {column: series_of(days, column) for column in columns}
    owners = [(column, name, len(names)) for column, (names, _, _) in parts.items() for name in names]
    if not owners:
        return {}
    values, variances = (np.concatenate([part[place] for part in parts.values()], axis=1) for place in (1, 2))
    tests = np.array([number for _, _, number in owners])
    found: dict[str, Step] = {}
    for number, day in enumerate(steps(values, variances, first, history, tests).tolist()):
        column, name, _ = owners[number]
        if day >= 0 and (column not in found or day < found[column].day):
            before = float(np.median(values[day - BEFORE : day, number]))
            found[column] = Step(name, day, before, float(values[-1, number]))
    return found


def steps(
    values: Floats, variances: Floats, first: int = 0, history: int = 14, tests: int | npt.NDArray[np.intp] = 1
) -> npt.NDArray[np.intp]:
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
        tests: Statistics that are tested together, for all or each.

    Returns:
        Shape (statistics,).
    """
    days, count = values.shape
    found = np.full(count, -1, dtype=np.intp)
    if days < BEFORE + history + 2:
        return found
    values, variances = (pd.DataFrame(each).ffill().bfill().to_numpy() for each in (values, variances))
    tests = np.broadcast_to(tests, count)
    base = np.median(_weeks_before(values), axis=-1)
    change = values[BEFORE:] - base  # of day BEFORE + i
    error = _weeks_before(variances).mean(axis=-1) / BEFORE + variances[BEFORE:]
    with np.errstate(invalid="ignore", over="ignore"):
        # What a step needs at least, before the days that it is compared with are looked at.
        least = np.maximum(_quantile(LONGEST, 1) * np.sqrt(error), np.abs(change) / 2)
        away = np.min([np.sign(change) * (newest - base) for newest in values[-2:]], axis=0)
        likely = (away > least) & (np.abs(change) > least)
        likely[: max(first - BEFORE, history)] = likely[-1:] = False
        for place in np.flatnonzero(likely.any(axis=1)):
            which = np.flatnonzero(likely[place] & (found < 0))
            past = np.sort(np.abs(change[max(0, place - LONGEST) : place, which]), axis=0)[:-1]
            usual = np.sqrt(np.maximum(np.mean(past**2, axis=0), error[place, which]))
            quantiles = np.array([_quantile(len(past), number) for number in tests[which].tolist()])
            limit = np.maximum(quantiles * usual, _BEYOND_LARGEST * past[-1])
            lasting = (np.abs(change[place, which]) > limit) & (away[place, which] > limit)
            found[which[lasting]] = place + BEFORE
    return found


def _weeks_before(values: Floats) -> Floats:
    """The 7 days before each day that has so many, shape (days - 7, statistics, 7)."""
    return np.lib.stride_tricks.sliding_window_view(values, BEFORE, axis=0)[:-1]


@lru_cache(maxsize=256)
def _quantile(freedom: int, tests: int) -> float:
    """Student's, two-sided."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - FALSE_ALARMS_A_YEAR / (2 * _LOOKS_A_YEAR * tests)))
