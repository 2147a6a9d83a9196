"""The gate: may this challenger serve? One function, one verdict, the same wherever it is called from."""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from ct_assets.core.canonical import iso_utc
from ct_assets.core.metrics import advantage, allowed_loss, higher_is_better
from ct_assets.core.slices import slice_results
from ct_assets.core.tasks import BINARY, Task, with_metric_of
from ct_assets.core.trial import NO_ROWS, Model, Scores, Trial, not_computed, predictions_of, rarer_class
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
    "enough_rows",
    "validate_new_model",
]

#: One-row calls timed for the latency check, after one to warm up; the median of them counts.
_TIMED_CALLS = 15


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
    rolled_back: Model | None = None,
    seen_rows: int = 0,
    bindings: Bindings | Mapping[str, Any] | None = None,
    window: tuple[pd.Timestamp, pd.Timestamp] | None = None,
    artifact_mb: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Verdict:
    """Judge a challenger against the champion on the same rows.

    The rule: the challenger's metric is above the champion's minus the tolerance (below plus, where lower is better),
    overall and in every slice with enough rows, and not below the floor. Without a champion the floor counts, and
    without a floor the baseline. Where the rows cannot tell, the verdict is inconclusive, which is no pass either.

    Parameters: `task` what the models predict; `metrics` of it to record beyond those that it always shows; `baseline`
    a naive model, for the record and to be beaten; `reference` older rows that no training of the challenger's lineage
    has seen, to tell what it forgot; `rolled_back` a release whose rollback holds; `seen_rows` how many rows were left
    out of the test data because a model that is compared had learned from them; `bindings` what the models and data are
    (kept in the verdict); `window` the test rows' first and last event time; `artifact_mb` the challenger's size on
    disk; `clock` seconds, to time predictions.
    Unusable predictions, labels or too few rows are failed checks, as is a model that raises. Raises ValueError only
    for bindings or policies that are themselves invalid, such as one on a metric that the task has not.
    """
    policy = with_metric_of(type(task), policy or GatePolicy(), "metric")
    labels, label_problem = task.encode(test_data.label)
    scores, problem = predictions_of(task, challenger, test_data.features)
    champion_scores, champion_problem = (
        (None, None) if champion is None else predictions_of(task, champion, test_data.features)
    )
    others = {
        name: None if model is None else predictions_of(task, model, test_data.features)[0]
        for name, model in (("baseline", baseline), ("rolled_back", rolled_back))
    }
    enough = enough_rows(task, len(test_data.label), labels, policy, seen_rows)
    # Labels of one class are sound, and say nothing yet; of a longer window they may.
    waiting = labels is not None and (not enough.passed or label_problem is not None)
    trial = Trial(task, policy, labels, scores, champion_scores, champion is not None, **others, conclusive=not waiting)
    slices = () if labels is None else slice_results(trial, test_data.slices)
    latency = None if scores is None else _latency_ms(task, challenger, test_data.features, clock)
    advice = "test on rows whose labels are known" + (f", with {task.needs}" if task.needs else "")
    checks = (
        enough,
        _usable("labels_usable", "labels", label_problem, advice, inconclusive=labels is not None),
        _usable("challenger_predictions_usable", "challenger", problem, "fix the model or its features", waiting),
        _usable("champion_predictions_usable", "champion", champion_problem, "roll the champion back first", waiting),
        trial.not_worse(),
        trial.above_floor(),
        trial.beats_baseline(),
        trial.better_than_rolled_back(),
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
        metrics=trial.metrics((policy.metric, *metrics)),
        slices=slices,
        rows=len(test_data.label),
        window=None if window is None else (iso_utc(window[0]), iso_utc(window[1])),
        test_data_digest=test_data.digest,
        policy=policy,
        bindings=Bindings.model_validate(bindings or {}),
        measured=Measured(latency_ms_per_row=latency, artifact_mb=artifact_mb),
    )
    return unsealed.model_copy(update={"digest": unsealed.computed_digest()})


def enough_rows(task: Task, rows: int, labels: Scores | None, policy: GatePolicy, seen_rows: int = 0) -> Check:
    """Whether there are test rows enough to judge by, of the rarer class as well.

    Args:
        task: What is predicted.
        rows: How many there are.
        labels: Their labels as the task encodes them; None if it cannot.
        policy: Says how many it takes.
        seen_rows: How many more there were, which something that is compared has learned from.
    """
    name = "enough_rows"
    rarer = None if labels is None else rarer_class(task, labels)
    if rows >= policy.min_rows and rarer is not None and rarer < policy.min_class_rows:
        detail = (
            f"only {rarer} of {rows} test rows are of the rarer class, at least {policy.min_class_rows} needed: with "
            "so few, the metric says little; a longer evaluation window would have flipped it, such as the next "
            "training"
        )
        limit = policy.min_class_rows
        return Check(
            name=name, passed=False, inconclusive=True, value=rarer, limit=limit, comparison=">=", detail=detail
        )
    passed = rows >= policy.min_rows
    detail = f"{rows} test rows, at least {policy.min_rows} needed"
    if seen_rows:
        detail += f"; {seen_rows} more were left out, as what it is compared with has learned from them"
    if not passed:
        detail += f"; {policy.min_rows - rows} more labelled rows would have flipped it"
    return Check(
        name=name,
        passed=passed,
        inconclusive=not passed,
        value=rows,
        limit=policy.min_rows,
        comparison=">=",
        detail=detail,
    )


def _remembers(
    task: Task, challenger: Model, champion: Model | None, reference: TestData | None, policy: GatePolicy
) -> Check:
    """Whether a model that learned from new rows only is still as good on old ones (French 1999)."""
    name, metric = "remembers", policy.metric
    if reference is None or champion is None:
        return Check(name=name, passed=True, detail="not asked for, or the first of its lineage")
    labels, problem = task.encode(reference.label)
    rarer = None if labels is None else rarer_class(task, labels)
    if not problem and len(reference.label) < policy.min_slice_rows:
        problem = f"only {len(reference.label)} rows"
    if not problem and rarer is not None and rarer < policy.min_class_rows:
        problem = f"only {rarer} of {len(reference.label)} rows are of the rarer class"
    if problem:
        needed = f"at least {policy.min_slice_rows} (min_slice_rows)"
        needed += f", and {policy.min_class_rows} (min_class_rows) of the rarer class" if rarer is not None else ""
        detail = (
            f"the reference examples cannot be judged on: {problem}; expected {needed}: lengthen `reference` of the "
            "strategy"
        )
        return Check(name=name, passed=False, inconclusive=True, detail=detail)
    mine, theirs = (predictions_of(task, model, reference.features)[0] for model in (challenger, champion))
    trial = Trial(task, policy, labels, mine, theirs, has_champion=True)
    value, former = trial.value(mine), trial.value(theirs)
    if value is None or former is None:
        return Check(name=name, passed=False, detail=not_computed(metric))
    allowed = allowed_loss(metric, policy.remember_tolerance, former)
    loss = -advantage(metric, value, former)
    detail = (
        f"{metric} {value:.6g} on {len(reference.label)} older examples that no training has seen, the champion's "
        f"{former:.6g}; it may lose {allowed:.6g}"
    )
    passed = loss <= allowed
    if not passed:
        detail += f" and loses {loss:.4g}: it forgot; a training in full, or that much tolerance, would have flipped it"
    limit = former - allowed * (1 if higher_is_better(metric) else -1)
    comparison = ">=" if higher_is_better(metric) else "<="
    return Check(name=name, passed=passed, value=value, limit=limit, comparison=comparison, detail=detail)


def _usable(name: str, subject: str, problem: str | None, advice: str, inconclusive: bool = False) -> Check:
    if problem is None:
        return Check(name=name, passed=True, detail="usable")
    # Without a row, nothing was predicted that could be unusable.
    wanting = inconclusive and problem == NO_ROWS if subject != "labels" else inconclusive
    return Check(name=name, passed=False, inconclusive=wanting, detail=f"{subject}: {problem}; {advice}")


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
