"""Online store: one SQLite row per (view, entity key), which an older value never overwrites.

Feast's own SQLite store keeps a row per feature, lets any write win, and blocks readers while it writes. Here a key's
features are one blob, so that a read is one lookup; the database is in WAL mode, so that readers see the last
committed state while a writer works; and a write wins only if its (event time, created time) is not older than what
is stored, so that re-running an old window changes nothing and a correction of the same event is accepted.

Only a writer creates the database. A reader of a file that is gone would otherwise create an empty one and answer that
nothing is known; and a connection that outlives its file would go on answering from it, or writing to it. So every
read and write looks at the file's identity first, and opens it again when another file has taken its place.
"""

import hashlib
import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity
from feast.feature_view import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from google.protobuf.message import DecodeError
from pydantic import StrictBool, StrictStr
from typing_extensions import override

from ct_assets.stores.home import in_home
from ct_assets.stores.unavailable import OnlineStoreUnavailable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER_CREATED = -(2**63)
"""Created time of rows that carry none: older than any."""
_KEYS_PER_QUERY = 10_000
"""Below SQLite's limit of 32,766 parameters."""
_BUSY_SECONDS = 30.0

_TABLES = """
CREATE TABLE IF NOT EXISTS identity (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS layouts (id INTEGER PRIMARY KEY, names TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entity_rows (
    view TEXT NOT NULL, version INTEGER NOT NULL, entity_key BLOB NOT NULL,
    event_us INTEGER NOT NULL, created_us INTEGER NOT NULL, layout INTEGER NOT NULL, features BLOB NOT NULL,
    PRIMARY KEY (view, version, entity_key)
) WITHOUT ROWID;
"""
_UPSERT = """
INSERT INTO entity_rows VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET event_us = excluded.event_us, created_us = excluded.created_us,
                          layout = excluded.layout, features = excluded.features
WHERE (excluded.event_us, excluded.created_us) >= (entity_rows.event_us, entity_rows.created_us)
"""

_DELETE = "DELETE FROM entity_rows WHERE (view, version, entity_key, event_us, created_us) = (?, ?, ?, ?, ?)"


class RowSqliteOnlineStoreConfig(FeastConfigBaseModel):
    """`online_store:` of feature_store.yaml."""

    type: StrictStr = "ct_assets.stores.row_sqlite.RowSqliteOnlineStore"
    path: StrictStr = "data/online.db"
    """The database file; relative to the feature repository."""
    enforce_ttl: StrictBool = False
    """Answer "not found" for rows older than the view's ttl by the wall clock; off, as serving judges freshness."""


@dataclass(frozen=True)
class _Opened:
    """A connection, and which file it is to: device and inode."""

    connection: sqlite3.Connection
    file: tuple[int, int]


class RowSqliteOnlineStore(OnlineStore):
    """Feast online store on one SQLite file; see the module's docstring for which write wins.

    Safe to share between threads (a connection each) and processes. A row holds all features of its key: writing only
    some of a view's features replaces the row, and the others are then not found.
    """

    def __init__(self) -> None:
        self._local = threading.local()
        self._layouts: dict[int, tuple[str, ...]] = {}

    @override
    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows that are not older than what is stored, in one transaction.

        Args:
            config: the repository's configuration.
            table: the feature view.
            data: (entity key, values by feature, event time, created time or None); naive times are UTC. The same
                event time with the same or a newer created time replaces the row.
            progress: called with the number of rows handled.

        Raises:
            ValueError: a row has no event time.
        """
        self.online_revise(config, table, [], data)
        if progress:
            progress(len(data))

    def online_revise(
        self,
        config: RepoConfig,
        table: FeatureView,
        withdrawn: Sequence[tuple[EntityKey, datetime, datetime | None]],
        data: Sequence[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
    ) -> None:
        """Remove rows that do not hold any more, and write others, in one transaction.

        Args:
            config: the repository's configuration.
            table: the feature view.
            withdrawn: (entity key, event time, created time) of rows to remove; a key whose stored row is another one
                keeps it.
            data: as in `online_write_batch`.

        Raises:
            ValueError: a row has no event time.
        """
        view = _view_key(config, table)
        encoded = _encoded(config, table, data)
        gone = [(*view, _key_bytes(config, key), _micros(at), _created(c)) for key, at, c in withdrawn]
        con = self._connection(config, _connect)
        with _write(con):
            con.executemany(_DELETE, gone)
            _upsert(con, *encoded)

    def online_restore(
        self,
        config: RepoConfig,
        parts: Iterable[tuple[FeatureView, Sequence[tuple[EntityKey, dict[str, Value], datetime, datetime | None]]]],
    ) -> None:
        """Write the rows of several views in one transaction, so that no reader sees the rows of some of them alone.

        Args:
            config: the repository's configuration.
            parts: views with rows as in `online_write_batch`; a view may have several parts.
        """
        con = self._connection(config, _connect)
        with _write(con):
            for table, data in parts:
                _upsert(con, *_encoded(config, table, data))

    @override
    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """The stored row per key, in the order of `entity_keys`.

        Returns:
            (event time UTC, values by feature), or (None, None) where nothing is stored. A feature the row was written
            without, because the view has changed since, is absent.

        Raises:
            OnlineStoreUnavailable: The database is not there, or it or one of the rows cannot be read.
        """
        with self._reading(config) as con:
            return self._read(con, config, table, entity_keys, requested_features)

    def _read(
        self,
        con: sqlite3.Connection,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        view, version = _view_key(config, table)
        keys = [_key_bytes(config, key) for key in entity_keys]
        oldest = None
        if config.online_store.enforce_ttl and table.ttl:
            oldest = _micros(datetime.now(UTC) - table.ttl)
        found: dict[bytes, tuple[int, int, bytes]] = {}
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            part = keys[start : start + _KEYS_PER_QUERY]
            sql = (
                "SELECT entity_key, event_us, layout, features FROM entity_rows "
                f"WHERE view = ? AND version = ? AND entity_key IN ({','.join('?' * len(part))})"
            )
            found.update((row[0], row[1:]) for row in con.execute(sql, (view, version, *part)))
        wanted = None if requested_features is None else frozenset(requested_features)
        answers: list[tuple[datetime | None, dict[str, Value] | None]] = []
        for asked, key in zip(entity_keys, keys, strict=True):
            row = found.get(key)
            if row is None or (oldest is not None and row[0] < oldest):
                answers.append((None, None))
                continue
            try:
                answers.append(self._decoded(con, row, wanted))
            except (DecodeError, ValueError, TypeError, OverflowError) as error:
                raise _damaged(_path(config), table.name, asked, error) from error
        return answers

    def _decoded(
        self, con: sqlite3.Connection, row: tuple[int, int, bytes], wanted: frozenset[str] | None
    ) -> tuple[datetime, dict[str, Value]]:
        event_us, layout, features = row
        named = zip(self._layout(con, layout), RepeatedValue.FromString(features).val, strict=True)
        values = {name: value for name, value in named if wanted is None or name in wanted}
        return _EPOCH + timedelta(microseconds=event_us), values

    @override
    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Create the database, and drop the rows of deleted views. A view that changes needs nothing done."""
        self._delete(config, {table.name for table in tables_to_delete} - {table.name for table in tables_to_keep})

    @override
    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Drop the rows of `tables`; the file stays, as other projects may share it."""
        self._delete(config, {table.name for table in tables})

    def _delete(self, config: RepoConfig, names: set[str]) -> None:
        con = self._connection(config, _connect)
        with _write(con):
            con.executemany("DELETE FROM entity_rows WHERE view = ?", [(f"{config.project}/{name}",) for name in names])

    @override
    def _is_versioned_read_supported(self) -> bool:
        """Rows of each version of a view are apart, so `view@v1:feature` works; Feast only knows its own stores."""
        return True

    def identity(self, config: RepoConfig) -> str:
        """What tells one store from another: an id that the database was given when it was created, and its file.

        The file counts too, as a copy has the id of the database that it was made of.

        Raises:
            OnlineStoreUnavailable: The database is not there, or cannot be read.
        """
        with self._reading(config) as con:
            return f"{con.execute('SELECT id FROM identity').fetchone()[0]} {_file(_path(config))}"

    def has_rows(self, config: RepoConfig, table: FeatureView) -> bool:
        """Whether anything is stored of a view.

        Raises:
            OnlineStoreUnavailable: The database is not there, or cannot be read.
        """
        sql = "SELECT 1 FROM entity_rows WHERE view = ? AND version = ? LIMIT 1"
        with self._reading(config) as con:
            return con.execute(sql, _view_key(config, table)).fetchone() is not None

    def _layout(self, con: sqlite3.Connection, layout: int) -> tuple[str, ...]:
        if layout not in self._layouts:
            (names,) = con.execute("SELECT names FROM layouts WHERE id = ?", (layout,)).fetchone()
            self._layouts[layout] = tuple(json.loads(names))
        return self._layouts[layout]

    @contextmanager
    def _reading(self, config: RepoConfig) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connection(config, _open)
        except OnlineStoreUnavailable:
            raise
        except (sqlite3.Error, OSError) as error:
            raise _unreadable(_path(config), error) from error

    def _connection(self, config: RepoConfig, connect: Callable[[Path], sqlite3.Connection]) -> sqlite3.Connection:
        """This thread's connection to the file that is there now.

        A forked child opens its own, as SQLite's must not cross a fork.
        """
        path = _path(config)
        if not hasattr(self._local, "opened"):
            self._local.opened = {}
        opened: dict[tuple[int, Path, object], _Opened] = self._local.opened
        owner = (os.getpid(), path, connect)
        known = opened.get(owner)
        if known is not None and known.file == _file(path):
            return known.connection
        # What a fork inherited stays in the dictionary: closing it would drop the parent's locks.
        if known is not None:
            known.connection.close()
            del opened[owner]
        connection = connect(path)
        file = _file(path)
        if file is None:
            connection.close()
            raise _gone(path)
        opened[owner] = _Opened(connection, file)
        return connection


def _path(config: RepoConfig) -> Path:
    path = Path(in_home(config.online_store.path))
    return path if config.repo_path is None or path.is_absolute() else Path(config.repo_path) / path


def _file(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _gone(path: Path) -> OnlineStoreUnavailable:
    return OnlineStoreUnavailable(
        f"online store {path} is not there; expected the database that publishing features creates: restore it, or "
        "publish again"
    )


def _unreadable(path: Path, error: sqlite3.Error | OSError) -> OnlineStoreUnavailable:
    return OnlineStoreUnavailable(
        f"online store {path} cannot be read ({error}); expected the database that publishing features creates: "
        "restore it, or move it away and publish again"
    )


def _damaged(path: Path, view: str, asked: EntityKey, error: Exception) -> OnlineStoreUnavailable:
    values = (getattr(value, value.WhichOneof("val") or "", None) for value in asked.entity_values)
    key = ", ".join(f"{name}={value!r}" for name, value in zip(asked.join_keys, values, strict=True))
    return OnlineStoreUnavailable(
        f"online store {path}: the row of view {view} for {key or 'no key'} is damaged ({type(error).__name__}: "
        f"{error}); expected what publishing wrote: restore the store, or move it away and publish again"
    )


def _open(path: Path) -> sqlite3.Connection:
    """For reading; SQLite itself is not allowed to create the file, whatever happens between two looks at it."""
    if not path.exists():
        raise _gone(path)
    con = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=_BUSY_SECONDS, isolation_level=None, uri=True)
    # Fails here and not halfway through an answer if this is another kind of file.
    con.execute("SELECT 1 FROM entity_rows LIMIT 1")
    return con


def _connect(path: Path) -> sqlite3.Connection:
    """For writing; creates the database."""
    path.parent.mkdir(parents=True, exist_ok=True)
    con = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    _use_wal(con)
    # In WAL mode a power cut may lose the last commits, never consistency; materializing again brings them back.
    con.execute("PRAGMA synchronous = normal")
    if con.execute("SELECT count(*) FROM sqlite_master WHERE name = 'identity'").fetchone()[0] == 0:
        con.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} INSERT INTO identity SELECT '{uuid.uuid4().hex}' "
            "WHERE NOT EXISTS (SELECT 1 FROM identity); COMMIT;"
        )
    return con


def _use_wal(con: sqlite3.Connection) -> None:
    """Switch the file to WAL, once in its life; SQLite's busy timeout does not cover this lock, so retry races."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            if con.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                con.execute("PRAGMA journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextmanager
def _write(con: sqlite3.Connection) -> Iterator[None]:
    """A transaction that takes the write lock at once: one that upgrades halfway fails instead of waiting its turn."""
    con.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")


def _view_key(config: RepoConfig, table: FeatureView) -> tuple[str, int]:
    """(project/view, version); the version is 0 unless Feast's online versioning is on."""
    version = None
    if config.registry.enable_online_feature_view_versioning:
        version = getattr(table.projection, "version_tag", None)
        if version is None:
            version = getattr(table, "current_version_number", None)
    return f"{config.project}/{table.name}", version or 0


def _encoded(
    config: RepoConfig,
    table: FeatureView,
    data: Sequence[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
) -> tuple[dict[tuple[str, ...], int], list[tuple[Any, ...]]]:
    """Ids of the layouts of rows, and the rows as they are stored."""
    view = _view_key(config, table)
    layouts: dict[tuple[str, ...], int] = {}
    rows = []
    for key, values, event_time, created in data:
        if event_time is None or event_time is pd.NaT:
            raise ValueError(f"A row for online view {view[0]!r} has no event time: {str(key).strip()!r}.")
        names = tuple(values)
        if names not in layouts:
            layouts[names] = _layout_id(names)
        times = _micros(event_time), _created(created)
        features = RepeatedValue(val=values.values()).SerializeToString()
        rows.append((*view, _key_bytes(config, key), *times, layouts[names], features))
    return layouts, rows


def _upsert(con: sqlite3.Connection, layouts: dict[tuple[str, ...], int], rows: list[tuple[Any, ...]]) -> None:
    con.executemany("INSERT OR IGNORE INTO layouts VALUES (?, ?)", [(i, json.dumps(n)) for n, i in layouts.items()])
    con.executemany(_UPSERT, rows)


def _key_bytes(config: RepoConfig, key: EntityKey) -> bytes:
    return serialize_entity_key(key, entity_key_serialization_version=config.entity_key_serialization_version)


def _layout_id(names: tuple[str, ...]) -> int:
    """An id that is the same for the same names anywhere, so that a reader's cache is never wrong."""
    digest = hashlib.blake2b(json.dumps(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _created(moment: datetime | None) -> int:
    return _NEVER_CREATED if moment is None or moment is pd.NaT else _micros(moment)


def _micros(moment: datetime) -> int:
    span = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds
