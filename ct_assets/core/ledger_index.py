"""Where a ledger's records are in its file: a SQLite database beside it, so that no process reads the file whole.

The ledger's file is the truth. The index is made from it, follows it, and is made again when it does not fit: when it
is missing or damaged, or when the newest line that it knows is not in the file. Each record holds the hash of the one
before, so a file with that line has all the lines before it.
"""

import heapq
import os
import sqlite3
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

VERSION = 1
_TABLES = """
CREATE TABLE entry (
  seq INTEGER PRIMARY KEY, start INTEGER NOT NULL, length INTEGER NOT NULL, hash TEXT NOT NULL,
  kind TEXT NOT NULL, model TEXT NOT NULL, as_of INTEGER NOT NULL, key TEXT
);
CREATE INDEX by_time ON entry (model, kind, as_of, seq);
CREATE INDEX by_order ON entry (model, kind, seq);
CREATE INDEX by_key ON entry (key, seq) WHERE key IS NOT NULL;
CREATE TABLE line (model TEXT, kind TEXT, seq INTEGER NOT NULL, PRIMARY KEY (model, kind)) WITHOUT ROWID;
"""
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Entry:
    """One record: where its line is, and what it is looked up by.

    Attributes:
        seq: Number of the record, from 1.
        start: First byte of its line.
        length: Of the line in bytes, with its newline.
        hash: Of the record.
        kind: Of the record.
        model: That the record is about.
        as_of: Event time in microseconds since 1970 UTC.
        key: Idempotency key, if it has one.
    """

    seq: int
    start: int
    length: int
    hash: str
    kind: str
    model: str
    as_of: int
    key: str | None


def micros(moment: datetime) -> int:
    """Microseconds since 1970 UTC of a moment with a time zone."""
    return int((moment - _EPOCH) // timedelta(microseconds=1))


class LedgerIndex:
    """The index in one file; used by one thread at a time, and by any number of processes.

    Args:
        path: Of the database; in memory if None, and where the file cannot be written, as on a read-only disk.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        # A forked process must not use its parent's connection.
        self._connections: dict[int, sqlite3.Connection] = {}

    def newest(self) -> Entry | None:
        """The last record that the index knows."""
        return next(self._entries("ORDER BY seq DESC LIMIT 1"), None)

    def extend(self, after: Entry | None, entries: Iterable[Entry]) -> None:
        """Add records behind `after`; nothing if another process has done so meanwhile."""
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            if self.newest() == after:
                for entry in entries:
                    connection.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", tuple(vars(entry).values()))
                    connection.execute(
                        "INSERT OR IGNORE INTO line VALUES (?, ?, ?)", (entry.model, entry.kind, entry.seq)
                    )
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise

    def clear(self) -> None:
        """Forget everything: the ledger is another one."""
        self._connection().executescript("BEGIN IMMEDIATE; DELETE FROM entry; DELETE FROM line; COMMIT;")

    def replace(self, error: sqlite3.Error) -> None:
        """Begin with an empty index after an error: in a new file if it is damaged, in memory if it cannot be used."""
        connection = self._connections.pop(os.getpid(), None)
        if connection is not None:
            connection.close()
        if self.path is None:
            raise error
        if isinstance(error, sqlite3.OperationalError):
            self.path = None
        else:
            for suffix in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def of_key(self, key: str) -> Entry | None:
        """The first record with an idempotency key."""
        return next(self._entries("WHERE key = ? ORDER BY seq LIMIT 1", key), None)

    def latest_first(self, kinds: Collection[str] | None, model: str, before: int | None) -> Iterator[Entry]:
        """The records by event time, before a moment if one is given; of equal ones the last written comes first."""
        limit = "" if before is None else "AND as_of < ?"
        moment = () if before is None else (before,)
        sql = f"WHERE model = ? AND kind = ? {limit} ORDER BY as_of DESC, seq DESC"
        found = (self._entries(sql, model, kind, *moment) for kind in self._kinds(kinds, model))
        return heapq.merge(*found, key=lambda entry: (entry.as_of, entry.seq), reverse=True)

    def last_written(self, kinds: Collection[str] | None, model: str, until: int | None) -> Entry | None:
        """The record written last, of those about a moment up to `until` if one is given."""
        limit = "" if until is None else "AND as_of <= ?"
        moment = () if until is None else (until,)
        sql = f"WHERE model = ? AND kind = ? {limit} ORDER BY seq DESC LIMIT 1"
        found = [e for kind in self._kinds(kinds, model) for e in self._entries(sql, model, kind, *moment)]
        return max(found, key=lambda entry: entry.seq, default=None)

    def select(self, kind: str | None, model: str | None, newest_first: bool) -> list[tuple[int, int]]:
        """Start and length of the lines of a kind and model, in the order of their writing or against it."""
        order = "DESC" if newest_first else "ASC"
        if kind is None and model is None:
            return self._connection().execute(f"SELECT start, length FROM entry ORDER BY seq {order}").fetchall()
        sql = f"""
SELECT e.start, e.length FROM line l JOIN entry e ON e.model = l.model AND e.kind = l.kind
WHERE (?1 IS NULL OR l.kind = ?1) AND (?2 IS NULL OR l.model = ?2) ORDER BY e.seq {order}
"""
        return self._connection().execute(sql, (kind, model)).fetchall()

    def models(self) -> list[str]:
        """Everything there is a record about, in the order of the first one."""
        sql = "SELECT model FROM line GROUP BY model ORDER BY min(seq)"
        return [model for (model,) in self._connection().execute(sql)]

    def _kinds(self, kinds: Collection[str] | None, model: str) -> Collection[str]:
        if kinds is not None:
            return kinds
        return [kind for (kind,) in self._connection().execute("SELECT kind FROM line WHERE model = ?", (model,))]

    def _entries(self, condition: str, *parameters: object) -> Iterator[Entry]:
        for row in self._connection().execute(f"SELECT * FROM entry {condition}", parameters):
            yield Entry(*row)

    def _connection(self) -> sqlite3.Connection:
        found = self._connections.get(os.getpid())
        if found is None:
            found = _in_memory() if self.path is None else _open(self.path)
            self._connections[os.getpid()] = found
        return found


def _in_memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    connection.executescript(_TABLES)
    return connection


def _open(path: Path) -> sqlite3.Connection:
    if not path.exists():
        _create(path)
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
    # What a power failure takes of a write-ahead log is indexed again.
    connection.execute("PRAGMA synchronous = NORMAL")
    if connection.execute("PRAGMA user_version").fetchone() != (VERSION,):
        connection.close()
        raise sqlite3.DatabaseError(f"{path} has another layout than version {VERSION}")
    return connection


def _create(path: Path) -> None:
    """Create the database aside and link it to its name, so that of several processes each finds a whole one."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        connection = sqlite3.connect(aside)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"{_TABLES} PRAGMA user_version = {VERSION};")
        connection.close()
        os.link(aside, path)
    except FileExistsError:
        return
    except OSError as error:
        raise sqlite3.OperationalError(f"{path} cannot be created: {error}") from error
    finally:
        aside.unlink(missing_ok=True)
