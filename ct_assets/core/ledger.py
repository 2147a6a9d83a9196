"""The ledger: decisions as append-only JSON lines, each holding the hash of the one before.

A changed, removed or inserted record breaks the chain at its place. A chain cannot show that its newest records were
cut off: keep `head()` somewhere else (a log, a release) to see that too.
"""

import errno
import fcntl
import io
import itertools
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from ct_assets.core.canonical import canonical_json, digest, iso_utc, plain
from ct_assets.core.durable import sync_folder
from ct_assets.core.ledger_index import Entry, LedgerIndex, micros

RETRAIN, SKIP, REQUEST = "retrain", "skip", "manual_request"
TRAINING, VERDICT = "training", "verdict"
PROMOTION, ROLLBACK, HOLD_RELEASE = "promotion", "rollback", "hold_release"
"""Kinds of records about a model."""
DECISIONS = (RETRAIN, SKIP)
POINTER_MOVES = (PROMOTION, ROLLBACK)
GENESIS = "0" * 64
T = TypeVar("T")


class LedgerError(ValueError):
    """A ledger that cannot be read or trusted; `seq` is the first broken record, if it is one record's fault."""

    def __init__(self, message: str, seq: int | None = None):
        super().__init__(message)
        self.seq = seq


@dataclass(frozen=True)
class Record:
    """One decision. `as_of` is the event time it was taken for, `recorded_at` the wall clock, both ISO 8601 UTC."""

    seq: int
    prev: str
    hash: str
    kind: str
    model: str
    as_of: str
    recorded_at: str
    key: str | None
    evidence: Mapping[str, Any]

    def computed_hash(self) -> str:
        """SHA-256 of the canonical JSON of everything but `hash`."""
        return digest({name: value for name, value in vars(self).items() if name != "hash"})

    @property
    def is_experiment(self) -> bool:
        """Whether it is about what a person tried: a training or a verdict that automation does not act on."""
        return not self.evidence.get("promote", True)


class Ledger:
    """An append-only file of decisions, shared by threads and processes of one machine.

    Appending holds an exclusive lock on the file, reads only what other processes have appended since, writes one line
    and syncs it to disk. A line left unfinished by a crash is moved to `<path>.torn` on the next append; readers never
    see it. Reading takes no lock. Records are found by an index beside the file, `<path>.index`, which is derived from
    it: only `verify` and a lost index read the file whole.

    Parameters: `path` on a local file system (its folder is created); `clock` gives `recorded_at`.
    """

    def __init__(self, path: str | os.PathLike[str], clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self.path = Path(path)
        self._clock = clock
        self._mutex = threading.RLock()
        self._index = LedgerIndex(self.path.with_name(self.path.name + ".index"))
        self._held = ("", b"")

    def append(
        self, kind: str, model: str, as_of: datetime | str, evidence: Mapping[str, Any], *, key: str | None = None
    ) -> Record:
        """Record a decision, durably, before returning it.

        Parameters: `as_of` a moment with a time zone; `evidence` anything `canonical.plain` can turn into JSON;
        `key`: if a record with this key exists, it is returned and nothing is appended, so that a run repeated
        after a crash records its decision once.
        Raises ValueError for an `as_of` without time zone, TypeError for evidence without a JSON form, LedgerError
        for an unreadable file or a key that belongs to another model, OSError for a write that the disk did not take.
        """
        moment = _moment(as_of)
        content = plain(evidence, "evidence")
        with self._mutex, self._locked() as file:
            newest, existing = self._ask(file, lambda index: (index.newest(), key and index.of_key(key)))
            if existing:
                return self._existing(file, existing, model)
            end = newest.start + newest.length if newest else 0
            file.seek(end)
            if torn := file.read():
                self._move_aside(file, torn, end)
            seq, head = (newest.seq, newest.hash) if newest else (0, GENESIS)
            draft = Record(seq + 1, head, "", kind, model, moment, iso_utc(self._clock()), key, content)
            record = Record(**{**vars(draft), "hash": draft.computed_hash()})
            self._write(file, (canonical_json(record) + "\n").encode(), end)
            self._ask(file, LedgerIndex.newest)
            return record

    def records(self, kind: str | None = None, model: str | None = None, newest_first: bool = False) -> list[Record]:
        """The records of a kind and model (None: any), oldest first unless told otherwise."""
        return list(self.iterate(kind, model, newest_first))

    def iterate(
        self, kind: str | None = None, model: str | None = None, newest_first: bool = False
    ) -> Iterator[Record]:
        """The same one by one, for who may stop early: a record is read when it is asked for."""
        with self._opened() as file:
            for start, length in self._ask(file, lambda index: index.select(kind, model, newest_first)):
                yield self._read(file, start, length)

    def models(self) -> list[str]:
        """Everything that there is a record about, in the order of the first one."""
        with self._opened() as file:
            return self._ask(file, LedgerIndex.models)

    def newest(
        self,
        kinds: Collection[str] | None,
        model: str,
        before: datetime | None = None,
        wanted: Callable[[Record], bool] = lambda _: True,
    ) -> Record | None:
        """The record about the latest moment of event time, of several the one written last.

        Parameters: `kinds` those to look at (None: any); `before`, if given, leaves out the records about this moment
        and later ones; `wanted` says of a record whether it counts.
        """
        limit = None if before is None else micros(before)
        with self._opened() as file:

            def first(index: LedgerIndex) -> Record | None:
                found = (self._read(file, e.start, e.length) for e in index.latest_first(kinds, model, limit))
                return next(filter(wanted, found), None)

            return self._ask(file, first)

    def last_written(self, kinds: Collection[str] | None, model: str, until: datetime | None = None) -> Record | None:
        """The record written last, of those about moments of event time up to `until`, included, if it is given."""
        limit = None if until is None else micros(until)
        return self._first(lambda index: index.last_written(kinds, model, limit))

    def newest_moment(self, model: str) -> datetime:
        """The latest moment of event time that there is a record about; the beginning of 1970 before the first."""
        record = self.newest(None, model)
        return datetime.fromtimestamp(0, UTC) if record is None else datetime.fromisoformat(record.as_of)

    def find(self, key: str) -> Record | None:
        """The record with this idempotency key, or None."""
        return self._first(lambda index: index.of_key(key))

    def head(self) -> str:
        """Hash of the newest record; 64 zeros for an empty ledger."""
        with self._opened() as file:
            newest = self._ask(file, LedgerIndex.newest)
        return newest.hash if newest else GENESIS

    def verify(self) -> int:
        """Recompute every hash from the file and follow the chain; returns the number of records.

        Raises LedgerError naming the first broken record.
        """
        prev, count = GENESIS, 0
        with self._mutex, self._opened() as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # unfinished: not a record yet
                count += 1
                record = _parse(line, count, self.path)
                problem = _problem(record, line, count, prev)
                if problem:
                    raise LedgerError(f"{self.path}: record {count} {problem}; restore the ledger from a copy", count)
                prev = record.hash
        return count

    @contextmanager
    def _locked(self) -> Iterator[Any]:
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, also by a crash
            if new:
                sync_folder(self.path.parent)
            yield file

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        with (self.path if self.path.exists() else Path(os.devnull)).open("rb") as file:
            yield file

    def _first(self, question: Callable[[LedgerIndex], Entry | None]) -> Record | None:
        with self._opened() as file:
            found = self._ask(file, question)
            return None if found is None else self._read(file, found.start, found.length)

    def _ask(self, file: Any, question: Callable[[LedgerIndex], T]) -> T:
        """Ask the index, once it has what other processes appended; another one if it cannot be used."""
        with self._mutex:
            if not self.path.exists():
                return question(LedgerIndex(None))
            while True:
                try:
                    self._catch_up(file)
                    return question(self._index)
                except sqlite3.Error as error:
                    self._index.replace(error)

    def _catch_up(self, file: Any) -> None:
        """Index the complete lines that the index does not know."""
        newest = self._index.newest()
        if newest is not None and not self._holds(file, newest):
            self._index.clear()  # another file took its place: restored from a copy, or removed
            newest = None
        lines = _lines(file, newest.start + newest.length if newest else 0)
        first = next(lines, None)
        if first is not None:
            self._index.extend(newest, self._entries(itertools.chain([first], lines), newest))
            self._catch_up(file)

    def _entries(self, lines: Iterable[bytes], newest: Entry | None) -> Iterator[Entry]:
        seq, start = (newest.seq, newest.start + newest.length) if newest else (0, 0)
        for line in lines:
            seq += 1
            record = _parse(line, seq, self.path)
            moment = micros(datetime.fromisoformat(record.as_of))
            yield Entry(seq, start, len(line), record.hash, record.kind, record.model, moment, record.key)
            start += len(line)

    def _holds(self, file: Any, entry: Entry) -> bool:
        """Whether the record is in the file where the index says."""
        file.seek(entry.start)
        line = file.read(entry.length)
        if (entry.hash, line) == self._held:
            return True
        try:
            held = line.endswith(b"\n") and _parse(line, None, self.path).hash == entry.hash
        except LedgerError:
            return False
        self._held = (entry.hash, line) if held else ("", b"")
        return held

    def _read(self, file: Any, start: int, length: int) -> Record:
        file.seek(start)
        return _parse(file.read(length), None, self.path)

    def _existing(self, file: Any, entry: Entry, model: str) -> Record:
        record = self._read(file, entry.start, entry.length)
        if record.model != model:
            raise LedgerError(
                f"{self.path}: key {record.key!r} already belongs to record {record.seq} of model {record.model!r}, "
                f"not {model!r}; put the model's name into the key",
                record.seq,
            )
        return record

    def _move_aside(self, file: Any, torn: bytes, end: int) -> None:
        aside = self.path.with_name(self.path.name + ".torn")
        with aside.open("ab") as keep:
            keep.write(torn + b"\n")
            keep.flush()
            os.fsync(keep.fileno())
        sync_folder(self.path.parent)
        os.ftruncate(file.fileno(), end)

    def _write(self, file: Any, line: bytes, end: int) -> None:
        written = os.write(file.fileno(), line)
        if written != len(line):
            os.ftruncate(file.fileno(), end)
            problem = f"the disk took {written} of {len(line)} bytes; free space and run again"
            raise OSError(errno.ENOSPC, problem, str(self.path))
        os.fsync(file.fileno())


def _lines(file: Any, start: int) -> Iterator[bytes]:
    """The complete lines of a file from a position on, read in blocks."""
    file.seek(start)
    rest = b""
    while block := file.read(1 << 20):
        complete, end, rest = (rest + block).rpartition(b"\n")
        yield from io.BytesIO(complete + end)


def _moment(as_of: datetime | str) -> str:
    moment = datetime.fromisoformat(as_of) if isinstance(as_of, str) else as_of
    if moment.tzinfo is None:
        raise ValueError(f"as_of {as_of!r} has no time zone; pass a UTC timestamp")
    return iso_utc(moment)


def _parse(line: bytes, seq: int | None, path: Path) -> Record:
    try:
        return Record(**json.loads(line))
    except (TypeError, ValueError) as error:
        name = "a record" if seq is None else f"record {seq}"
        raise LedgerError(
            f"{path}: {name} is not a ledger line ({error}); restore the ledger from a copy", seq
        ) from error


def _problem(record: Record, line: bytes, seq: int, prev: str) -> str | None:
    if record.seq != seq:
        return f"is numbered {record.seq}: a record was removed or inserted"
    if record.prev != prev:
        return "does not follow from the one before it"
    if record.computed_hash() != record.hash or (canonical_json(record) + "\n").encode() != line:
        return "does not match its own hash: it was changed"
    return None
