"""A release in memory, ready to answer."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import ThreadpoolController

from ct_assets.core.artifact import ArtifactError
from ct_assets.core.inputs import model_inputs
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import Task, task_of
from ct_assets.lake.releases import Release, Releases
from ct_assets.resources.feast import service_versions
from ct_assets.serving.features import FeatureReader, Features
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
            OnDemandError: An on-demand view failed on the request values.
        """
        features = self.features.read(given, at)
        return model_inputs(self.spec, self._frame(features.columns)), features

    def answer(self, inputs: pd.DataFrame) -> npt.NDArray[np.float64]:
        """The task's prediction for each row of inputs."""
        self._limit_threads()
        return self.task.predict(self.model, inputs)

    def _frame(self, columns: Columns) -> pd.DataFrame:
        moments = [name for name, kind in self.spec.request.items() if kind == "timestamp" and name in self.spec.inputs]
        frame = pd.DataFrame({name: columns[name] for name in self.spec.columns}, copy=False)
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

    def predict(self, given: Columns, at: datetime) -> tuple[npt.NDArray[np.float64], Features, list[str | None]]:
        """Predict for some instances.

        Args:
            given: Entity keys and request values, one list a column.
            at: Moment that freshness is judged against.

        Returns:
            The task's prediction for each instance, the features behind it, and the segment whose own champion
            answered; None for the model's.

        Raises:
            OnDemandError: An on-demand view failed on the request values.
        """
        inputs, features = self.own.read(given, at)
        if not self.segments:
            return self.own.answer(inputs), features, [None] * len(inputs)
        found = [str(value) for value in inputs[self.own.spec.segment_by]]
        served_by = [value if value in self.segments else None for value in found]
        predictions = self.own.task.unknown(len(inputs))
        for segment in dict.fromkeys(served_by):
            rows = np.array([served == segment for served in served_by])
            live = self.own if segment is None else self.segments[segment]
            predictions[rows] = live.answer(inputs[rows])
        return predictions, features, served_by


def load_release(store: "FeatureStore", releases: Releases, spec: ModelSpec, version: str) -> Live:
    """Load a release after checking everything that lets it serve, and try it once.

    Raises:
        ArtifactError: It may not serve: another verdict, artifact or feature definition than the gate judged, or it
            cannot predict.
        FileNotFoundError: The version never became a release, or its verdict or artifact is gone.
        VerdictError: Its verdict was changed.
    """
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
