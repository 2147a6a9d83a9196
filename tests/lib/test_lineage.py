"""Trainings that go on from the champion, through the registry, the ledger and the gate."""

import hashlib
import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import SGDClassifier

from ct_assets.core.artifact import load_model
from ct_assets.core.gate import GatePolicy
from ct_assets.core.ledger import TRAINING
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.segments import Line
from ct_assets.core.spec import EstimatorSpec, EventSpec, LabelSpec, ModelSpec
from ct_assets.core.strategies import StrategySpec
from ct_assets.lake.dataset import to_parquet
from ct_assets.lake.releases import Releases
from ct_assets.lake.training_set import TrainingSet
from ct_assets.lib.evaluation import judge
from ct_assets.lib.lineage import Lineage, find_lineage, lineage_of
from ct_assets.lib.promotion import promote, rollback
from ct_assets.lib.training import train_and_register
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import RegistryResource, Version
from ct_assets.words import explain

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2020-01-01", tz="UTC")
A_DAY, HOLDOUT, REFERENCE = 200, 5, 4
SPEC = ModelSpec(
    name="m",
    owner="team:test",
    description="A model of the tests",
    events=EventSpec(source="events", sql="SELECT 1", id_column="id"),
    label=LabelSpec(source="events", sql="SELECT 1", delay=timedelta(days=1)),
    entities=("id",),
    feature_service="m_v1",
    inputs={"x": "numeric", "z": "numeric"},
    estimator=EstimatorSpec(
        path="sklearn.linear_model.SGDClassifier", params={"loss": "log_loss", "alpha": 0.01, "random_state": 0}
    ),
    strategy=StrategySpec(kind="incremental", reference=timedelta(days=REFERENCE)),
    evaluation_days=HOLDOUT,
    policy=RetrainPolicy(),
    gate=GatePolicy(min_rows=100, tolerance=1.0, floor=0.0, min_slice_rows=100),
)


def examples(days: int, turned_from: int | None = None) -> pd.DataFrame:
    """Some hundred examples a day; from a day on, the inputs mean the opposite."""
    random = np.random.default_rng(0)
    x, z = random.normal(size=(2, 60 * A_DAY))
    day = np.repeat(np.arange(60), A_DAY)
    sign = np.where(day >= (60 if turned_from is None else turned_from), -1, 1)
    label = (random.random(60 * A_DAY) < 1 / (1 + np.exp(-3 * sign * x))).astype("int8")
    frame = {"id": np.arange(60 * A_DAY), "event_timestamp": START + day * DAY, "x": x, "z": z, "label": label}
    return pd.DataFrame(frame)[day < days]


class World:
    """A home with snapshots that were written by hand."""

    def __init__(self, home: Path, spec: ModelSpec) -> None:
        self.spec = spec
        self.line = Line(spec.name)
        self.lake = LakeResource(home=str(home))
        self.registry = RegistryResource(home=self.lake.home)
        self.home = home

    def snapshot(self, days: int, turned_from: int | None = None) -> TrainingSet:
        """All examples of the first days."""
        frame = examples(days, turned_from)
        split_at = START + (days - HOLDOUT) * DAY
        train = frame["event_timestamp"] < split_at
        payload = to_parquet(pa.Table.from_pandas(frame, preserve_index=False))
        made = TrainingSet(
            rows_digest=hashlib.sha256(payload).hexdigest(),
            model=self.spec.name,
            as_of=(START + (days + 1) * DAY).isoformat(),
            split_at=split_at.isoformat(),
            train_rows=int(train.sum()),
            holdout_rows=int((~train).sum()),
            positives=int(frame.loc[train, "label"].sum()),
            feature_service="m_v1",
            feature_versions={"view": "1"},
        )
        folder = self.home / "training_sets" / made.digest
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data.parquet").write_bytes(payload)
        (folder / "manifest.json").write_text(json.dumps(asdict(made)))
        return made

    @property
    def releases(self) -> Releases:
        return Releases(self.home, Line(self.spec.name), self.lake.ledger())

    def train(self, snapshot: TrainingSet) -> Version:
        return train_and_register(self.lake, self.registry, self.spec, self.line, snapshot, self.spec.estimator)[0]

    def promoted(self, snapshot: TrainingSet) -> Version:
        version = self.train(snapshot)
        verdict, *_ = judge(self.lake, self.spec, self.line, version)
        assert verdict.passed, verdict.reasons()
        promote(self.lake, self.registry, self.spec, self.line, version)
        return version

    def recorded(self, version: Version) -> dict:
        return next(
            dict(r.evidence)
            for r in self.lake.ledger().records(TRAINING, self.spec.name)
            if r.evidence["version"] == version.version
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests, as the registry's tables take seconds to make; each test has a model of its own."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def world(home: Path, request: pytest.FixtureRequest) -> World:
    return World(home, SPEC.model_copy(update={"name": request.node.originalname}))


def coefficients(version: Version) -> np.ndarray:
    return load_model(Path(version.artifact).read_bytes(), version.tags["artifact_digest"]).coef_


def by_hand(*spans: tuple[int, int], turned_from: int | None = None) -> np.ndarray:
    """Fitted on the days of the first span, then partially on those of the others; none of the reference days."""
    model = SGDClassifier(loss="log_loss", alpha=0.01, random_state=0)
    frame = examples(60, turned_from)
    for i, (first, end) in enumerate(spans):
        days = (frame["event_timestamp"] - START) // DAY
        rows = frame[(days >= first) & (days < end)]
        (model.partial_fit if i else model.fit)(rows[["x", "z"]], rows["label"])
    return model.coef_


def test_a_lineage_learns_each_example_once_and_never_those_that_it_keeps(world: World) -> None:
    first = world.promoted(world.snapshot(20))  # days 0 to 14, of which 11 to 14 are the reference
    np.testing.assert_array_equal(coefficients(first), by_hand((0, 11)))
    second = world.promoted(world.snapshot(24))
    np.testing.assert_array_equal(coefficients(second), by_hand((0, 11), (15, 19)))
    third = world.train(world.snapshot(30))
    np.testing.assert_array_equal(coefficients(third), by_hand((0, 11), (15, 19), (19, 25)))

    assert world.recorded(first)["lineage"]["started_from"] is None
    lineage = world.recorded(third)["lineage"]
    assert lineage["reference"] == [(START + 11 * DAY).isoformat(), (START + 15 * DAY).isoformat()]
    assert lineage["started_from"] == {
        "version": second.version,
        "artifact_digest": second.tags["artifact_digest"],
        "training_set": second.tags["training_set"],
    }

    # A run that is repeated, as after a crash, makes the same model, also once that one is the champion.
    repeated = world.train(world.snapshot(24))
    assert (repeated.version, repeated.tags["artifact_digest"]) == (second.version, second.tags["artifact_digest"])

    # After a rollback it goes on from the model that it went back to.
    rollback(world.lake, world.registry, Line(world.spec.name), "too many late alarms")
    later = world.train(world.snapshot(31))
    np.testing.assert_array_equal(coefficients(later), by_hand((0, 11), (15, 26)))


def test_a_concept_that_was_forgotten_fails_the_gate(world: World) -> None:
    first = world.promoted(world.snapshot(20, turned_from=15))
    challenger = world.train(world.snapshot(40, turned_from=15))
    lineage = lineage_of(world.releases, challenger.version)
    assert lineage.started_from is not None and lineage.started_from["version"] == first.version
    verdict, *_ = judge(world.lake, world.spec, world.line, challenger)
    failed = [check for check in verdict.checks if not check.passed]
    assert [check.name for check in failed] == ["remembers"]
    assert "800 older examples that no training has seen" in failed[0].detail


def test_a_champion_of_another_lineage_begins_a_new_one(world: World) -> None:
    world.promoted(world.snapshot(20))
    later, path = world.snapshot(24), SPEC.estimator.path
    assert find_lineage(world.releases, world.spec, later, world.spec.estimator).started_from is not None
    for changes in (
        {"estimator": EstimatorSpec(path=path, params={"loss": "log_loss", "alpha": 0.02})},
        {"strategy": StrategySpec(kind="incremental")},
        {"inputs": {"x": "numeric"}},
        {"seed": 5},
    ):
        spec = world.spec.model_copy(update=changes)
        assert find_lineage(world.releases, spec, later, spec.estimator).started_from is None


def test_a_strategy_that_begins_anew_records_what_it_did_before(home: Path) -> None:
    world = World(home, SPEC.model_copy(update={"name": "anew", "strategy": StrategySpec()}))
    version = world.train(world.snapshot(20))
    assert not {"lineage", "strategy", "weight"} & set(world.recorded(version))
    np.testing.assert_array_equal(coefficients(version), by_hand((0, 15)))


def test_what_is_kept_back_of_events_that_mature_by_themselves_is_told_by_their_maturity() -> None:
    moments = pd.DataFrame({"event_timestamp": [START + n * DAY for n in range(4)]})
    label = LabelSpec(source="events", sql="SELECT 1", matures_at="due")
    spec = SPEC.model_copy(update={"label": label})
    kept = Lineage("lineage", ((START + 5 * DAY).isoformat(), (START + 7 * DAY).isoformat()))
    matured = moments.assign(matures_at=[START + n * DAY for n in (1, 6, 7, 5)])
    # Of days 1 and 3 the labels are kept; that of day 0 was known before, that of day 2 is of the same days.
    assert list(kept.for_training(spec, matured)["event_timestamp"]) == [START]


def test_no_label_that_is_learned_is_of_the_time_of_those_that_are_kept_back(home: Path) -> None:
    three_days = LabelSpec(source="events", sql="SELECT 1", delay=timedelta(days=3))
    world = World(home, SPEC.model_copy(update={"name": "embargo", "label": three_days}))
    first = world.promoted(world.snapshot(20))  # of days 11 to 14 the labels come on days 14 to 17
    np.testing.assert_array_equal(coefficients(first), by_hand((0, 9)))
    second = world.train(world.snapshot(30))
    np.testing.assert_array_equal(coefficients(second), by_hand((0, 9), (17, 25)))
    fitted = world.recorded(second)["fitted"]
    assert fitted == {
        "rows": 8 * A_DAY,
        "first": (START + 17 * DAY).isoformat(),
        "last": (START + 24 * DAY).isoformat(),
    }
    told = explain(world.lake.ledger(), "embargo", second.version)
    assert "on 1,600 of 5,000 examples, predicted from 2020-01-18 to 2020-01-25, going on from version 1" in told
