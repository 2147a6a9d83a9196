"""Rows that arrive as messages: kept on disk as they come, and landed as files from time to time.

A SQLite database makes three things sure at once, for any number of processes on one home: what was answered for is on
disk, a request is taken whole or not at all, and a message that is delivered again is recognized. Digests of what has
landed stay for `KEEP`; whatever is delivered again after that is found by the contract, which takes a key once a day.
"""

import fcntl
import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ct_assets.lake.contract import Source
from ct_assets.lake.landing import Landing
from ct_assets.lake.paths import create_database

KEEP = timedelta(days=14)
"""How long a delivered message is remembered; brokers try again for minutes to days, mostly a week at the longest."""

_SCHEMA = """
CREATE TABLE message (digest BLOB PRIMARY KEY, received REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX message_age ON message (received);
CREATE TABLE line (
    number INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, partition TEXT NOT NULL, identity BLOB NOT NULL,
    key BLOB NOT NULL, content BLOB NOT NULL, received REAL NOT NULL, file INTEGER, text TEXT,
    UNIQUE (source, partition, identity)
);
CREATE INDEX line_waiting ON line (source, partition, number) WHERE text IS NOT NULL;
CREATE INDEX line_age ON line (received);
"""


class InboxFullError(RuntimeError):
    """Nothing more can be kept at the moment; the sender is to try again later."""


class ConflictError(ValueError):
    """A row says something else than one of the same identity that was taken before."""


@dataclass(frozen=True)
class Row:
    """One row of a message.

    Attributes:
        partition: Arrival partition, or `WHOLE`.
        identity: Digest of what makes it this row: of two with one identity, only one can be true.
        key: Digest of the contract's key; a file holds each once.
        content: Digest of what was sent.
        text: The row as one line of JSON in ASCII.
    """

    partition: str
    identity: bytes
    key: bytes
    content: bytes
    text: str


@dataclass(frozen=True)
class Message:
    """What was delivered under one name.

    Attributes:
        digest: Digest of the name; the same one again is another delivery of the same.
        source: Name of the source that its rows belong to.
        lines: Its rows.
    """

    digest: bytes
    source: str
    lines: Sequence[Row]


@dataclass(frozen=True)
class Taken:
    """How many rows were new, by source, and how many messages had been delivered before."""

    rows: Mapping[str, int]
    repeated: int


class Inbox:
    """The rows under one home that have been answered for and have yet to land.

    Args:
        home: `$CT_HOME`.
        sources: Whose rows it takes.
        most_rows: Rows of one file; so many land at once.
        longest: The oldest row waits no longer than this to land.
        capacity: Rows that may wait; more are refused until some have landed.
    """

    def __init__(
        self,
        home: Path,
        sources: Sequence[Source],
        most_rows: int = 10_000,
        longest: timedelta = timedelta(minutes=1),
        capacity: int = 1_000_000,
    ) -> None:
        self.sources = {source.name: source for source in sources}
        self.most_rows, self.longest, self.capacity = most_rows, longest, capacity
        self._home = home
        self._path = home / "events" / "inbox.sqlite"
        create_database(self._path, _create)
        self._mutex = threading.Lock()
        self._connection = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        # Each commit is on disk before it is answered for.
        self._connection.execute("PRAGMA synchronous=FULL")
        self._waiting = self._count()

    def close(self) -> None:
        """Close the database; what waits stays in it."""
        with self._mutex:
            self._connection.close()

    def take(self, messages: Sequence[Message], now: float | None = None) -> Taken:
        """Keep all rows of all messages, or nothing; once it returns they outlast a power cut.

        Raises:
            ConflictError: A row contradicts one that was taken before.
            InboxFullError: Too many rows wait to land, or the disk is full or busy.
        """
        now = time.time() if now is None else now
        rows, repeated = dict.fromkeys((m.source for m in messages), 0), 0
        if self._waiting + sum(len(m.lines) for m in messages) > self.capacity:
            raise InboxFullError(f"{self._waiting:,} rows wait to land, of at most {self.capacity:,}")
        with self._transaction() as connection:
            for message in messages:
                if _insert(connection, "message (digest, received) VALUES (?, ?)", (message.digest, now)):
                    rows[message.source] += sum(_keep(connection, message.source, line, now) for line in message.lines)
                else:
                    repeated += 1
        self._waiting += sum(rows.values())
        return Taken(rows, repeated)

    def land(self, now: float | None = None, everything: bool = False) -> int:
        """Land what is due: files that are full or whose oldest row has waited long enough.

        Args:
            now: Seconds since 1970 by the wall clock.
            everything: Whether also what is not due lands.

        Returns:
            Number of files. One process lands at a time; the others have nothing to do meanwhile.

        Raises:
            OSError: A landing place did not take a file; it lands at a later call.
            InboxFullError: The disk is full or busy.
        """
        now = time.time() if now is None else now
        with (self._path.parent / ".landing").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0
            files, problems = 0, []
            for source in self.sources.values():
                try:
                    files += self._land(source, now, everything)
                except Exception as problem:
                    # A place that does not answer must not hold up the others.
                    problems.append(problem)
            self._forget(now)
        self._waiting = self._count()
        if problems:
            raise problems[0]
        return files

    def _land(self, source: Source, now: float, everything: bool) -> int:
        files = self._land_claimed(source)
        for partition in self._due(source, now, everything):
            while self._claim(source.name, partition):
                files += self._land_claimed(source)
        return files

    def _due(self, source: Source, now: float, everything: bool) -> list[str]:
        found = self._select(
            "SELECT partition, count(*), min(received) FROM line WHERE source = ? AND text IS NOT NULL "
            "GROUP BY partition ORDER BY partition",
            (source.name,),
        )
        oldest = now - self.longest.total_seconds()
        return [
            partition
            for partition, rows, first in found
            if everything or rows >= self.most_rows or not oldest < first <= now
        ]

    def _claim(self, source: str, partition: str) -> bool:
        """Settle what the next file holds, so that it is the same file whoever writes it, and however often."""
        waiting = self._select(
            "SELECT number, key FROM line WHERE source = ? AND partition = ? AND text IS NOT NULL "
            "ORDER BY number LIMIT ?",
            (source, partition, self.most_rows),
        )
        keys: set[bytes] = set()
        for place, (_, key) in enumerate(waiting):
            if key in keys:
                # Another version of a row of a reference table: a file brings one of each.
                waiting = waiting[:place]
                break
            keys.add(key)
        if not waiting:
            return False
        first, last = waiting[0][0], waiting[-1][0]
        with self._transaction() as connection:
            connection.execute(
                "UPDATE line SET file = ? WHERE source = ? AND partition = ? AND text IS NOT NULL "
                "AND number BETWEEN ? AND ?",
                (first, source, partition, first, last),
            )
        return True

    def _land_claimed(self, source: Source) -> int:
        claimed = self._select(
            "SELECT DISTINCT partition, file FROM line "
            "WHERE source = ? AND text IS NOT NULL AND file IS NOT NULL ORDER BY file",
            (source.name,),
        )
        which = "source = ? AND partition = ? AND file = ? AND text IS NOT NULL"
        for partition, file in claimed:
            values = (source.name, partition, file)
            found = self._select(f"SELECT text FROM line WHERE {which} ORDER BY number", values)
            payload = "".join(f"{text}\n" for (text,) in found).encode(source.encoding)
            name = f"events-{file:010d}-{hashlib.sha256(payload).hexdigest()[:12]}.jsonl"
            Landing(self._home, source).write(partition, name, payload)
            with self._transaction() as connection:
                connection.execute(f"UPDATE line SET text = NULL WHERE {which}", values)
        return len(claimed)

    def _forget(self, now: float) -> None:
        before = (now - KEEP.total_seconds(),)
        with self._transaction() as connection:
            connection.execute("DELETE FROM message WHERE received < ?", before)
            connection.execute("DELETE FROM line WHERE received < ? AND text IS NULL", before)

    def _count(self) -> int:
        ((count,),) = self._select("SELECT count(*) FROM line WHERE text IS NOT NULL")
        return int(count)

    def _select(self, sql: str, values: Sequence[object] = ()) -> list[tuple]:
        with self._mutex:
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._mutex:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                raise InboxFullError(f"{self._path} takes nothing at the moment ({error})") from error


def _keep(connection: sqlite3.Connection, source: str, line: Row, now: float) -> bool:
    values = (source, line.partition, line.identity, line.key, line.content, now, line.text)
    columns = "line (source, partition, identity, key, content, received, text) VALUES (?, ?, ?, ?, ?, ?, ?)"
    if _insert(connection, columns, values):
        return True
    which = "source = ? AND partition = ? AND identity = ?"
    ((content,),) = connection.execute(f"SELECT content FROM line WHERE {which}", values[:3]).fetchall()
    if content != line.content:
        raise ConflictError(
            f"the row {line.text:.200} of {source} differs from one with its key that arrived for {line.partition} "
            "before; expected each key once: give what has changed a key of its own, or land a corrected file"
        )
    return False


def _insert(connection: sqlite3.Connection, into: str, values: Sequence[object]) -> bool:
    return connection.execute(f"INSERT OR IGNORE INTO {into}", values).rowcount == 1


def _create(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "inbox.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(_SCHEMA)
