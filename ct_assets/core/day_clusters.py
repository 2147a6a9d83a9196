"""A metric with what it varies by from day to day, and how large a loss such variation alone can show.

Rows of one day share its weather, its campaign, its outage: they err together, so days are the independent units and
not rows. The variance is the delete-one-day jackknife (Efron and Stein 1981), which holds for any metric; for AUC it
agrees with the clustered structural components of Obuchowski (1997). Where one day resembles the next, it is inflated
by the factor of an autoregressive process of first order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ct_assets.core.tasks import Binary, Multiclass, Task

Floats = npt.NDArray[np.float64]

FALSE_ALARMS_A_YEAR = 0.05
"""Chance that a year of daily looks at a model without any loss shows one, by the union bound over its looks."""

LOOKS_A_YEAR = 365

_MOST_CORRELATED = 0.9


FEWEST_OF_A_CLASS = 10
FEWEST_DAYS_OF_A_CLASS = 5
"""What the rarer class takes, in rows and in days that have some, for the jackknife to say how a metric varies."""


@dataclass(frozen=True)
class Rarer:
    """The rows of the rarer class, or of the second most frequent one.

    Attributes:
        rows: How many there are.
        days: On how many days.
    """

    rows: int
    days: int


@dataclass(frozen=True)
class Estimate:
    """A metric over some days.

    Attributes:
        value: The metric.
        rows: Rows it is made of.
        changes: What it changes by when one day is left out, a day each in their order; without mean.
        rarer: The rows of the rarer class; None where there are no classes.
    """

    value: float
    rows: int
    changes: tuple[float, ...]
    rarer: Rarer | None = None

    @property
    def days(self) -> int:
        """Days it is made of."""
        return len(self.changes)


def estimate(task: Task, metric: str, labels: Floats, predictions: Floats, days: npt.NDArray[Any]) -> Estimate | None:
    """A metric of checked labels and predictions, and how it depends on each day.

    Args:
        task: Knows the metric.
        metric: Its name.
        labels: Shape (n,).
        predictions: Shape (n,) or (n, k).
        days: The day of each row, shape (n,).

    Returns:
        None where the rows leave the metric undefined, with all days or without one of them.
    """
    if not len(labels):
        return None
    value = task.measure(metric, labels, predictions)
    units, places = np.unique(days, return_inverse=True)
    kept = (places != place for place in range(len(units)))
    without = np.array(
        [task.measure(metric, labels[rows], predictions[rows]) if rows.any() else value for rows in kept]
    )
    if math.isnan(value):
        return None
    # A day that holds all rows of one class cannot be left out, and says nothing of how days differ.
    without = without[np.isfinite(without)]
    changes = without - without.mean() if len(without) else without
    return Estimate(value, len(labels), tuple(changes.tolist()), _rarer(task, labels, places))


def noise_margin(
    reference: Estimate, current: Estimate, alpha: float = FALSE_ALARMS_A_YEAR / LOOKS_A_YEAR
) -> float | None:
    """What a loss from `reference` to `current` exceeds by chance alone with probability `alpha`, if nothing changed.

    The difference of the two is compared with Student's distribution. Its variance is pooled over the days of both, as
    without a change it is the same for both: a row, or a day where that is more, as few days with many rows differ by
    no less than many with few.

    Returns:
        None where there is nothing to tell the variation by: fewer than two days, or a class with few rows or on few of
        the days.
    """
    from scipy.special import stdtrit  # takes a while to import, and decides nothing when definitions are loaded

    both = (reference, current)
    freedom = sum(max(each.days - 1, 0) for each in both)
    if not freedom or any(map(_lacks_a_class, both)):
        return None
    variance = 0.0
    for sizes in ([each.rows for each in both], [each.days for each in both]):
        squares = sum(n * (each.days - 1) * _variance(each) for n, each in zip(sizes, both, strict=True) if each.days)
        variance = max(variance, squares / freedom * sum(1 / n for n in sizes if n))
    return float(stdtrit(freedom, 1 - alpha)) * math.sqrt(variance * _inflation(both))


def _rarer(task: Task, labels: Floats, places: npt.NDArray[np.intp]) -> Rarer | None:
    if not isinstance(task, Binary | Multiclass):
        return None
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        return Rarer(0, 0)
    rows = labels == classes[np.argsort(counts, kind="stable")[-2]]
    return Rarer(int(rows.sum()), len(np.unique(places[rows])))


def _lacks_a_class(of: Estimate) -> bool:
    rarer = of.rarer
    if rarer is None:
        return False
    # Without the only day that has some there is no metric, so nothing says how that day differs from others.
    return rarer.rows < FEWEST_OF_A_CLASS or rarer.days < max(2, min(FEWEST_DAYS_OF_A_CLASS, of.days))


def _variance(of: Estimate) -> float:
    return (of.days - 1) / of.days * sum(change**2 for change in of.changes)


def _inflation(of: Sequence[Estimate]) -> float:
    """(1 + r) / (1 - r), with the correlation r of neighbouring days corrected for its bias (Kendall 1954)."""
    squares = sum(change**2 for each in of for change in each.changes)
    if not squares:
        return 1.0
    products = sum(a * b for each in of for a, b in zip(each.changes, each.changes[1:], strict=False))
    # A series of n days has n - 1 pairs of neighbours.
    pairs = sum(max(each.days - 1, 0) for each in of)
    correlation = products / squares * sum(each.days for each in of) / pairs
    correlation += (1 + 3 * correlation) * len(of) / sum(each.days for each in of)
    correlation = min(max(correlation, 0.0), _MOST_CORRELATED)
    return (1 + correlation) / (1 - correlation)
