"""The gate: may this challenger serve? One function, one verdict, the same wherever it is called from."""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from ct_assets.core.canonical import iso_utc
from ct_assets.core.metrics import advantage, higher_is_better
from ct_assets.core.tasks import BINARY, PredictionError, Task, with_metric_of
from ct_assets.core.verdict import (
    CHECK_NAMES,
    Bindings,
    Check,
    GatePolicy,
    Measured,
    SliceResult,
    Verdict,
    VerdictError,
    all_passed,
)

__all__ = [
    "CHECK_NAMES",
    "Bindings",
    "Check",
    "GatePolicy",
    "Measured",
    "Model",
    "SliceResult",
    "TestData",
    "Verdict",
    "VerdictError",
    "validate_new_model",
]

#: One-row calls timed for the latency check, after one to warm up; the median of them counts.
_TIMED_CALLS = 15

Scores = npt.NDArray[np.float64]


class Classifier(Protocol):
    """Gives the probability of class 1, shape (n,) or (n, 2), or of each class, shape (n, k)."""

    def predict_proba(self, features: pd.DataFrame, /) -> Any: ...


class Predictor(Protocol):
    """Gives a value, shape (n,), or its quantiles, shape (n, k)."""

    def predict(self, features: pd.DataFrame, /) -> Any: ...


#: What a task with classes, and one with values, expects of a model.
Model = Classifier | Predictor


@dataclass(frozen=True)
class TestData:
    """What a challenger is tested on, row by row; the index is ignored.

    `features` holds the columns both models need, `label` what the task knows (0/1 if binary), `slices` categorical
    columns to judge separately.
    Raises ValueError if the lengths differ or a column name appears twice.
    """

    __test__: ClassVar[bool] = False  # the name looks like a test class to pytest

    features: pd.DataFrame
    label: pd.Series
    slices: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        lengths = [len(self.features), len(self.label), len(self.features if self.slices is None else self.slices)]
        if len(set(lengths)) > 1:
            raise ValueError(f"features, label and slices have {lengths} rows; expected the same number")
        for frame in (self.features, self.slices):
            if frame is not None and not frame.columns.is_unique:
                raise ValueError(f"columns {sorted(set(frame.columns[frame.columns.duplicated()]))} appear twice")

    @property
    def digest(self) -> str:
        """SHA-256 of the values, column names and types, whatever the index."""
        total = hashlib.sha256()
        parts = {"features": self.features, "label": self.label.to_frame("label")}
        if self.slices is not None:
            parts["slices"] = self.slices
        for part, frame in parts.items():
            for name in frame.columns:
                total.update(f"{part}.{name}:{frame[name].dtype}\n".encode())
                hashes = pd.util.hash_pandas_object(frame[name], index=False)
                total.update(np.ascontiguousarray(hashes, dtype="<u8").tobytes())
        return total.hexdigest()


def validate_new_model(
    challenger: Model,
    champion: Model | None,
    test_data: TestData,
    policy: GatePolicy | None = None,
    *,
    task: Task = BINARY,
    metrics: Sequence[str] = (),
    baseline: Model | None = None,
    reference: TestData | None = None,
    bindings: Bindings | Mapping[str, Any] | None = None,
    window: tuple[pd.Timestamp, pd.Timestamp] | None = None,
    artifact_mb: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Verdict:
    """Judge a challenger against the champion on the same rows.

    The rule: the challenger's metric is above the champion's minus the tolerance (below plus, where lower is better),
    overall and in every slice with enough rows, and not below the floor. Without a champion only the floor counts.

    Parameters: `task` what the models predict; `metrics` of it to record beyond those that it always shows; `baseline`
    a naive model, for the record and, where the policy says so, to be beaten; `reference` older rows that no training
    of the challenger's lineage has seen, to tell what it forgot; `bindings` what the models and data are (kept in the
    verdict); `window` the test rows' first and last event time; `artifact_mb` the challenger's size on disk; `clock`
    seconds, to time predictions.
    Unusable predictions, labels or too few rows are failed checks, as is a model that raises. Raises ValueError only
    for bindings or policies that are themselves invalid, such as one on a metric that the task has not.
    """
    policy = with_metric_of(type(task), policy or GatePolicy(), "metric")
    labels, label_problem = task.encode(test_data.label)
    scores, problem = _scores(task, challenger, test_data.features)
    champion_scores, champion_problem = (
        (None, None) if champion is None else _scores(task, champion, test_data.features)
    )
    naive_scores = None if baseline is None else _scores(task, baseline, test_data.features)[0]
    trial = _Trial(
        task, policy, labels, scores, champion_scores, champion is not None, naive_scores, (policy.metric, *metrics)
    )
    slices = trial.slices(test_data.slices)
    latency = None if scores is None else _latency_ms(task, challenger, test_data.features, clock)
    advice = "test on rows whose labels are known" + (f", with {task.needs}" if task.needs else "")
    checks = (
        _enough_rows(task, len(test_data.label), labels, policy),
        _usable("labels_usable", "labels", label_problem, advice),
        _usable("challenger_predictions_usable", "challenger", problem, "mend the model or its features"),
        _usable("champion_predictions_usable", "champion", champion_problem, "roll the champion back first"),
        trial.not_worse(),
        trial.above_floor(),
        trial.beats_baseline(),
        trial.slices_not_worse(slices),
        trial.calibrated(),
        _within("fast_enough", "median one-row latency", "ms", latency, policy.max_latency_ms),
        _within("small_enough", "artifact size", "MB", artifact_mb, policy.max_artifact_mb),
        _remembers(task, challenger, champion, reference, policy),
        _no_leak(task, test_data.features, labels, policy.leak_bound),
    )
    unsealed = Verdict(
        passed=all_passed(checks),
        checks=checks,
        metrics=trial.metrics(),
        slices=slices,
        rows=len(test_data.label),
        window=None if window is None else (iso_utc(window[0]), iso_utc(window[1])),
        test_data_digest=test_data.digest,
        policy=policy,
        bindings=Bindings.model_validate(bindings or {}),
        measured=Measured(latency_ms_per_row=latency, artifact_mb=artifact_mb),
    )
    return unsealed.model_copy(update={"digest": unsealed.computed_digest()})


@dataclass(frozen=True)
class _Trial:
    """Both models' scores on the same labels; None where unusable, and then nothing that needs them passes."""

    task: Task
    policy: GatePolicy
    labels: Scores | None
    challenger: Scores | None
    champion: Scores | None
    has_champion: bool
    baseline: Scores | None = None
    wanted: Sequence[str] = ()

    def metrics(self) -> dict[str, dict[str, float | None]]:
        sides = {"challenger": self.challenger, "champion": self.champion, "baseline": self.baseline}
        return {
            side: {name: _finite(value) for name, value in self.task.figures(self.labels, scores, self.wanted).items()}
            for side, scores in sides.items()
            if self.labels is not None and scores is not None
        }

    def value(self, scores: Scores | None, rows: Any = slice(None), metric: str | None = None) -> float | None:
        if self.labels is None or scores is None:
            return None
        return _finite(self.task.measure(metric or self.policy.metric, self.labels[rows], scores[rows]))

    def not_worse(self) -> Check:
        name, metric = "not_worse_than_champion", self.policy.metric
        if not self.has_champion:
            return Check(name=name, passed=True, detail="no champion to compare with")
        mine, theirs = self.value(self.challenger), self.value(self.champion)
        if mine is None or theirs is None:
            return Check(name=name, passed=False, detail=_not_computed(metric))
        sign = 1 if higher_is_better(metric) else -1
        limit = theirs - sign * self.policy.tolerance
        word, comparison = ("above", ">") if sign > 0 else ("below", "<")
        passed = advantage(metric, mine, limit) > 0
        detail = (
            f"{metric} {mine:.6g} has to be {word} {limit:.6g} "
            f"(champion {theirs:.6g}, tolerance {self.policy.tolerance:g})"
        )
        if not passed:
            detail += (
                f"; it is {abs(limit - mine):.3g} short: that much more tolerance or quality would have flipped it"
            )
        return Check(name=name, passed=passed, value=mine, limit=limit, comparison=comparison, detail=detail)

    def above_floor(self) -> Check:
        name, metric, floor = "above_floor", self.policy.metric, self.policy.floor
        if floor is None:
            detail = "no floor set"
            if not self.has_champion:
                # Passing on nothing but usable predictions should at least be visible.
                detail += " and no champion: nothing was compared; set a floor for the first model"
                return Check(name=name, passed=False, severity="WARN", detail=detail)
            return Check(name=name, passed=True, detail=detail)
        mine = self.value(self.challenger)
        if mine is None:
            return Check(name=name, passed=False, limit=floor, detail=_not_computed(metric))
        passed = advantage(metric, mine, floor) >= 0
        comparison = ">=" if higher_is_better(metric) else "<="
        detail = f"{metric} {mine:.6g} has to be {comparison} {floor:g}"
        if not passed:
            detail += f"; a floor of {mine:.6g} would have flipped it"
        return Check(name=name, passed=passed, value=mine, limit=floor, comparison=comparison, detail=detail)

    def beats_baseline(self) -> Check:
        name, metric = "beats_baseline", self.policy.metric
        mine, theirs = self.value(self.challenger), self.value(self.baseline)
        if not self.policy.beat_baseline:
            return Check(name=name, passed=True, detail="not asked for")
        if mine is None or theirs is None:
            return Check(name=name, passed=False, detail=f"{_not_computed(metric)}; a baseline is needed")
        word, comparison = ("above", ">") if higher_is_better(metric) else ("below", "<")
        detail = f"{metric} {mine:.6g} has to be {word} {theirs:.6g}, that of a naive prediction"
        passed = advantage(metric, mine, theirs) > 0
        return Check(name=name, passed=passed, value=mine, limit=theirs, comparison=comparison, detail=detail)

    def calibrated(self) -> Check:
        name, limit = "calibrated", self.policy.max_calibration_error
        if limit is None:
            return Check(name=name, passed=True, detail="no limit set")
        metric, words = self.task.calibration
        error = self.value(self.challenger, metric=metric)
        if error is None:
            return Check(name=name, passed=False, limit=limit, detail=_not_computed(metric))
        passed = error <= limit
        detail = f"{words} {error:.4g} has to be <= {limit:g}"
        if not passed:
            detail += f"; a limit of {error:.4g}, or recalibrating the model, would have flipped it"
        return Check(name=name, passed=passed, value=error, limit=limit, comparison="<=", detail=detail)

    def slices(self, columns: pd.DataFrame | None) -> tuple[SliceResult, ...]:
        if columns is None or self.labels is None:
            return ()
        results = []
        for column in map(str, columns.columns):
            names = columns[column].astype(object).where(columns[column].notna(), "(missing)").map(_told)
            for value, rows in sorted(names.reset_index(drop=True).groupby(names.to_numpy()).indices.items()):
                results.append(self._slice(column, str(value), np.asarray(rows)))
        return tuple(results)

    def _slice(self, column: str, value: str, rows: npt.NDArray[np.intp]) -> SliceResult:
        mine, theirs = self.value(self.challenger, rows), self.value(self.champion, rows)
        delta = None if mine is None or theirs is None else mine - theirs
        judged = delta is not None and len(rows) >= self.policy.min_slice_rows
        loss = -advantage(self.policy.metric, mine, theirs) if mine is not None and theirs is not None else 0.0
        return SliceResult(
            column=column,
            value=value,
            rows=len(rows),
            challenger=mine,
            champion=theirs,
            delta=delta,
            judged=judged,
            passed=not judged or loss < self.policy.slice_tolerance,
        )

    def slices_not_worse(self, slices: tuple[SliceResult, ...]) -> Check:
        name, metric, limit = "slices_not_worse", self.policy.metric, -self.policy.slice_tolerance
        if not self.has_champion:
            return Check(name=name, passed=True, detail="no champion to compare with")
        if self.value(self.challenger) is None or self.value(self.champion) is None:
            return Check(name=name, passed=False, limit=limit, detail=_not_computed(metric))
        judged = {
            s: advantage(metric, s.challenger, s.champion)
            for s in slices
            if s.judged and s.challenger is not None and s.champion is not None
        }
        if not judged:
            needed = f" and {self.task.needs}" if self.task.needs else ""
            detail = f"no slice with {self.policy.min_slice_rows} rows{needed}"
            return Check(name=name, passed=True, detail=detail)
        failed = sorted((s for s in judged if not s.passed), key=lambda s: judged[s])
        worst = min(judged.values())
        detail = f"{len(judged) - len(failed)} of {len(judged)} judged slices lose less than {-limit:g} {metric}"
        if failed:
            named = ", ".join(f"{s.column}={s.value} ({s.rows} rows, {-judged[s]:.4g} worse)" for s in failed[:5])
            more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
            detail += f"; not {named}{more}; a slice tolerance above {-worst:.4g} would have flipped it"
        return Check(name=name, passed=not failed, value=worst, limit=limit, comparison=">", detail=detail)


def _told(value: object) -> str:
    """A slice's value in words; inputs are floats, also those that count."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _enough_rows(task: Task, rows: int, labels: Scores | None, policy: GatePolicy) -> Check:
    name = "enough_rows"
    rarer = int(min((labels == 0).sum(), (labels == 1).sum())) if labels is not None and task == BINARY else None
    if rows >= policy.min_rows and rarer is not None and rarer < policy.min_class_rows:
        detail = (
            f"only {rarer} of {rows} test rows are of the rarer class, at least {policy.min_class_rows} needed: with "
            "so few, the metric tells little; a longer evaluation window would have flipped it"
        )
        return Check(name=name, passed=False, value=rarer, limit=policy.min_class_rows, comparison=">=", detail=detail)
    passed = rows >= policy.min_rows
    detail = f"{rows} test rows, at least {policy.min_rows} needed"
    if not passed:
        detail += f"; {policy.min_rows - rows} more labelled rows would have flipped it"
    return Check(name=name, passed=passed, value=rows, limit=policy.min_rows, comparison=">=", detail=detail)


def _remembers(
    task: Task, challenger: Model, champion: Model | None, reference: TestData | None, policy: GatePolicy
) -> Check:
    """Whether a model that learned from new rows only is still as good on old ones (French 1999)."""
    name, metric = "remembers", policy.metric
    if reference is None or champion is None:
        return Check(name=name, passed=True, detail="not asked for, or the first of its lineage")
    labels, problem = task.encode(reference.label)
    if problem or len(reference.label) < policy.min_slice_rows:
        needed = f"at least {policy.min_slice_rows} (min_slice_rows)" + (f" with {task.needs}" if task.needs else "")
        detail = (
            f"the reference examples cannot be judged on: {problem or f'only {len(reference.label)} rows'}; expected "
            f"{needed}: lengthen `reference` of the strategy"
        )
        return Check(name=name, passed=False, detail=detail)
    mine, theirs = (_scores(task, model, reference.features)[0] for model in (challenger, champion))
    trial = _Trial(task, policy, labels, mine, theirs, has_champion=True)
    value, former = trial.value(mine), trial.value(theirs)
    if value is None or former is None:
        return Check(name=name, passed=False, detail=_not_computed(metric))
    loss = -advantage(metric, value, former)
    detail = (
        f"{metric} {value:.6g} on {len(reference.label)} older examples that no training has seen, the champion's "
        f"{former:.6g}; it may lose {policy.remember_tolerance:g}"
    )
    passed = loss <= policy.remember_tolerance
    if not passed:
        detail += f" and loses {loss:.4g}: it forgot; a training in full, or that much tolerance, would have flipped it"
    limit = former - policy.remember_tolerance * (1 if higher_is_better(metric) else -1)
    comparison = ">=" if higher_is_better(metric) else "<="
    return Check(name=name, passed=passed, value=value, limit=limit, comparison=comparison, detail=detail)


def _usable(name: str, subject: str, problem: str | None, advice: str) -> Check:
    return Check(name=name, passed=problem is None, detail=f"{subject}: {problem}; {advice}" if problem else "usable")


def _within(name: str, what: str, unit: str, value: float | None, limit: float | None) -> Check:
    # No measured figure here: checks are part of the digest, and the figure differs on every run.
    if limit is None:
        return Check(name=name, passed=True, detail="no limit set")
    if value is None or not math.isfinite(value):
        return Check(name=name, passed=False, limit=limit, comparison="<=", detail=f"{what} is not known; it is needed")
    detail = f"{what} has to be <= {limit:g} {unit}"
    return Check(name=name, passed=value <= limit, limit=limit, comparison="<=", detail=detail)


def _no_leak(task: Task, features: pd.DataFrame, labels: Scores | None, bound: float | None) -> Check:
    """Whether a numeric feature alone orders the labels, either way round, better than an honest one would."""
    if bound is None or labels is None:
        return Check(name="no_leak", passed=True, detail="no bound set" if bound is None else "no usable labels")
    alone = {str(name): _alone(task, features[name], labels) for name in features.select_dtypes("number")}
    suspects = sorted((name for name, value in alone.items() if value > bound), key=lambda name: -alone[name])
    worst = max(alone.values(), default=None)
    detail = f"no feature alone has {task.leak_scale} above {bound:g}"
    if suspects:
        named = ", ".join(f"{name} ({alone[name]:.4g})" for name in suspects[:5])
        detail = (
            f"alone, {named} would reach {task.leak_scale} above {bound:g}: it may know the label; look at when its "
            "values were known, or raise the bound if it is honest"
        )
    return Check(
        name="no_leak", passed=not suspects, severity="WARN", value=worst, limit=bound, comparison="<=", detail=detail
    )


def _alone(task: Task, feature: pd.Series, labels: Scores) -> float:
    """What a feature alone tells of the labels, over the rows that have it."""
    known = feature.notna().to_numpy()
    return task.alone(feature[known], labels[known])


def _scores(task: Task, model: Model, features: pd.DataFrame) -> tuple[Scores | None, str | None]:
    """The task's predictions, or None and what is wrong with them."""
    if not len(features):
        return None, "no rows to predict"
    try:
        predictions = task.predict(model, features)
    except PredictionError as error:
        return None, str(error)
    except Exception as error:  # whatever a model raises is a failed check, not a broken run
        return None, f"{task.method} raised {type(error).__name__}: {error}"
    problem = task.problem(predictions)
    return (None, problem) if problem else (predictions, None)


def _latency_ms(task: Task, model: Model, features: pd.DataFrame, clock: Callable[[], float]) -> float | None:
    row = features.iloc[:1]
    times = []
    try:
        for _ in range(_TIMED_CALLS + 1):
            start = clock()
            task.predict(model, row)
            times.append(clock() - start)
    except Exception:  # a model that cannot predict one row alone has no latency
        return None
    return float(np.median(times[1:])) * 1000


def _not_computed(metric: str) -> str:
    return f"{metric} could not be computed: see the checks of labels and predictions"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
