"""From a model's examples to what is fitted, and to the model that was: strategy, weights and balance put together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ct_assets.core.balance import PriorCorrected, balanced
from ct_assets.core.fitting import fit, resume
from ct_assets.core.inner_split import RowTimes, TimeOrderedSplit
from ct_assets.core.spec import EstimatorSpec, ModelSpec
from ct_assets.core.strategies import Floats, Positions, choose
from ct_assets.core.tasks import task_of

_AHEAD = TimeOrderedSplit(folds=2, share=0.2)
"""The newest examples, to which the probabilities of a balanced training are matched."""


@dataclass(frozen=True)
class Start:
    """What a training goes on from.

    Attributes:
        model: A fitted model, held by nobody else.
        unseen: Which of the examples are new to it, shape (n,).
    """

    model: Any
    unseen: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lesson:
    """What is fitted.

    Attributes:
        inputs: What the model reads, shape (n, m).
        labels: Shape (n,).
        weights: How much each example counts in the fit, with its class's weight; None when all count the same.
        own_weights: The same without those of the classes.
        correction: By how much each class is over-represented; None when none is.
        known: Positions of the examples that stand for all that the model knows then.
        rows: Positions of the examples that are fitted.
        times: When each of them was predicted for and mature, for what is split within the fit.
    """

    inputs: pd.DataFrame
    labels: pd.Series
    weights: Floats | None
    own_weights: Floats | None
    correction: Mapping[Any, float] | None
    known: Positions
    rows: Positions
    times: RowTimes


def lesson_of(spec: ModelSpec, examples: pd.DataFrame, inputs: pd.DataFrame, start: Start | None) -> Lesson:
    """Choose, weigh and balance examples as the spec says; the same examples give the same lesson.

    Raises:
        ValueError: None of the examples is new, or a weight is missing or negative.
    """
    available: Positions = np.arange(len(examples)) if start is None else np.flatnonzero(start.unseen)
    if not len(available):
        raise ValueError(
            f"{spec.name} has nothing new to learn: its champion has seen all {len(examples)} examples; wait for more "
            "labels"
        )
    moments = examples["event_timestamp"].iloc[available] if "event_timestamp" in examples else None
    labels = examples["label"]
    chosen = choose(spec.strategy, inputs.iloc[available], labels.iloc[available], moments, spec.seed)
    rows, own = available[chosen.rows], chosen.weights
    task = task_of(spec)
    if start is None and labels.iloc[rows].nunique() < task.fewest_values:
        raise ValueError(
            f"the {len(rows)} examples that `strategy` chooses of {len(examples)} for {spec.name} have one class only; "
            f"expected {task.needs}: widen the window or the sample, or wait for more labels"
        )
    known = rows if start is None else np.arange(len(examples))
    if spec.weight is not None:
        own = _product(_given_weights(spec, examples)[rows], own)
    times = RowTimes.of(examples, spec.label.reach)
    balance = balanced(spec.strategy, labels.iloc[rows], own, spec.seed, _correction(start))
    if balance is None:
        return Lesson(inputs.iloc[rows], labels.iloc[rows], own, own, None, known, rows, times.take(rows))
    rows, own = rows[balance.rows], None if own is None else own[balance.rows]
    weights = own
    if balance.class_weights:
        weights = _product(labels.iloc[rows].map(dict(balance.class_weights)).to_numpy(dtype=np.float64), own)
    return Lesson(inputs.iloc[rows], labels.iloc[rows], weights, own, balance.correction, known, rows, times.take(rows))


def learned(spec: ModelSpec, estimator: EstimatorSpec, lesson: Lesson, start: Start | None) -> Any:
    """Fit a new estimator, or let that of `start` learn more.

    Returns:
        The fitted model; of a balanced training a `PriorCorrected` one.
    """
    labels = task_of(spec).targets(lesson.labels)
    if start is not None:
        former = start.model.estimator if isinstance(start.model, PriorCorrected) else start.model
        model = resume(spec.strategy, former, lesson.inputs, labels, lesson.weights)
        if lesson.correction is None:
            return model
        return PriorCorrected(model, start.model.trained, start.model.weights)
    # An estimator that wraps another may hand back the wrapped one, so what counts is what `fit` returns.
    model = fit(_new(spec, estimator), lesson.inputs, labels, lesson.weights, lesson.times)
    if lesson.correction is None:
        return model
    corrected = PriorCorrected(model, np.array([lesson.correction[name] for name in model.classes_.tolist()]))
    if spec.strategy.balance != "weights" or lesson.labels.value_counts().min() < 2:
        return corrected
    own = np.ones(len(labels)) if lesson.own_weights is None else lesson.own_weights
    raw, tested = _ahead(spec, estimator, lesson)
    if not len(tested):
        return corrected
    shares = pd.Series(own[tested]).groupby(np.asarray(labels)[tested]).sum() / own[tested].sum()
    found = raw, shares.reindex(model.classes_).to_numpy(dtype=np.float64), own[tested]
    # A match to what differs by chance would add noise to a model that is right.
    return corrected if corrected.agrees(*found) else corrected.matched(*found)


def _new(spec: ModelSpec, estimator: EstimatorSpec) -> Any:
    return task_of(spec).prepare(estimator.build(spec.seed, spec.threads))


def _ahead(spec: ModelSpec, estimator: EstimatorSpec, lesson: Lesson) -> tuple[Floats, Positions]:
    """Probabilities of the newer examples by models of those that were mature before, and which examples these are.

    Folds that lack a class on either side are left out: there is nothing to match.
    """
    raw, tested = [], []
    classes = lesson.labels.nunique()
    for _, earlier, newer in _AHEAD.of(lesson.times):
        if any(lesson.labels.iloc[rows].nunique() < classes for rows in (earlier, newer)):
            continue
        weights = None if lesson.weights is None else lesson.weights[earlier]
        targets = task_of(spec).targets(lesson.labels.iloc[earlier])
        fitted = fit(_new(spec, estimator), lesson.inputs.iloc[earlier], targets, weights, lesson.times.take(earlier))
        raw.append(fitted.predict_proba(lesson.inputs.iloc[newer]))
        tested.append(newer)
    if not tested:
        return np.empty((0, classes)), np.empty(0, dtype=np.intp)
    return np.concatenate(raw), np.concatenate(tested)


def _correction(start: Start | None) -> dict[Any, float] | None:
    if start is None or not isinstance(start.model, PriorCorrected):
        return None
    return dict(zip(start.model.classes_.tolist(), start.model.trained.tolist(), strict=True))


def _product(weights: Floats, others: Floats | None) -> Floats:
    return weights if others is None else weights * others


def _given_weights(spec: ModelSpec, examples: pd.DataFrame) -> Floats:
    if spec.weight not in examples:
        raise ValueError(
            f"weight: the examples of {spec.name} have no column {spec.weight!r}; expected one of the events' SQL or "
            "an input"
        )
    weights = pd.to_numeric(examples[spec.weight], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    broken = int((~np.isfinite(weights) | (weights < 0)).sum())
    if broken or not weights.sum() > 0:
        raise ValueError(
            f"weight: {broken} of {len(weights)} examples of {spec.name} have no number from 0 up in {spec.weight!r}, "
            f"and all add up to {weights.sum():g}; expected a weight for each, and not all 0"
        )
    return weights
