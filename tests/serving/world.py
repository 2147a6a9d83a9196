"""A small world for the server: the real feature repository with a few online rows, and models that passed the gate."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import uvicorn
from feast import FeatureService, FeatureStore, Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, UnixTimestamp
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from ct_assets.core.artifact import load_model
from ct_assets.core.gate import GatePolicy, TestData, Verdict, validate_new_model
from ct_assets.core.inputs import model_inputs
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.segments import Line
from ct_assets.core.spec import EstimatorSpec, EventSpec, LabelSpec, ModelSpec
from ct_assets.core.tasks import task_of
from ct_assets.core.training import Trained, train
from ct_assets.lake.releases import Release, Releases
from ct_assets.resources.feast import feature_store, service_versions
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import CHAMPION, RegistryResource
from ct_assets.serving.app import create_app
from ct_assets.serving.bodies import server_config
from feature_repo.views import network_delays, plane, weather

AT = datetime(2013, 3, 1, 12, tzinfo=UTC)
SERVICE = "serving_test_v1"
TAILS = [f"N{i}" for i in range(20)]
ORIGINS = ["EWR", "JFK", "LGA"]

_clock_request = RequestSource(name="clock_request", schema=[Field(name="sched_dep", dtype=UnixTimestamp)])


@on_demand_feature_view(
    sources=[weather, _clock_request],
    schema=[Field(name="departure_hour", dtype=Int64), Field(name="celsius", dtype=Float64)],
    mode="python",
)
def serving_test_clock(inputs):
    return {
        "departure_hour": [moment.hour for moment in inputs["sched_dep"]],
        "celsius": [None if f is None else (f - 32) * 5 / 9 for f in inputs["temperature"]],
    }


def classifier(max_iter: int) -> Pipeline:
    return _of_all_columns(HistGradientBoostingClassifier(max_iter=max_iter, random_state=0))


def regressor(max_iter: int, **params) -> Pipeline:
    return _of_all_columns(HistGradientBoostingRegressor(max_iter=max_iter, random_state=0, **params))


def _of_all_columns(trees) -> Pipeline:
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer((encode, ["carrier"]), remainder="passthrough")
    return make_pipeline(columns, trees)


def spec_named(name: str, **changes) -> ModelSpec:
    content = {
        "name": name,
        "owner": "team:test",
        "description": "A model of the tests",
        "events": EventSpec(source="flights", sql="SELECT 1", id_column="flight_id"),
        "label": LabelSpec(source="flight_outcomes", sql="SELECT 1", delay=timedelta(days=1)),
        "entities": ("carrier", "network", "origin", "tailnum"),
        "feature_service": SERVICE,
        "inputs": {
            "departure_hour": "numeric",
            "carrier": "categorical",
            "seats": "numeric",
            "network_mean_3h": "numeric",
            "celsius": "numeric",
            "humidity": "numeric",
            "year_built": "numeric",
            "fare": "numeric",
        },
        "request": {"sched_dep": "timestamp", "fare": "number"},
        "estimator": EstimatorSpec(path="world.classifier", params={"max_iter": 5}),
        "trusted_types": (
            "sklearn.compose._column_transformer._RemainderColsList",
            "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        ),
        "policy": RetrainPolicy(),
        "gate": GatePolicy(min_rows=100),
    }
    return ModelSpec(**content | changes)


def examples(rows: int, seed: int, task: str = "binary") -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "departure_hour": rng.integers(0, 24, rows),
            "carrier": rng.choice(["AA", "UA", "DL"], rows),
            "seats": rng.choice([50.0, 150.0, np.nan], rows),
            "network_mean_3h": rng.normal(10, 5, rows),
            "celsius": rng.normal(10, 10, rows),
            "humidity": rng.choice([40.0, 60.0, np.nan], rows),
            "year_built": rng.integers(1980, 2013, rows).astype(float),
            "fare": rng.uniform(50, 500, rows),
        }
    )
    signal = (
        (frame["celsius"] - 10) / 10
        + (frame["network_mean_3h"] - 10) / 5
        + (frame["fare"] - 275) / 130
        + (frame["departure_hour"] - 12) / 7
        + (2000 - frame["year_built"]) / 10
        + (frame["seats"].fillna(100) - 100) / 50
        + (frame["carrier"] == "UA")
    )
    value = signal + rng.normal(0, 1, rows)
    if task == "binary":
        return frame.assign(label=(value > 0.3).astype("int8"))
    if task == "multiclass":
        return frame.assign(label=np.array(["soon", "late", "never"], dtype=object)[np.digitize(value, [-1, 1])])
    return frame.assign(label=value)


class World:
    """One home with a registry, a feature store and whatever the tests promote there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lake = LakeResource(home=str(home))
        self.ledger = self.lake.ledger()
        self.registry = RegistryResource(home=self.lake.home)
        self._trained: dict[tuple[str, int], Trained] = {}
        self.apply_service(SERVICE)
        self.write("network_delays", {"network": ["all"]}, network_mean_3h=[9.5], network_late_3h=[0.2])
        self.write("plane", {"tailnum": TAILS}, year_built=[1990.0 + i for i in range(20)], seats=[50.0, 150.0] * 10)
        self.write("weather", {"origin": ORIGINS}, temperature=[30.0, 50.0, 70.0], humidity=[40.0, 55.0, 60.0])

    @cached_property
    def store(self) -> FeatureStore:
        return feature_store(self.home)

    def apply_service(self, name: str, without: tuple[str, ...] = ()) -> None:
        views = [plane[[f.name for f in plane.features if f.name not in without]], network_delays, weather]
        self.store.apply([serving_test_clock, FeatureService(name=name, features=[*views, serving_test_clock])])

    def write(self, view: str, keys: dict[str, list], at: datetime = AT, **features: list) -> None:
        frame = pd.DataFrame({**keys, **features, "event_timestamp": pd.Timestamp(at), "created": pd.Timestamp(at)})
        known = {f.name for f in self.store.get_feature_view(view).features}
        for absent in known - set(frame.columns):
            frame[absent] = None
        self.store.write_to_online_store(view, frame)

    def releases(self, name: str, segment: str | None = None) -> Releases:
        return Releases(self.home, Line(name, segment), self.ledger)

    def trained(self, max_iter: int, spec: ModelSpec | None = None) -> Trained:
        spec = spec or spec_named("trained")
        key = (spec.task, max_iter)
        if key not in self._trained:
            estimator = EstimatorSpec(path=spec.estimator.path, params={**spec.estimator.params, "max_iter": max_iter})
            learned, held_out = examples(3000, 1, spec.task), examples(1000, 2, spec.task)
            self._trained[key] = train(spec, learned, held_out, estimator)
        return self._trained[key]

    def model(self, max_iter: int, spec: ModelSpec | None = None):
        trained = self.trained(max_iter, spec)
        return load_model(trained.payload, trained.digest, spec_named("trained").trusted_types)

    def judge(self, spec: ModelSpec, max_iter: int, **policy) -> Verdict:
        bindings = {
            "model": spec.name,
            "artifact_digest": self.trained(max_iter, spec).digest,
            "training_set_digest": f"training-set-{max_iter}",
            "feature_versions": service_versions(self.store, spec.feature_service),
        }
        held_out = examples(1000, 2, spec.task)
        data = TestData(model_inputs(spec, held_out), held_out["label"])
        gate, task = GatePolicy(**{"min_rows": 100, **policy}), task_of(spec)
        return validate_new_model(self.model(max_iter, spec), None, data, gate, task=task, bindings=bindings)

    def release(
        self,
        spec: ModelSpec,
        max_iter: int,
        *,
        verdict: Verdict | None = None,
        recorded: bool = True,
        segment: str | None = None,
    ) -> Release:
        """Register, judge and write a release, as the pipeline does before it moves the alias."""
        line = Line(spec.name, segment)
        trained, verdict = self.trained(max_iter, spec), verdict or self.judge(spec, max_iter)
        files = {"model.skops": trained.payload, "reference.json": b"{}"}
        version = self.registry.register(line.registered, files, {"training": f"{line.name}-{max_iter}"}, {}, {})
        release = Release(
            model=line.name,
            version=version.version,
            artifact=version.artifact,
            artifact_digest=trained.digest,
            feature_service=spec.feature_service,
            feature_versions=verdict.bindings.feature_versions,
            training_set=f"training-set-{max_iter}",
            verdict=verdict.digest,
            as_of="2013-03-01T00:00:00+00:00",
        )
        releases = self.releases(spec.name, segment)
        releases.save_verdict(verdict)
        releases.save(release)
        if recorded:
            evidence = {"version": version.version, "verdict": verdict.digest, "passed": verdict.passed}
            self.ledger.append("verdict", line.name, AT, evidence)
        return release

    def point(self, release: Release, kind: str = "promotion") -> None:
        line = Line(*release.model.split("/", 1))
        moves = self.releases(line.model, line.segment).moves()
        previous = moves[-1]["version"] if moves else None
        self.ledger.append(kind, line.name, AT, {"version": release.version, "previous": previous})
        self.registry.point(line.registered, CHAMPION, release.version)

    def promote(self, spec: ModelSpec, max_iter: int, segment: str | None = None) -> Release:
        release = self.release(spec, max_iter, segment=segment)
        self.point(release)
        return release

    @contextmanager
    def server(self, *specs: ModelSpec, ready: bool = True, **limits) -> Iterator[httpx.Client]:
        """A real server on a free port of the loopback interface."""
        app = create_app({spec.name: spec for spec in specs}, self.home, poll_seconds=0.05, **limits)
        server = uvicorn.Server(server_config(app, limits.get("request_seconds", 30.0), log_level="warning"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                wait_until(lambda: server.started)
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
                    if ready:
                        wait_until(lambda: client.get("/readyz").status_code == 200)
                    yield client
            finally:
                server.should_exit = True
                thread.join()


def wait_until(holds, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def instance(**changes) -> dict:
    given = {"carrier": "UA", "network": "all", "origin": "JFK", "tailnum": "N1"}
    return {**given, "sched_dep": "2013-03-01T15:30:00Z", "fare": 120.0, **changes}


def changed(path: Path, **fields) -> None:
    """Rewrite some fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
