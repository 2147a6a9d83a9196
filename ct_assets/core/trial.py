"""One comparison: the models' scores on the same labels, and the checks that follow from them alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from ct_assets.core.metrics import advantage, allowed_loss, higher_is_better
from ct_assets.core.tasks import Binary, Multiclass, PredictionError, Task
from ct_assets.core.verdict import Check, GatePolicy, SliceResult

Scores = npt.NDArray[np.float64]
NO_ROWS = "no rows to predict"

_BLOCKS = 20
"""Parts of the test rows that are left out in turn, to see how much a difference owes to chance."""
_ONE_SIDED_5_PERCENT = 1.645


class Classifier(Protocol):
    """Gives the probability of class 1, shape (n,) or (n, 2), or of each class, shape (n, k)."""

    def predict_proba(self, features: pd.DataFrame, /) -> Any:
        """Probabilities."""


class Predictor(Protocol):
    """Gives a value, shape (n,), or its quantiles, shape (n, k)."""

    def predict(self, features: pd.DataFrame, /) -> Any:
        """Values."""


#: What a task with classes, and one with values, expects of a model.
Model = Classifier | Predictor


def predictions_of(task: Task, model: Model, features: pd.DataFrame) -> tuple[Scores | None, str | None]:
    """The task's predictions, or None and what is wrong with them."""
    if not len(features):
        return None, NO_ROWS
    try:
        predictions = task.predict(model, features)
    except PredictionError as error:
        return None, str(error)
    except Exception as error:  # whatever a model raises is a failed check, not a broken run
        return None, f"{task.method} raised {type(error).__name__}: {error}"
    problem = task.problem(predictions)
    return (None, problem) if problem else (predictions, None)


def rarer_class(task: Task, labels: Scores) -> int | None:
    """Rows of the second most frequent class, of which a metric of classes needs some; None for labels without one."""
    if not isinstance(task, Binary | Multiclass):
        return None
    counts = np.sort(np.unique(labels, return_counts=True)[1])
    return int(counts[-2]) if len(counts) > 1 else 0


def not_computed(metric: str) -> str:
    """What a check says that needed a metric which is not there."""
    return f"{metric} could not be computed: see the checks of labels and predictions"


@dataclass(frozen=True)
class Trial:
    """All models' scores on the same labels; None where unusable, and then nothing that needs them passes.

    `conclusive` says whether there are rows enough to reject by: if not, what would have failed is inconclusive.
    """

    task: Task
    policy: GatePolicy
    labels: Scores | None
    challenger: Scores | None
    champion: Scores | None
    has_champion: bool
    baseline: Scores | None = None
    rolled_back: Scores | None = None
    conclusive: bool = True

    def metrics(self, wanted: Sequence[str]) -> dict[str, dict[str, float | None]]:
        """Every side's figures: those that the task always shows, and those `wanted`."""
        sides = {
            "challenger": self.challenger,
            "champion": self.champion,
            "baseline": self.baseline,
            "rolled_back": self.rolled_back,
        }
        return {
            side: {name: _finite(value) for name, value in self.task.figures(self.labels, scores, wanted).items()}
            for side, scores in sides.items()
            if self.labels is not None and scores is not None
        }

    def value(self, scores: Scores | None, rows: Any = slice(None), metric: str | None = None) -> float | None:
        """The gate's metric, or another one, of some scores over some of the rows; None where it is undefined."""
        if self.labels is None or scores is None:
            return None
        return _finite(self.task.measure(metric or self.policy.metric, self.labels[rows], scores[rows]))

    def not_worse(self) -> Check:
        """Whether the metric is above the champion's minus the tolerance."""
        name, metric = "not_worse_than_champion", self.policy.metric
        if not self.has_champion:
            return Check(name=name, passed=True, detail="no champion to compare with")
        mine, theirs = self.value(self.challenger), self.value(self.champion)
        if mine is None or theirs is None:
            return self._check(name=name, passed=False, detail=not_computed(metric))
        sign = 1 if higher_is_better(metric) else -1
        allowed = allowed_loss(metric, self.policy.tolerance, theirs)
        limit = theirs - sign * allowed
        word, comparison = ("above", ">") if sign > 0 else ("below", "<")
        # With a tolerance, what is no worse at all passes, also where a loss of 0 leaves no room below.
        passed = advantage(metric, mine, limit) > 0 or (self.policy.tolerance > 0 and mine == theirs)
        detail = f"{metric} {mine:.6g} has to be {word} {limit:.6g} (champion {theirs:.6g}, tolerance {allowed:.4g})"
        if not passed:
            detail += (
                f"; it is {abs(limit - mine):.3g} short: that much more tolerance or quality would have flipped it"
            )
        return self._check(name=name, passed=passed, value=mine, limit=limit, comparison=comparison, detail=detail)

    def above_floor(self) -> Check:
        """Whether the metric is not below the floor, if there is one."""
        name, metric, floor = "above_floor", self.policy.metric, self.policy.floor
        if floor is None:
            first = "" if self.has_champion else "; a first model has to beat the baseline instead"
            return Check(name=name, passed=True, detail=f"no floor set{first}")
        mine = self.value(self.challenger)
        if mine is None:
            return self._check(name=name, passed=False, limit=floor, detail=not_computed(metric))
        passed = advantage(metric, mine, floor) >= 0
        comparison = ">=" if higher_is_better(metric) else "<="
        detail = f"{metric} {mine:.6g} has to be {comparison} {floor:g}"
        if not passed:
            detail += f"; a floor of {mine:.6g} would have flipped it"
        return self._check(name=name, passed=passed, value=mine, limit=floor, comparison=comparison, detail=detail)

    def beats_baseline(self) -> Check:
        """Whether the metric is better than the baseline's.

        A first model without a floor has to be so by more than chance, as nothing else is asked of it. A challenger
        that is better than a champion which loses to the baseline too is an improvement: it only warns.
        """
        name, metric = "beats_baseline", self.policy.metric
        alone = not self.has_champion and self.policy.floor is None
        if not self.policy.beat_baseline and not alone:
            return Check(name=name, passed=True, detail="not asked for")
        # A first model is compared with something, also where nobody gave a baseline: the best constant.
        baseline = self._constant() if self.baseline is None and not self.policy.beat_baseline else self.baseline
        mine, naive = self.value(self.challenger), self.value(baseline)
        if mine is None or naive is None:
            detail = f"{not_computed(metric)}; a baseline is needed"
            return self._check(name=name, passed=False, detail=detail)
        sign = 1 if higher_is_better(metric) else -1
        margin = self._chance(baseline) if alone else 0.0
        limit = naive + sign * margin
        word, comparison = ("above", ">") if sign > 0 else ("below", "<")
        detail = f"{metric} {mine:.6g} has to be {word} {limit:.6g}, that of a naive prediction"
        if margin:
            detail += f" ({naive:.6g}) and what chance may add to it, for a first model without a floor"
        passed = advantage(metric, mine, limit) > 0
        theirs = self.value(self.champion)
        improves = theirs is not None and advantage(metric, naive, theirs) >= 0 and advantage(metric, mine, theirs) > 0
        if not passed and improves:
            return Check(
                name=name,
                passed=False,
                severity="WARN",
                value=mine,
                limit=limit,
                comparison=comparison,
                detail=f"{detail}; the champion's {theirs:.6g} is worse still, so the challenger replaces it: a naive "
                "prediction would be better than either",
            )
        return self._check(name=name, passed=passed, value=mine, limit=limit, comparison=comparison, detail=detail)

    def better_than_rolled_back(self) -> Check:
        """Whether the metric is better than that of a release whose rollback holds; `promote` reads this warning."""
        name, metric = "better_than_rolled_back", self.policy.metric
        if self.rolled_back is None:
            return Check(name=name, passed=True, severity="WARN", detail="no rollback holds")
        mine, theirs = self.value(self.challenger), self.value(self.rolled_back)
        if mine is None or theirs is None:
            return Check(name=name, passed=False, severity="WARN", detail=not_computed(metric))
        sign = 1 if higher_is_better(metric) else -1
        limit = theirs + sign * allowed_loss(metric, self.policy.tolerance, theirs)
        word, comparison = ("above", ">") if sign > 0 else ("below", "<")
        return Check(
            name=name,
            passed=advantage(metric, mine, limit) > 0,
            severity="WARN",
            value=mine,
            limit=limit,
            comparison=comparison,
            detail=f"{metric} {mine:.6g} has to be {word} {limit:.6g} to be better than what was rolled back "
            f"({theirs:.6g}) by the tolerance",
        )

    def slices_not_worse(self, slices: tuple[SliceResult, ...]) -> Check:
        """Whether no judged slice loses more than the slice tolerance."""
        name, metric, limit = "slices_not_worse", self.policy.metric, -self.policy.slice_tolerance
        if not self.has_champion:
            return Check(name=name, passed=True, detail="no champion to compare with")
        if self.value(self.challenger) is None or self.value(self.champion) is None:
            return self._check(name=name, passed=False, limit=limit, detail=not_computed(metric))
        judged = {
            s: gain(metric, s.challenger, s.champion)
            for s in slices
            if s.judged and s.challenger is not None and s.champion is not None
        }
        if not judged:
            needed = f" and {self.policy.min_class_rows} of each class" if rarer_class_counts(self.task) else ""
            detail = f"no slice with {self.policy.min_slice_rows} rows{needed}"
            return Check(name=name, passed=True, detail=detail)
        failed = sorted((s for s in judged if not s.passed), key=lambda s: judged[s])
        worst = min(judged.values())
        unit = metric if allowed_loss(metric, 1.0, 0.5) == 1.0 else f"of the champion's {metric}"
        detail = f"{len(judged) - len(failed)} of {len(judged)} judged slices lose less than {-limit:g} {unit}"
        if failed:
            named = ", ".join(f"{s.column}={s.value} ({s.rows} rows, {-judged[s]:.4g} worse)" for s in failed[:5])
            more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
            detail += f"; not {named}{more}; a slice tolerance above {-worst:.4g} would have flipped it"
        return self._check(name=name, passed=not failed, value=worst, limit=limit, comparison=">", detail=detail)

    def calibrated(self) -> Check:
        """Whether the calibration error is within its limit, if there is one."""
        name, limit = "calibrated", self.policy.max_calibration_error
        if limit is None:
            return Check(name=name, passed=True, detail="no limit set")
        metric, words = self.task.calibration
        error = self.value(self.challenger, metric=metric)
        if error is None:
            return self._check(name=name, passed=False, limit=limit, detail=not_computed(metric))
        passed = error <= limit
        detail = f"{words} {error:.4g} has to be <= {limit:g}"
        if not passed:
            detail += f"; a limit of {error:.4g}, or recalibrating the model, would have flipped it"
        return self._check(name=name, passed=passed, value=error, limit=limit, comparison="<=", detail=detail)

    def _check(self, *, passed: bool, **content: Any) -> Check:
        """A check that fails only where the rows can tell."""
        return Check(passed=passed, inconclusive=not passed and not self.conclusive, **content)

    def _constant(self) -> Scores | None:
        """The best prediction that is the same for every row; None without labels."""
        if self.labels is None or not len(self.labels):
            return None
        prior = self.task.prior(self.labels, self.policy.metric)
        return np.broadcast_to(prior, (len(self.labels), *prior.shape)).copy()

    def _chance(self, baseline: Scores | None) -> float:
        """How much of an advantage over the baseline chance may give: 1.645 jackknife standard errors (Tukey 1958).

        Neighbours in time are left out together, as they resemble each other.
        """
        assert self.labels is not None
        rows = np.arange(len(self.labels))
        blocks = rows * _BLOCKS // max(len(rows), 1)
        left = [blocks != block for block in range(_BLOCKS)]
        pairs = [(self.value(self.challenger, kept), self.value(baseline, kept)) for kept in left]
        found = np.array([mine - naive for mine, naive in pairs if mine is not None and naive is not None])
        if len(found) < 2:
            return 0.0
        spread = np.sqrt((len(found) - 1) / len(found) * np.sum((found - found.mean()) ** 2))
        return float(_ONE_SIDED_5_PERCENT * spread)


def gain(metric: str, value: float, other: float) -> float:
    """By how much a value is better than another one, in the unit of the metric's tolerances."""
    unit = allowed_loss(metric, 1.0, other)
    better = advantage(metric, value, other)
    return better / unit if unit else math.copysign(math.inf, better) if better else 0.0


def rarer_class_counts(task: Task) -> bool:
    """Whether a metric of the task needs rows of several classes."""
    return isinstance(task, Binary | Multiclass)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
