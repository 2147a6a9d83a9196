"""Training one model: deterministic, measured, and profiled for the drift reports to come."""

import resource
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import ThreadpoolController

from ct_assets.core.artifact import artifact_digest, dump_model
from ct_assets.core.fitting import refuse_unable
from ct_assets.core.inputs import model_inputs
from ct_assets.core.lesson import Start, learned, lesson_of
from ct_assets.core.profile import Profile, bin_edges, profile
from ct_assets.core.spec import EstimatorSpec, ModelSpec
from ct_assets.core.strategies import Positions
from ct_assets.core.tasks import LABEL, Task, task_of


@dataclass(frozen=True)
class Fitted:
    """The rows that a training really learned from: all that its strategy, its balance and its start have left.

    Attributes:
        rows: How many.
        first: Earliest moment of prediction among them, ISO 8601; None without moments.
        last: Latest.
    """

    rows: int
    first: str | None
    last: str | None


@dataclass(frozen=True)
class Trained:
    """A challenger before it is registered.

    Attributes:
        payload: The serialized model.
        digest: SHA-256 of the payload.
        reference: Profile of the training inputs and labels, and of the predictions on the examples kept for the gate
            (predictions on training rows would look sharper than any that it will serve).
        predictions: Those, a row of the examples kept for the gate each.
        seconds: Duration of the fit.
        peak_mb: Largest resident memory of this process so far.
        fitted: What it has really learned from.
    """

    payload: bytes
    digest: str
    reference: Profile
    predictions: npt.NDArray[np.float64]
    seconds: float
    peak_mb: float
    fitted: Fitted


def train(
    spec: ModelSpec,
    examples: pd.DataFrame,
    holdout: pd.DataFrame,
    estimator: EstimatorSpec | None = None,
    start: Start | None = None,
) -> Trained:
    """Fit the spec's estimator as its strategy says; the same examples and start give the same bytes.

    Args:
        spec: The model.
        examples: Rows to train on, with `label`.
        holdout: Rows kept for the gate; only predicted.
        estimator: Another estimator than the spec's.
        start: The model that learns more, for the strategies that go on from one; None to begin with a new one.

    Raises:
        ValueError: There are no examples, none that are new, or of one class only; a weight is missing or negative; or
            the estimator cannot do what the strategy asks for, or does not predict what the task needs.
        ArtifactError: The model contains a type that nobody has reviewed.
    """
    if examples.empty:
        raise ValueError(
            f"there is nothing to train {spec.name} on: all {len(holdout)} matured examples are of the newest "
            f"{spec.evaluation_days} days, which the gate judges on; wait for more labels, or lower `evaluation_days`"
        )
    task = task_of(spec)
    if examples["label"].nunique() < task.fewest_values:
        raise ValueError(
            f"the {len(examples)} training examples of {spec.name} have one class only; expected {task.needs}: "
            "widen the training window or check the label's SQL"
        )
    chosen = estimator or spec.estimator
    model = task.prepare(chosen.build(spec.seed, spec.threads))
    if estimator is None:
        # What it is made of shows before it is fitted, and may save a long training. An estimator chosen by hand may
        # wrap another and hand that one back.
        dump_model(model, spec.trusted_types)
    inputs = model_inputs(spec, examples)
    with limited(spec.threads):
        # Choosing may fit a model as well.
        lesson = lesson_of(spec, examples, inputs, start)
        refuse_unable(spec.strategy, model, lesson.weights is not None)
        started = time.perf_counter()
        model = learned(spec, chosen, lesson, start)
        seconds = time.perf_counter() - started
        if not hasattr(model, task.method):
            raise ValueError(f"{chosen.path} has no {task.method}, which a {task.name} task needs; choose another one")
        predictions = predict(spec, model, holdout)
    payload = dump_model(model, spec.trusted_types)
    return Trained(
        payload=payload,
        digest=artifact_digest(payload),
        reference=_reference(task, inputs.iloc[lesson.known], examples["label"].iloc[lesson.known], predictions),
        predictions=predictions,
        seconds=seconds,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        fitted=_fitted(examples, lesson.rows),
    )


def limited(threads: int) -> AbstractContextManager[Any]:
    """Hold the numeric libraries to `threads` threads each within a `with` block.

    `threadpool_limits` looks for the loaded libraries every time, which takes longer than the prediction of a day.
    """
    return _libraries(len(sys.modules)).limit(limits=threads)


@lru_cache(maxsize=1)
def _libraries(_modules: int) -> ThreadpoolController:
    # A library that is loaded later comes with modules of its own.
    return ThreadpoolController()


def predict(spec: ModelSpec, model: Any, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    """The task's prediction for each row of `frame`, such as the probability of class 1: shape (n,) or (n, k).

    Raises:
        PredictionError: The model gives another shape than its task asks for.
    """
    with limited(spec.threads):
        return task_of(spec).predict(model, model_inputs(spec, frame))


def _fitted(examples: pd.DataFrame, rows: Positions) -> Fitted:
    if "event_timestamp" not in examples:
        return Fitted(len(rows), None, None)
    moments = examples["event_timestamp"].iloc[rows]
    return Fitted(len(rows), moments.min().isoformat(), moments.max().isoformat())


def _reference(task: Task, inputs: pd.DataFrame, labels: pd.Series, predictions: npt.NDArray[np.float64]) -> Profile:
    observed = inputs.assign(**{LABEL: task.watched_label(labels).to_numpy()})
    edges = bin_edges(observed)
    whole = profile(observed, edges)
    scores = task.frame(predictions)[task.watched]
    predicted = profile(scores, bin_edges(scores))
    return Profile(whole.rows, {**whole.columns, **predicted.columns}, whole.cap)
