"""A release in memory, ready to answer."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import ThreadpoolController

from ct_assets.core.artifact import ArtifactError
from ct_assets.core.inputs import model_inputs
from ct_assets.core.spec import ModelSpec, prediction_names
from ct_assets.core.tasks import Task, task_of
from ct_assets.lake.releases import Release, Releases
from ct_assets.resources.feast import service_versions
from ct_assets.serving.features import FeatureReader, Features
from ct_assets.serving.one_by_one import one_by_one
from ct_assets.serving.schemas import Columns

if TYPE_CHECKING:
    from feast import FeatureStore

_limits = threading.local()


@dataclass(frozen=True)
class Live:
    """A release that may serve, with all it needs. It never changes, so a request can finish on it after a swap.

    Attributes:
        spec: The model.
        release: What serves.
        model: The fitted estimator.
        features: Reads its features.
        libraries: The thread pools of the libraries that it computes with.
        loaded_at: Wall clock of its loading, UTC.
    """

    spec: ModelSpec
    release: Release
    model: Any
    features: FeatureReader
    libraries: ThreadpoolController
    loaded_at: datetime

    @cached_property
    def task(self) -> Task:
        """What it predicts."""
        return task_of(self.spec)

    def read(self, given: Columns, at: datetime) -> tuple[pd.DataFrame, Features]:
        """What the model reads of some instances.

        Args:
            given: Entity keys and request values, one list a column.
            at: Moment that freshness is judged against.

        Raises:
            OnlineStoreUnavailable: The online store is gone or cannot be read.
        """
        features = self.features.read(given, at)
        return model_inputs(self.spec, self._frame(features.columns)), features

    def answer(self, inputs: pd.DataFrame) -> npt.NDArray[np.float64]:
        """The task's prediction for each row of inputs."""
        self._limit_threads()
        return self.task.predict(self.model, inputs)

    def _frame(self, columns: Columns) -> pd.DataFrame:
        moments = [name for name, kind in self.spec.request.items() if kind == "timestamp" and name in self.spec.inputs]
        # What stands for a category keeps its value: beside a missing one pandas would make a whole number a float.
        kinds = {name: object if kind == "categorical" else None for name, kind in self.spec.inputs.items()}
        values = {name: pd.Series(columns[name], dtype=kind) for name, kind in kinds.items()}
        frame = pd.DataFrame(values, copy=False)
        return frame.astype(dict.fromkeys(moments, "datetime64[us, UTC]")) if moments else frame

    def _limit_threads(self) -> None:
        """Hold this thread to the spec's share of cores, once: OpenMP keeps the limit by thread.

        `threadpool_limits` would look for the loaded libraries on every call, which takes longer than a prediction.
        """
        if getattr(_limits, "libraries", None) is not self.libraries:
            self.libraries.limit(limits=self.spec.threads)
            _limits.libraries = self.libraries


@dataclass(frozen=True)
class Serving:
    """All that answers for a model at a moment: its own champion, and those of its segments.

    Attributes:
        own: The model's champion, which serves every segment without one.
        segments: Segment to its champion.
    """

    own: Live
    segments: Mapping[str, Live]

    def predict(self, given: Columns, at: datetime) -> "Outcome":
        """Predict for some instances.

        Args:
            given: Entity keys and request values, one list a column.
            at: Timestamp that freshness is judged against.

        Raises:
            OnlineStoreUnavailable: The online store is gone, cannot be read or has no row at all of a view.
        """
        inputs, features = self.own.read(given, at)
        self.own.features.refuse_lost(features)
        found = [str(value) for value in inputs[self.own.spec.segment_by]] if self.segments else []
        served_by = [value if value in self.segments else None for value in found] or [None] * len(inputs)
        outcome = Outcome(self.own.task.unknown(len(inputs)), features, served_by)
        outcome.problems.update((row, Problem(text)) for row, text in features.problems.items())
        for row, lacking in features.lacking.items():
            self._without_features(outcome, row, lacking)
        for segment in dict.fromkeys(served_by):
            rows = [r for r in range(len(inputs)) if served_by[r] == segment and r not in outcome.settled]
            self._answer(outcome, self.own if segment is None else self.segments[segment], inputs, rows)
        return outcome

    def _without_features(self, outcome: "Outcome", row: int, lacking: str) -> None:
        fallback = self.own.spec.serving.fallback
        if row in outcome.problems:
            return
        if fallback is None:
            outcome.problems[row] = Problem(lacking, of_features=True)
            return
        names = prediction_names(self.own.spec)
        outcome.predictions[row] = [fallback[name] for name in names] if isinstance(fallback, dict) else fallback
        outcome.fallbacks[row] = lacking

    @staticmethod
    def _answer(outcome: "Outcome", live: Live, inputs: pd.DataFrame, rows: list[int]) -> None:
        """Predict for rows; a row that the model fails on, or has no usable answer for, is a problem of its own."""
        if not rows:
            return

        def compute(part: list[int]) -> list[npt.NDArray[np.float64]]:
            return list(live.answer(inputs if len(part) == len(inputs) else inputs.iloc[part]))

        found, failed = one_by_one(compute, rows)
        for row, error in failed.items():
            outcome.problems[row] = Problem(f"the model cannot predict for it ({type(error).__name__}: {error})")
        for row, prediction in found.items():
            outcome.predictions[row] = prediction
        usable = live.task.in_range(outcome.predictions)
        for row in found:
            if not usable[row]:
                problem = live.task.problem(outcome.predictions[[row]])
                outcome.problems[row] = Problem(f"the model has no usable prediction for it: {problem}")


@dataclass(frozen=True)
class Problem:
    """Why an instance has no prediction.

    Attributes:
        reason: In words.
        of_features: Whether it is what the online store lacks, and not what was asked or what the model makes of it.
    """

    reason: str
    of_features: bool = False


@dataclass
class Outcome:
    """What became of the instances of a request.

    Attributes:
        predictions: The task's prediction for each; not to be used where there is a problem.
        features: Those behind them.
        served_by: The segment whose own champion answered each; None for the model's.
        problems: By instance, why it has no prediction.
        fallbacks: By instance, why it got the declared fallback.
    """

    predictions: npt.NDArray[np.float64]
    features: Features
    served_by: list[str | None]
    problems: dict[int, Problem] = field(default_factory=dict)
    fallbacks: dict[int, str] = field(default_factory=dict)

    @property
    def settled(self) -> set[int]:
        """Instances that no model is asked about any more."""
        return {*self.problems, *self.fallbacks}


def load_release(store: "FeatureStore", releases: Releases, spec: ModelSpec, version: str) -> Live:
    """Load a release after checking everything that lets it serve, and try it once.

    Raises:
        ArtifactError: It may not serve: another verdict, artifact or feature definition than the gate judged, or it
            cannot predict.
        FileNotFoundError: The version never became a release, or its verdict or artifact is gone.
        VerdictError: Its verdict was changed.
    """
    # What was registered since this process read the registry.
    store.refresh_registry()
    release = releases.get(version)
    if (release.model, release.version) != (releases.model, version):
        raise ArtifactError(
            f"release file {version} of {releases.model} is about version {release.version} of {release.model}; "
            "expected the version that it is named after: restore it, or roll back to another release"
        )
    if release.feature_service != spec.feature_service:
        raise ArtifactError(
            f"version {version} of {releases.model} was trained on {release.feature_service}, its spec now says "
            f"{spec.feature_service}; train it again, or deploy the spec it was trained with"
        )
    _same_features(release, service_versions(store, release.feature_service))
    model = releases.load(release, spec)
    live = Live(spec, release, model, FeatureReader(store, spec), ThreadpoolController(), datetime.now(UTC))
    _try(live)
    return live


def _same_features(release: Release, now: dict[str, str]) -> None:
    before = release.feature_versions
    changed = sorted(view for view in before.keys() | now.keys() if before.get(view) != now.get(view))
    if changed:
        raise ArtifactError(
            f"views {', '.join(changed)} of {release.feature_service} are not those that version {release.version} of "
            f"{release.model} was trained on; train it again, or restore their definitions"
        )


def _try(live: Live) -> None:
    """Predict for an instance of which nothing is known: it must work, and it warms every cache on the way."""
    now = datetime.now(UTC)
    given: Columns = {key: [None] for key in live.spec.entities}
    given |= {key: [now if kind == "timestamp" else None] for key, kind in live.spec.request.items()}
    try:
        predictions = live.answer(live.read(given, now)[0])
    except Exception as error:
        raise ArtifactError(
            f"version {live.release.version} of {live.spec.name} cannot predict for an instance without known "
            f"features ({type(error).__name__}: {error}); expected a prediction: mend the estimator or "
            "the features and train again"
        ) from error
    if problem := live.task.problem(predictions):
        raise ArtifactError(
            f"version {live.release.version} of {live.spec.name} cannot serve its {live.task.name} task: for an "
            f"instance without known features, {problem}; train it again"
        )
