"""What a team says about its model, in one frozen object.

Everything the platform does for a model (assets, checks, policy, gate, server) is derived from its `ModelSpec`; no
other module knows what the model is about.
"""

from datetime import timedelta
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ct_assets.core.drift import DriftLimits
from ct_assets.core.estimators import build_estimator
from ct_assets.core.gate import GatePolicy
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.rhythm import moments_of, refuse_unknown
from ct_assets.core.segments import SERVED_BY
from ct_assets.core.strategies import StrategySpec
from ct_assets.core.strict import Duration, Strict, unknown
from ct_assets.core.tasks import LABEL, TASKS, Task, task_of, with_metric_of

MODEL_NAME = r"^[a-z][a-z0-9_]*$"

_TAKEN = (LABEL, SERVED_BY, "event_timestamp", "known_at", "matures_at", "model_version", "features_digest")
"""Columns of scored events, outcomes and examples."""


class EventSpec(Strict):
    """The events a model predicts for, each at the moment its prediction is due."""

    source: str = Field(description="Source whose rows announce the events.")
    sql: str = Field(
        description="DuckDB SQL over the source; yields the id column, `event_timestamp` (the moment of prediction, "
        "UTC), every entity column and every request-time input. It is run over the rows that were known at that "
        "moment. Of rows with one id the newest counts: that of the greatest `known_at`, then of the latest "
        "`event_timestamp`."
    )
    id_column: str = Field(description="Column that names one event.")
    lookback_days: int = Field(1, ge=0, description="How many arrival days before its prediction an event may arrive.")
    every: str | None = Field(
        None,
        description="When predictions are due, as a pandas offset such as `W-MON` or `MS` (at midnight, UTC), "
        "multiples such as `2W-MON` counted from 1970 on: other days are not searched for events. At any moment when "
        "left out.",
    )

    @field_validator("every")
    @classmethod
    def _is_an_offset(cls, every: str | None) -> str | None:
        if every is not None:
            refuse_unknown(every)
        return every

    def due(self, start: pd.Timestamp, end: pd.Timestamp) -> pd.DatetimeIndex:
        """The moments from `start` to `end` (excluded) at which predictions are due, where they have a rhythm.

        Multiples such as `2W-MON` or `36h` are counted from 1970 on, so that every window gives the same moments.
        """
        return moments_of(str(self.every), start, end)


class LabelSpec(Strict):
    """What became of the events, and when that was known.

    Exactly one of `delay`, `horizon` and `matures_at` says when an event is mature: when its label is known if it ever
    is. Training set, gate and performance look at mature events only, whatever has become known before.
    """

    source: str = Field(description="Source whose rows bring the labels.")
    sql: str = Field(
        description="DuckDB SQL over the source; yields the id column, `label` and `known_at` (UTC). With a horizon it "
        "yields no `known_at`, and reads the table `events`: the columns of the events' SQL and `horizon_ends`, up to "
        "which it may look; an event that it leaves out has no label."
    )
    delay: Duration | None = Field(
        None, description="By when a label has usually arrived, counted from the prediction."
    )
    horizon: Duration | None = Field(
        None,
        description="How long after the prediction something has to happen to count, such as '30 days': all labels of "
        "that moment, positive or not, become known when it has passed.",
    )
    matures_at: str | None = Field(
        None,
        description="Column of the events' SQL with the moment (UTC) from which on the event's label is known; missing "
        "for an event that is to be left out.",
    )
    absent: int | float | str | None = Field(
        None,
        description="Label of a mature event that none has come for, such as 0 for no complaint; when it is not given, "
        "such events are left out, and counted.",
    )
    max_unlabelled: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Largest share of mature events without a label, or with one that came after maturity; with "
        "`absent`, of labels that came after it. Beyond it nothing is trained: the events whose label is known fast "
        "are no picture of all.",
    )

    @model_validator(mode="after")
    def _matures_in_one_way(self) -> Self:
        given = [name for name in ("delay", "horizon", "matures_at") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'none of delay, horizon and matures_at'} given; expected exactly one of "
                "delay, horizon and matures_at"
            )
        if self.reach is not None and self.reach < timedelta(0):
            raise ValueError(f"{given[0]} {self.reach} is negative; a label is known after its prediction")
        if self.horizon == timedelta(0):
            raise ValueError("horizon is 0, in which nothing can happen; expected such as '30 days'")
        if self.horizon is not None and self.source == "events":
            raise ValueError("source 'events' has the name of the table that a horizon's SQL reads; rename the source")
        return self

    @property
    def reach(self) -> timedelta | None:
        """Time from a prediction to its maturity; None where each event says so itself."""
        return self.delay if self.delay is not None else self.horizon

    def told(self) -> str:
        """When labels are known, in words."""
        if self.horizon is not None:
            return f"labels are known after a horizon of {self.horizon}"
        return (
            f"labels take {self.delay}" if self.delay is not None else f"labels are known from {self.matures_at!r} on"
        )


class EstimatorSpec(Strict):
    """An estimator by import path, so that a spec can be read, compared and stored."""

    path: str = Field(
        description="Import path of a scikit-learn compatible class, of scikit-learn, LightGBM or a package that "
        "pyproject.toml lists, or of this project's own class or factory."
    )
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="Its keyword arguments; an estimator among them is a mapping of `path` and `params` again.",
    )

    def build(self, seed: int | None = None, threads: int | None = None) -> Any:
        """Return a new, unfitted estimator, with every estimator that it is made of.

        Args:
            seed: For every `random_state`, also of a pipeline's steps, that `params` leave open.
            threads: For LightGBM, whose sums depend on it.

        Raises:
            ValueError: A path names nothing that can be imported, or what it names does not take these parameters.
        """
        return build_estimator(self.path, self.params, seed, threads)


class BaselineSpec(Strict):
    """The naive model that every evaluation scores as well."""

    kind: Literal["prior", "input"] = Field(
        "prior",
        description="`prior`: the same for every row, from the labels trained on. `input`: from one input column, such "
        "as the last value known, or that of a season ago.",
    )
    column: str | None = Field(None, description="The input that `input` reads.")

    @model_validator(mode="after")
    def _names_its_column(self) -> Self:
        if (self.kind == "input") != (self.column is not None):
            problem = "needs a column" if self.kind == "input" else f"reads no column, but names {self.column!r}"
            raise ValueError(f"a baseline of kind {self.kind!r} {problem}; expected `kind: input` with a `column`")
        return self


class SegmentRules(Strict):
    """When a segment gets a model of its own; the pooled model, of all examples, serves it until then."""

    min_labels: int = Field(2000, ge=1, description="Known labels of a segment from which on it is trained by itself.")
    most: int = Field(
        200, ge=1, description="Largest number of such segments; of more, a check fails and the largest ones count."
    )


class ServingSpec(Strict):
    """What an instance needs for the server to predict for it, and what it gets without."""

    required_views: tuple[str, ...] = Field(
        (), description="Feature views without a fresh row of which an instance gets no prediction."
    )
    min_fresh: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Least share of the model's inputs from stored features that has to be fresh for an instance: "
        "found online, and not older than the view's ttl. 0 predicts even from none.",
    )
    fallback: float | dict[str, float] | None = Field(
        None,
        description="What such an instance gets instead of an error, marked as the fallback: a number (the probability "
        "of a binary task, the value of a regression), or one for each class or level by its name.",
    )


class FreshnessRules(Strict):
    """From which age on what the platform makes for a model is stale: shown, and evaluated by the daemon."""

    scored: Duration = Field(timedelta(days=2), description="Since events were last scored.")
    evaluation: Duration = Field(timedelta(days=60), description="Since a challenger was last judged.")
    champion: Duration = Field(
        timedelta(days=60),
        description="Since the champion last changed; `policy.max_champion_age_days` makes a retrain due by its age.",
    )

    @model_validator(mode="after")
    def _is_a_while(self) -> Self:
        for name in type(self).model_fields:
            if getattr(self, name) < timedelta(minutes=1):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a minute or more")
        return self


class ModelSpec(Strict):
    """One model: its task, data, estimator, and the rules by which it is retrained and promoted."""

    name: str = Field(pattern=MODEL_NAME, description="Prefix of the model's assets, registered model and URL.")
    owner: str = Field(description="`team:name` or an e-mail address.")
    description: str = Field(description="One sentence for the asset catalog.")
    tier: Literal["critical", "standard", "experimental"] = Field(
        "standard", description="How much depends on it; a tag of its assets, to filter and to alert by."
    )
    task: Literal["binary", "multiclass", "regression", "quantile"] = Field(
        "binary", description="What kind of label it predicts: 0 or 1, one of `classes`, or a number."
    )
    classes: tuple[str, ...] = Field(
        (),
        validate_default=True,
        description="Names of the classes of a multiclass task, in order; at least 2.",
    )
    quantiles: tuple[float, ...] = Field(
        (), validate_default=True, description="Levels that a quantile task predicts, ascending, each in (0, 1)."
    )
    events: EventSpec
    label: LabelSpec
    entities: tuple[str, ...] = Field(description="Join keys that the feature service needs, as columns of the events.")
    feature_service: str = Field(description="Feast feature service that the model reads.")
    inputs: dict[str, Literal["numeric", "categorical"]] = Field(
        min_length=1,
        description="The model's columns in its own order: features of the service, entity columns or request values.",
    )
    request: dict[str, Literal["timestamp", "string", "number"]] = Field(
        default_factory=dict, description="Values that a caller sends with the entity keys."
    )
    metrics: tuple[str, ...] = Field(
        default_factory=lambda fields: TASKS[fields["task"]].shown,
        description="Figures that the evaluation asset shows and charts; when left out, those usual for the task.",
    )
    baseline: BaselineSpec = Field(BaselineSpec(), description="The naive model that it is compared with.")
    slices: tuple[str, ...] = Field((), description="Input columns by which the evaluation is broken down.")
    estimator: EstimatorSpec = Field(description="What is trained.")
    strategy: StrategySpec = Field(StrategySpec(), description="Which examples a training learns from, and from where.")
    weight: str | None = Field(
        None,
        description="Column of the events' SQL, or input, that says how much an example counts in a training, from 0 "
        "up. Metrics and gate count every example once.",
    )
    seed: int = Field(0, ge=0, description="For every `random_state` that the estimator's parameters leave open.")
    threads: int = Field(1, ge=1, description="Threads of a training; fixed, because sums depend on it.")
    trusted_types: tuple[str, ...] = Field(
        (),
        description="Types, reviewed by hand, that a stored model may contain beyond those that skops or the platform "
        "know to be safe.",
    )
    segment_by: str | None = Field(
        None, description="Categorical input by whose values the model is split: one champion for each."
    )
    segments: SegmentRules = Field(SegmentRules(), description="When a segment gets a model of its own.")
    evaluation_days: int = Field(
        7,
        ge=1,
        description="Days of newest matured labels kept from training for the gate. Examples whose label became known "
        "after the first prediction of these days are not trained on either. After an inconclusive verdict they become "
        "as many as a verdict takes.",
    )
    drift_window_days: int = Field(7, ge=1, description="Days of scored events that a drift report looks at.")
    policy: RetrainPolicy = Field(description="When it is retrained.")
    gate: GatePolicy = Field(
        GatePolicy(), validate_default=True, description="What a challenger has to hold to be promoted."
    )
    drift: DriftLimits = Field(DriftLimits(), description="From where on a column has drifted.")
    serving: ServingSpec = Field(ServingSpec(), description="When the server predicts, and what it gives otherwise.")
    freshness: FreshnessRules = Field(FreshnessRules(), description="From which age on what is made is stale.")

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, metrics: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known = _task(info).metrics
        for name in metrics:
            if name not in known:
                raise ValueError(unknown("metric", name, known))
        return metrics

    @field_validator("gate")
    @classmethod
    def _gates_on_the_task(cls, gate: GatePolicy, info: ValidationInfo) -> GatePolicy:
        return with_metric_of(_task(info), gate, "metric")

    @field_validator("policy")
    @classmethod
    def _watches_the_task(cls, policy: RetrainPolicy, info: ValidationInfo) -> RetrainPolicy:
        return with_metric_of(_task(info), policy, "performance_metric")

    @field_validator("classes")
    @classmethod
    def _distinct_classes(cls, classes: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        _only_of("multiclass", classes, info, "at least two names of classes", len(classes) >= 2)
        folded = [name.casefold() for name in classes]
        if twice := [name for name in classes if folded.count(name.casefold()) > 1]:
            raise ValueError(
                f"{twice[0]!r} is there twice; expected names that differ by more than upper and lower case"
            )
        if odd := [name for name in classes if not name.strip() or '"' in name or not name.isprintable()]:
            raise ValueError(f"{odd[0]!r} is no name of a class; expected printable text without double quotes")
        return classes

    @field_validator("quantiles")
    @classmethod
    def _ascending_quantiles(cls, quantiles: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        _only_of("quantile", quantiles, info, "at least one level, such as [0.1, 0.5, 0.9]", len(quantiles) >= 1)
        if not all(0 < low < high < 1 for low, high in zip((1e-9, *quantiles), (*quantiles, 1 - 1e-9), strict=True)):
            raise ValueError(f"levels are {list(quantiles)}; expected ascending ones between 0 and 1")
        if len(quantiles) != len({f"{level:g}" for level in quantiles}):
            raise ValueError(f"levels are {list(quantiles)}; expected ones that differ in their first six digits")
        return quantiles

    @model_validator(mode="after")
    def _names_what_is_there(self) -> Self:
        """Fields that name other fields."""
        for name in self.slices:
            if name not in self.inputs:
                raise ValueError(f"slices: {unknown('input', name, self.inputs)}")
        if self.segment_by is not None and self.inputs.get(self.segment_by) != "categorical":
            categorical = [name for name, kind in self.inputs.items() if kind == "categorical"]
            raise ValueError(f"segment_by: {unknown('categorical input', self.segment_by, categorical)}")
        if (by := self.strategy.by) is not None and by not in self.inputs:
            raise ValueError(f"strategy.by: {unknown('input', by, self.inputs)}")
        if self.weight is not None and self.inputs.get(self.weight) == "categorical":
            raise ValueError(f"weight: input {self.weight!r} is categorical; expected numbers from 0 up")
        self.strategy.refuse_task(self.task)
        absent = self.label.absent
        if absent is not None and (found := task_of(self).encode(pd.Series([absent])))[0] is None:
            raise ValueError(f"label: absent is {absent!r}: {found[1]}")
        if both := sorted(set(self.entities) & set(self.request)):
            raise ValueError(f"request: {both[0]!r} is an entity already; a caller sends it once")
        if self.segment_by is None and self.segments != SegmentRules():
            raise ValueError("segments: there are none without `segment_by`; name an input there, or leave them out")
        stored = {name.casefold() for name in (*task_of(self).columns, *_TAKEN)}
        if self.events.id_column.casefold() in stored:
            raise ValueError(
                f"events.id_column: {self.events.id_column!r} is a column that is stored beside the id; give the id "
                "another name in `events.sql`"
            )
        taken = {*stored, self.events.id_column.casefold()}
        if both := sorted(name for name in self.inputs if name.casefold() in taken):
            raise ValueError(
                f"inputs: {both[0]!r} is a column that is stored beside the inputs; give the input another name"
            )
        return self

    @model_validator(mode="after")
    def _falls_back_on_a_prediction(self) -> Self:
        fallback, names = self.serving.fallback, prediction_names(self)
        if fallback is None:
            return self
        if isinstance(fallback, dict) != bool(names):
            expected = f"one number for each of {', '.join(names)}" if names else "a number"
            raise ValueError(f"serving.fallback is {fallback!r}; expected {expected}")
        if isinstance(fallback, dict) and sorted(fallback) != sorted(names):
            raise ValueError(f"serving.fallback has {', '.join(fallback)}; expected exactly {', '.join(names)}")
        values = list(fallback.values()) if isinstance(fallback, dict) else [fallback]
        array = np.array([[fallback[name] for name in names]] if isinstance(fallback, dict) else [fallback])
        if problem := task_of(self).problem(array):
            raise ValueError(f"serving.fallback is {values}, which is no prediction of a {self.task} task: {problem}")
        return self

    @model_validator(mode="after")
    def _reads_its_baseline(self) -> Self:
        column = self.baseline.column
        if column is not None and column not in self.inputs:
            raise ValueError(f"baseline: {unknown('input', column, self.inputs)}")
        if column is not None and self.task in ("regression", "quantile") and self.inputs[column] != "numeric":
            raise ValueError(f"baseline: input {column!r} is categorical; a {self.task} task needs a numeric one")
        return self

    @property
    def columns(self) -> list[str]:
        """The model's input columns in its own order."""
        return list(self.inputs)

    @property
    def categorical(self) -> list[str]:
        """The input columns that hold categories."""
        return [name for name, kind in self.inputs.items() if kind == "categorical"]


def prediction_names(spec: ModelSpec) -> list[str]:
    """What the numbers of one prediction are called, in the task's order; empty where it is a single one."""
    return list(spec.classes) or [f"{level:g}" for level in spec.quantiles]


def _task(info: ValidationInfo) -> type[Task]:
    """The kind of task of a spec that is being read; that of the default while its own is wrong."""
    return TASKS[info.data.get("task", "binary")]


def _only_of(task: str, given: tuple[Any, ...], info: ValidationInfo, expected: str, enough: bool) -> None:
    """Refuse what belongs to another kind of task, and too little of what belongs to this one."""
    mine = info.data.get("task")
    if mine == task and not enough:
        raise ValueError(f"a {task} task has {list(given) or 'none'}; expected {expected}")
    if mine is not None and mine != task and given:
        raise ValueError(f"a {mine} task has none; expected them with `task: {task}` only")
