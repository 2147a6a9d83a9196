"""Dagster's own SQLite storages, with one connection pool each.

Dagster opens a new SQLAlchemy engine for every statement, which throws the compiled statements away; most of the time
of a small run goes there. One engine per storage makes runs and automation ticks several times faster
(`benchmarks/dagster_storage.py`). And Dagster takes a file that exists for a database with all its tables, which it is
not when the process that made it was killed, or is still at it; here the file appears with its tables. The schema is
Dagster's; the event log is one file instead of one a run, and a power cut can lose the last commits, not consistency.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as db
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._serdes import ConfigurableClassData

from ct_assets.lake.paths import create_database

BUSY_TIMEOUT_SECONDS = 60


def _engine(url: str) -> db.Engine:
    engine = db.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False})

    @db.event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        # In WAL mode this keeps the database consistent after a crash, at one sync a checkpoint.
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


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
