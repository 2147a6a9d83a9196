"""A model of 48 rows a day with a source, features, labels and a champion of its own, for the benchmark `arrival`.

The first days go through the platform. A longer history is theirs again with other dates, through the same writes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pandera.pandas as pn
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from ct_assets.core.gate import GatePolicy
from ct_assets.core.ledger import SKIP
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.segments import Line
from ct_assets.core.spec import EstimatorSpec, EventSpec, LabelSpec, ModelSpec
from ct_assets.lake.contract import Domain, Source
from ct_assets.lake.dataset import to_parquet
from ct_assets.lake.examples import scored_name
from ct_assets.lake.ingest import ingest
from ct_assets.lake.lake import Lake
from ct_assets.lake.releases import Releases
from ct_assets.lake.training_set import FeatureVersions, build_training_set
from ct_assets.lib.decisions import decide_about, record_decision, retrain_due
from ct_assets.lib.drifting import drift_of_lines
from ct_assets.lib.evaluation import judge
from ct_assets.lib.features import FeatureSet, FeatureSql, compute, publish
from ct_assets.lib.label_counts import labels_of_lines
from ct_assets.lib.monitoring_reports import save_report
from ct_assets.lib.outcomes import outcomes_name, recent_outcomes, save_outcomes
from ct_assets.lib.partitions import end_of
from ct_assets.lib.performance import performance_reports
from ct_assets.lib.promotion import promote
from ct_assets.lib.scoring import score_day
from ct_assets.lib.training import train_and_register
from ct_assets.resources.feast import _import_feast, service_versions, versions_digest
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import RegistryResource

if TYPE_CHECKING:
    from feast import FeatureStore

FIRST = pd.Timestamp("2010-01-01", tz="UTC")
ROWS, SENSORS = 48, 6
DAY = pd.Timedelta(days=1)
MOMENT, UTC_US = pn.Column("datetime64[us, UTC]"), pa.timestamp("us", "UTC")
DOMAIN = Domain("plant", date(2010, 1, 1))
READINGS = Source(
    name="readings",
    schema=pn.DataFrameSchema(
        {"reading": pn.Column(object), "sensor": pn.Column(object), "value": pn.Column(float), "known_at": MOMENT}
    ),
    key=("reading",),
    description="Half-hourly readings of a plant's sensors",
    owner="team:benchmarks",
    domain=DOMAIN,
    stable=("value",),
)
ALARMS = Source(
    name="alarms",
    schema=pn.DataFrameSchema({"reading": pn.Column(object), "alarm": pn.Column("int64"), "known_at": MOMENT}),
    key=("reading",),
    description="Whether a reading was followed by an alarm",
    owner="team:benchmarks",
    domain=DOMAIN,
)
LEVELS = FeatureSet(
    source=READINGS,
    views={
        "levels": FeatureSql(
            """
SELECT sensor, known_at AS event_timestamp, known_at AS created,
  avg(value) OVER (of_sensor RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW) AS level,
  max(value) OVER (of_sensor RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW) AS top
FROM readings WINDOW of_sensor AS (PARTITION BY sensor ORDER BY known_at)
QUALIFY known_at >= $start AND known_at < $end ORDER BY known_at, sensor
""",
            ("sensor", "value", "known_at"),
        )
    },
    owner="team:benchmarks",
    lookback_days=7,
)
SPEC = ModelSpec(
    name="plant",
    owner="team:benchmarks",
    description="Will there be an alarm?",
    events=EventSpec(
        source="readings",
        id_column="reading",
        sql="SELECT reading, known_at AS event_timestamp, sensor, value FROM readings",
    ),
    label=LabelSpec(
        source="alarms", sql="SELECT reading, alarm AS label, known_at FROM alarms", delay=timedelta(days=1)
    ),
    entities=("sensor",),
    feature_service="plant_v1",
    request={"value": "number"},
    inputs={"level": "numeric", "top": "numeric", "value": "numeric"},
    estimator=EstimatorSpec(path="sklearn.linear_model.LogisticRegression"),
    evaluation_days=5,
    drift_window_days=7,
    policy=RetrainPolicy(first_training_rows=300, schedule_days=None, performance_min_rows=100),
    gate=GatePolicy(min_rows=100),
)


def partition(number: int) -> str:
    """The day so many days after the first."""
    return (FIRST + number * DAY).date().isoformat()


def rows_of(number: int) -> dict[str, pa.Table]:
    """What arrives on a day: its readings, and whether those of the day before were followed by an alarm."""
    tables = {}
    for name, day in (("readings", number), ("alarms", number - 1)):
        chance = np.random.default_rng(max(day, 0))
        moments = pd.Series(FIRST + day * DAY + pd.to_timedelta(np.arange(ROWS) * 30, unit="min")).dt.as_unit("us")
        value = chance.normal(50, 10, ROWS)
        frame = pd.DataFrame({"reading": [f"{day}-{i}" for i in range(ROWS)], "known_at": moments})
        if name == "readings":
            frame = frame.assign(sensor=[f"s{i % SENSORS}" for i in range(ROWS)], value=value)
        else:
            alarm = (chance.random(ROWS) < 1 / (1 + np.exp(-(value - 50) / 5))).astype("int64")
            frame = frame.assign(alarm=alarm, known_at=moments + DAY)
        tables[name] = pa.Table.from_pandas(frame, preserve_index=False)
    return tables


@dataclass
class Plant:
    """The model under a home."""

    home: Path

    def __post_init__(self) -> None:
        self.resource = LakeResource(home=str(self.home))
        self.lake: Lake = self.resource.lake()
        self.releases = Releases(self.home, Line(SPEC.name), self.resource.ledger())
        self.store = _store(self.home)

    def arrive(self, number: int) -> None:
        """Let a day's files land."""
        for name, table in rows_of(number).items():
            path = self.home / "landing" / name / partition(number) / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_parquet(table))

    def ingest(self, day: str) -> None:
        """Take the day's files in."""
        for source in (READINGS, ALARMS):
            for batch in ingest(self.lake, source, day):
                assert batch.status == "accepted", batch

    def features(self, day: str) -> dict[str, pa.Table]:
        """Compute the day's feature rows."""
        return compute(self.lake, LEVELS, day)

    def publish(self, day: str, tables: dict[str, pa.Table]) -> None:
        """Store them, in the lake and online."""
        for view, table in tables.items():
            publish(self.lake, self.store, view, day, table, LEVELS.views[view].digest)

    def score(self, day: str) -> None:
        """Score the day's events."""
        table, _ = score_day(self.lake, self.store, self.releases, SPEC, day)
        self.lake.dataset(scored_name(SPEC), "event_timestamp").write(day, table)

    def watch(self, day: str) -> None:
        """Join labels with predictions; measure performance and drift."""
        as_of, lines = end_of(day), [self.releases]
        save_outcomes(self.lake, SPEC, day)
        labels = labels_of_lines(self.lake, SPEC, as_of)
        recent = recent_outcomes(self.lake, lines, SPEC, as_of)
        performance = performance_reports(self.lake, lines, SPEC, as_of, labels, recent)
        save_report(self.lake, SPEC, "performance", as_of, performance[self.releases.line])
        drift = drift_of_lines(self.lake, lines, SPEC, as_of, recent)[self.releases.line]
        save_report(self.lake, SPEC, "drift", as_of, drift.model_dump(mode="json") if drift else {})

    def decide(self, day: str) -> None:
        """Decide whether a retrain is due."""
        record_decision(self.releases, *decide_about(self.lake, self.releases, SPEC, end_of(day)))
        retrain_due(self.releases)

    def train(self, day: str) -> None:
        """Train, judge and promote a first champion."""
        registry = RegistryResource(home=self.resource.home)
        views = service_versions(self.store, SPEC.feature_service)
        features = FeatureVersions(views, versions_digest(views))
        snapshot = build_training_set(self.lake, self.store, SPEC, end_of(day), FIRST, features)
        version, _ = train_and_register(self.resource, registry, SPEC, self.releases.line, snapshot, SPEC.estimator)
        verdict = judge(self.resource, SPEC, self.releases.line, version)[0]
        assert verdict.passed, verdict.reasons()
        promote(self.resource, registry, SPEC, self.releases.line, version)

    def fabricate(self, template: int, first: int, last: int) -> None:
        """Let the days from `first` to `last` (excluded) be those of a day that went through the platform."""
        names = ["readings", "alarms", "features/levels", scored_name(SPEC), outcomes_name(SPEC)]
        times = {"features/levels": "event_timestamp", scored_name(SPEC): "event_timestamp"}
        kept = {}
        for name in names:
            dataset = self.lake.dataset(name)
            [file] = dataset.partition(partition(template))
            kept[name] = pa.parquet.read_table(dataset.root / file.path)
        skip = next(self.releases.ledger.iterate(SKIP, SPEC.name, newest_first=True))
        for number in range(first, last):
            for name, table in kept.items():
                dataset = self.lake.dataset(name, times.get(name, "known_at"))
                dataset.write(partition(number), _moved(table, number - template))
            as_of = end_of(partition(number))
            key = f"decision/{SPEC.name}/{as_of.isoformat()}"
            self.releases.ledger.append(skip.kind, SPEC.name, as_of, skip.evidence, key=key)


def _moved(table: pa.Table, days: int) -> pa.Table:
    """The same rows so many days later, under other ids."""
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            moved = pc.add(table.column(i), pa.scalar(days * 86_400_000_000, pa.duration("us")))
            table = table.set_column(i, field.name, moved.cast(field.type))
        elif field.name == "reading":
            table = table.set_column(i, field.name, pc.binary_join_element_wise(table.column(i), str(days), "+"))
    return table


def _store(home: Path) -> "FeatureStore":
    _import_feast()
    from feast import FeatureService, FeatureStore, RepoConfig
    from feast.types import Float64

    from feature_repo.lake_views import lake_view, text_entity

    store = FeatureStore(
        config=RepoConfig(
            project="plant",
            provider="local",
            repo_path=home,
            registry={"registry_type": "sql", "path": f"sqlite:///{home}/registry.db", "cache_ttl_seconds": 60},
            offline_store={
                "type": "ct_assets.stores.asof_duckdb.AsofDuckDBOfflineStore",
                "threads": 1,
                "root": str(home / "lake"),
            },
            online_store={"type": "ct_assets.stores.row_sqlite.RowSqliteOnlineStore", "path": str(home / "online.db")},
            entity_key_serialization_version=3,
        )
    )
    sensor = text_entity("sensor", "Of a plant")
    levels = lake_view(
        "levels",
        sensor,
        ttl=timedelta(days=2),
        features={"level": Float64, "top": Float64},
        description="What a sensor showed",
        upstream="readings",
        owner="team:benchmarks",
    )
    store.apply([sensor, levels, FeatureService(name=SPEC.feature_service, features=[levels])])
    return store


def run_day(plant: Plant, number: int, measure: Callable[[str], AbstractContextManager[None]]) -> None:
    """One day through every stage, each within `measure(stage)`."""
    day = partition(number)
    plant.arrive(number)
    with measure("ingest"):
        plant.ingest(day)
    with measure("features"):
        tables = plant.features(day)
    with measure("publish"):
        plant.publish(day, tables)
    with measure("scoring"):
        plant.score(day)
    with measure("watching"):
        plant.watch(day)
    with measure("deciding"):
        plant.decide(day)
