"""Dagster's own SQLite storages, with one connection pool each.

Dagster opens a new SQLAlchemy engine for every statement, which throws the compiled statements away; most of the time
of a small run goes there. One engine per storage makes runs and automation ticks several times faster
(`benchmarks/dagster_storage.py`). And Dagster takes a file that exists for a database with all its tables, which it is
not when the process that made it was killed, or is still at it; here the file appears with its tables. The schema is
Dagster's; the event log is one file instead of one a run, and a power cut can lose the last commits, not consistency.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as db
from dagster._core.asset_graph_view.serializable_entity_subset import SerializableEntitySubset
from dagster._core.definitions.declarative_automation.serialized_objects import AutomationConditionEvaluationWithRunIds
from dagster._core.storage.asset_check_execution_record import AssetCheckPartitionInfo
from dagster._core.storage.asset_check_state import AssetCheckState, bulk_update_asset_check_state
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage, SqlEventLogStorageTable
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.schedules.schema import AssetDaemonAssetEvaluationsTable
from dagster._serdes import ConfigurableClassData

from ct_assets.lake.paths import create_database

BUSY_TIMEOUT_SECONDS = 60

OF_NO_USE_TO_OTHERS = (
    *("STEP_INPUT", "STEP_OUTPUT", "LOADED_INPUT", "HANDLED_OUTPUT", "ENGINE_EVENT"),
    *("RESOURCE_INIT_STARTED", "RESOURCE_INIT_SUCCESS"),
)
"""Events that nobody asks for while a run is under way in the same process."""

OF_NO_USE_AFTER_SUCCESS = (
    *OF_NO_USE_TO_OTHERS,
    *("ASSET_MATERIALIZATION_PLANNED", "ASSET_CHECK_EVALUATION_PLANNED"),
)
"""Events that only a run under way, or another attempt at a failed one, needs: two thirds of the log. What remains of a
run that succeeded are its materializations, checks and messages, and the times of its steps."""

_OF_FAILURE = ("STEP_FAILURE", "PIPELINE_FAILURE", "PIPELINE_CANCELED")

SAID_BY_THE_NEWEST = ("dagster/column_schema", "dagster/column_lineage")
"""Metadata of a materialization that stays the same from day to day, and takes most of its space."""

KEPT_EVALUATIONS = 10
"""Evaluations of its condition that are kept for each asset; one of them takes up to 100 kB."""


def _engine(url: str) -> db.Engine:
    engine = db.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False})

    @db.event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        # In WAL mode this keeps the database consistent after a crash, at one sync a checkpoint.
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


@dataclass(frozen=True)
class _Remembered:
    """A state of checks to go on from.

    Dagster's own `with_updates` adds a partition to its new status and leaves it in its old one, which goes unnoticed
    as long as it starts from nothing.
    """

    state: AssetCheckState

    @property
    def latest_storage_id(self) -> int:
        return self.state.latest_storage_id

    @property
    def in_progress_runs(self) -> Mapping[str, SerializableEntitySubset]:
        return self.state.in_progress_runs

    def with_updates(
        self,
        key: dg.AssetCheckKey,
        partitions: dg.PartitionsDefinition | None,
        records: Sequence[AssetCheckPartitionInfo],
        run_statuses: Mapping[str, dg.DagsterRunStatus],
    ) -> AssetCheckState:
        renewed = SerializableEntitySubset.empty(key, partitions)
        for record in records:
            if partitions is not None and record.partition_key and partitions.has_partition_key(record.partition_key):
                one = SerializableEntitySubset.from_coercible_value(key, record.partition_key, partitions)
                renewed = renewed.compute_union(one)
        runs = {run: subset.compute_difference(renewed) for run, subset in self.in_progress_runs.items()}
        rest = AssetCheckState(
            latest_storage_id=self.latest_storage_id,
            subsets={status: subset.compute_difference(renewed) for status, subset in self.state.subsets.items()},
            in_progress_runs={run: subset for run, subset in runs.items() if not subset.is_empty},
        )
        return rest.with_updates(key, partitions, records, run_statuses)


def _usable(state: AssetCheckState | None, partitions: dg.PartitionsDefinition | None) -> AssetCheckState:
    # Of a check without partitions Dagster reports no new materialization alone, so that one starts from nothing.
    if state is None or partitions is None or not state.compatible_with(partitions):
        return AssetCheckState.empty()
    return state


class PooledSqliteEventLogStorage(ConsolidatedSqliteEventLogStorage):
    """Event log in one SQLite file."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        create_database(Path(base_dir) / "event_log.db", lambda aside: ConsolidatedSqliteEventLogStorage(str(aside)))
        super().__init__(base_dir, inst_data)

    @cached_property
    def _engine(self) -> db.Engine:
        return _engine(self._conn_string)

    @contextmanager
    def _connect(self) -> Iterator[db.Connection]:
        with self._engine.begin() as connection:
            yield connection

    @cached_property
    def _check_states(self) -> dict[dg.AssetCheckKey, AssetCheckState]:
        return {}

    def get_asset_check_state(
        self, keys: Sequence[tuple[dg.AssetCheckKey, dg.PartitionsDefinition | None]]
    ) -> Mapping[dg.AssetCheckKey, AssetCheckState]:
        """Which partitions' checks passed, failed or are under way.

        Dagster computes this from all history at every automation tick; here from what was known at the last one.
        """
        known = {key: _Remembered(_usable(self._check_states.get(key), partitions)) for key, partitions in keys}
        # Dagster only reads the fields and calls the method that `_Remembered` has.
        states = bulk_update_asset_check_state(self._instance, keys, known)  # type: ignore[arg-type]
        self._check_states.update((key, states[key]) for key, partitions in keys if partitions is not None)
        return states

    @cached_property
    def _held_back(self) -> dict[str, list[dg.EventLogEntry]]:
        return {}

    @contextmanager
    def holding_back(self, run_id: str) -> Iterator[None]:
        """Store what is of no use to others only when the run fails; for runs of this process."""
        self._held_back[run_id] = []
        try:
            yield
        finally:
            self._store_held_back(run_id)

    def _store_held_back(self, run_id: str) -> None:
        for event in self._held_back.pop(run_id, []):
            super().store_event(event)

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event, and remove what is of no use any more."""
        kind = event.dagster_event.event_type_value if event.dagster_event else None
        if event.run_id in self._held_back and kind in OF_NO_USE_TO_OTHERS:
            self._held_back[event.run_id].append(event)
            return
        if kind in _OF_FAILURE:
            self._store_held_back(event.run_id)
        super().store_event(event)
        if event.dagster_event_type is dg.DagsterEventType.ASSET_MATERIALIZATION and event.dagster_event:
            self._shorten_the_one_before(event.dagster_event.asset_key)
        if event.dagster_event_type is dg.DagsterEventType.RUN_SUCCESS:
            self._held_back.pop(event.run_id, None)
            events = SqlEventLogStorageTable
            passing = events.c.dagster_event_type.in_(OF_NO_USE_AFTER_SUCCESS)
            with self.run_connection(event.run_id) as connection:
                connection.execute(events.delete().where(events.c.run_id == event.run_id, passing))

    def _shorten_the_one_before(self, key: dg.AssetKey | None) -> None:
        events = SqlEventLogStorageTable
        of_the_asset = db.select(events.c.id, events.c.event).where(
            events.c.asset_key == (key.to_string() if key else None),
            events.c.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        )
        with self.index_connection() as connection:
            before = connection.execute(of_the_asset.order_by(events.c.id.desc()).offset(1).limit(1)).first()
            if before is None:
                return
            content = json.loads(before.event)
            materialization = content["dagster_event"]["event_specific_data"]["materialization"]
            entries = materialization["metadata_entries"]
            materialization["metadata_entries"] = [e for e in entries if e["label"] not in SAID_BY_THE_NEWEST]
            if len(materialization["metadata_entries"]) < len(entries):
                shorter = events.update().where(events.c.id == before.id).values(event=json.dumps(content))
                connection.execute(shorter)

    # Dagster asks the database what it has got before every event; what is there, is there to stay.

    @cached_property
    def _known_to_exist(self) -> set[str]:
        return set()

    def has_table(self, table_name: str) -> bool:
        """Whether the database has a table; asked once."""
        if table_name not in self._known_to_exist and super().has_table(table_name):
            self._known_to_exist.add(table_name)
        return table_name in self._known_to_exist

    def _has_asset_key_col_on_connection(self, conn: db.Connection, column_name: str) -> bool:
        column = f"asset_keys.{column_name}"
        if column not in self._known_to_exist and super()._has_asset_key_col_on_connection(conn, column_name):
            self._known_to_exist.add(column)
        return column in self._known_to_exist


class PooledSqliteRunStorage(SqliteRunStorage):
    """Runs in one SQLite file."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "PooledSqliteRunStorage":
        """Make this class; the parent's method would make a parent."""
        create_database(Path(config_value["base_dir"]) / "runs.db", lambda a: SqliteRunStorage.from_local(str(a)))
        return cls.from_local(inst_data=inst_data, **config_value)

    @cached_property
    def _engine(self) -> db.Engine:
        return _engine(self._conn_string)

    @contextmanager
    def connect(self) -> Iterator[db.Connection]:
        """A connection of the pool, in a transaction."""
        with self._engine.begin() as connection:
            yield connection


class PooledSqliteScheduleStorage(SqliteScheduleStorage):
    """Ticks and cursors of sensors in one SQLite file."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Any
    ) -> "PooledSqliteScheduleStorage":
        """Make this class; the parent's method would make a parent."""
        create_database(
            Path(config_value["base_dir"]) / "schedules.db", lambda a: SqliteScheduleStorage.from_local(str(a))
        )
        storage = cls.from_local(inst_data=inst_data, **config_value)
        assert isinstance(storage, cls)
        return storage

    @cached_property
    def _engine(self) -> db.Engine:
        return _engine(self._conn_string)

    @contextmanager
    def connect(self) -> Iterator[db.Connection]:
        """A connection of the pool, in a transaction."""
        with self._engine.begin() as connection:
            yield connection

    def add_auto_materialize_asset_evaluations(
        self,
        evaluation_id: int,
        asset_evaluations: Sequence[AutomationConditionEvaluationWithRunIds[Any]],
    ) -> None:
        """Store evaluations of conditions, and remove all but the newest of each asset."""
        super().add_auto_materialize_asset_evaluations(evaluation_id, asset_evaluations)
        table = AssetDaemonAssetEvaluationsTable
        with self.connect() as connection:
            for key in {evaluation.key.to_db_string() for evaluation in asset_evaluations}:
                newest = db.select(table.c.evaluation_id).where(table.c.asset_key == key)
                oldest_kept = newest.order_by(table.c.evaluation_id.desc()).offset(KEPT_EVALUATIONS - 1).limit(1)
                stale = table.c.evaluation_id < oldest_kept.scalar_subquery()
                connection.execute(table.delete().where(table.c.asset_key == key, stale))
