"""The ledger: decisions as append-only JSON lines, each holding the hash of the one before.

A changed, removed or inserted record breaks the chain at its place. A chain cannot show that its newest records were
cut off: keep `head()` somewhere else (a log, a release) to see that too.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ct_assets.core.canonical import canonical_json, digest, iso_utc, plain
from ct_assets.core.durable import sync_folder

RETRAIN, SKIP, REQUEST = "retrain", "skip", "manual_request"
TRAINING, VERDICT = "training", "verdict"
PROMOTION, ROLLBACK = "promotion", "rollback"
"""Kinds of records about a model."""
DECISIONS = (RETRAIN, SKIP)
POINTER_MOVES = (PROMOTION, ROLLBACK)
GENESIS = "0" * 64


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


@dataclass(frozen=True)
class _Entry:
    """Where a record's line is, and what it is looked up by: the records themselves stay on disk."""

    offset: int
    length: int
    kind: str
    model: str
    as_of: datetime


class Ledger:
    """An append-only file of decisions, shared by threads and processes of one machine.

    Appending holds an exclusive lock on the file, reads only what other processes have appended since, writes one line
    and syncs it to disk. A line left unfinished by a crash is moved to `<path>.torn` on the next append; readers never
    see it. Reading takes no lock.

    Parameters: `path` on a local file system (its folder is created); `clock` gives `recorded_at`.
    """

    def __init__(self, path: str | os.PathLike[str], clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self.path = Path(path)
        self._clock = clock
        self._mutex = threading.RLock()
        self._forget()

    def append(
        self, kind: str, model: str, as_of: datetime | str, evidence: Mapping[str, Any], *, key: str | None = None
    ) -> Record:
        """Record a decision, durably, before returning it.

        Parameters: `as_of` a moment with a time zone; `evidence` anything `canonical.plain` can turn into JSON;
        `key`: if a record with this key exists, it is returned and nothing is appended, so that a run repeated
        after a crash records its decision once.
        Raises ValueError for an `as_of` without time zone, TypeError for evidence without a JSON form, LedgerError
        for an unreadable file, a key that belongs to another model, or a write that the disk did not take.
        """
        moment = _moment(as_of)
        content = plain(evidence, "evidence")
        with self._mutex, self._locked() as file:
            torn = self._catch_up(file)
            if key is not None and key in self._keys:
                return self._existing(file, key, model)
            if torn:
                self._move_aside(file, torn)
            seq = len(self._entries) + 1
            draft = Record(seq, self._head, "", kind, model, moment, iso_utc(self._clock()), key, content)
            record = Record(**{**vars(draft), "hash": draft.computed_hash()})
            self._write(file, (canonical_json(record) + "\n").encode())
            self._catch_up(file)
            return record

    def records(self, kind: str | None = None, model: str | None = None, newest_first: bool = False) -> list[Record]:
        """The records of a kind and model (None: any), oldest first unless told otherwise."""
        return list(self._select(kind, model, newest_first))

    def models(self) -> list[str]:
        """Everything that there is a record about, in the order of the first one."""
        with self._mutex, self._opened() as file:
            self._catch_up(file)
            return list(self._by_model)

    def newest(self, kinds: Collection[str] | None, model: str, before: datetime | None = None) -> Record | None:
        """The record about the latest moment of event time, of several the one written last.

        Parameters: `kinds` those to look at (None: any); `before`, if given, leaves out the records about this moment
        and later ones.
        """
        with self._mutex, self._opened() as file:
            self._catch_up(file)
            entries = [
                entry
                for entry in self._by_model.get(model, [])
                if (kinds is None or entry.kind in kinds) and (before is None or entry.as_of < before)
            ]
            # They lie in the order of their writing, so of equal moments the last one wins.
            found = max(reversed(entries), key=lambda entry: entry.as_of, default=None)
            return None if found is None else self._read(file, found)

    def newest_moment(self, model: str) -> datetime:
        """The latest moment of event time that there is a record about; the beginning of 1970 before the first."""
        record = self.newest(None, model)
        return datetime.fromtimestamp(0, UTC) if record is None else datetime.fromisoformat(record.as_of)

    def find(self, key: str) -> Record | None:
        """The record with this idempotency key, or None."""
        with self._mutex, self._opened() as file:
            self._catch_up(file)
            return self._read(file, self._keys[key]) if key in self._keys else None

    def head(self) -> str:
        """Hash of the newest record; 64 zeros for an empty ledger."""
        with self._mutex, self._opened() as file:
            self._catch_up(file)
            return self._head

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

    def _forget(self) -> None:
        self._identity: tuple[int, int] | None = None
        self._offset = 0
        self._head = GENESIS
        self._last_line = b""
        self._entries: list[_Entry] = []
        self._by_model: dict[str, list[_Entry]] = {}
        self._keys: dict[str, _Entry] = {}

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
        if not self.path.exists():
            self._forget()
            with Path(os.devnull).open("rb") as nothing:
                yield nothing
        else:
            with self.path.open("rb") as file:
                yield file

    def _catch_up(self, file: Any) -> bytes:
        """Index the lines appended since last time; returns the unfinished bytes at the end, if any."""
        status = os.fstat(file.fileno())
        identity = (status.st_dev, status.st_ino)
        file.seek(self._offset - len(self._last_line))
        if identity != self._identity or file.read(len(self._last_line)) != self._last_line:
            self._forget()  # another file took its place: restored from a copy, or removed
            self._identity = identity
        file.seek(self._offset)
        complete, end, torn = file.read().rpartition(b"\n")
        for line in (complete + end).splitlines(keepends=True):
            record = _parse(line, len(self._entries) + 1, self.path)
            entry = _Entry(self._offset, len(line), record.kind, record.model, datetime.fromisoformat(record.as_of))
            self._entries.append(entry)
            self._by_model.setdefault(entry.model, []).append(entry)
            if record.key is not None:
                self._keys.setdefault(record.key, entry)
            self._head = record.hash
            self._offset += len(line)
            self._last_line = line
        return bytes(torn)

    def _select(self, kind: str | None, model: str | None, newest_first: bool) -> Iterator[Record]:
        with self._mutex, self._opened() as file:
            self._catch_up(file)
            entries = self._entries if model is None else self._by_model.get(model, [])
            for entry in reversed(entries) if newest_first else list(entries):
                if kind in (None, entry.kind):
                    yield self._read(file, entry)

    def _read(self, file: Any, entry: _Entry) -> Record:
        file.seek(entry.offset)
        return _parse(file.read(entry.length), None, self.path)

    def _existing(self, file: Any, key: str, model: str) -> Record:
        record = self._read(file, self._keys[key])
        if record.model != model:
            raise LedgerError(
                f"{self.path}: key {key!r} already belongs to record {record.seq} of model {record.model!r}, not "
                f"{model!r}; put the model's name into the key",
                record.seq,
            )
        return record

    def _move_aside(self, file: Any, torn: bytes) -> None:
        aside = self.path.with_name(self.path.name + ".torn")
        with aside.open("ab") as keep:
            keep.write(torn + b"\n")
            keep.flush()
            os.fsync(keep.fileno())
        sync_folder(self.path.parent)
        os.ftruncate(file.fileno(), self._offset)

    def _write(self, file: Any, line: bytes) -> None:
        written = os.write(file.fileno(), line)
        if written != len(line):
            os.ftruncate(file.fileno(), self._offset)
            raise LedgerError(f"{self.path}: the disk took {written} of {len(line)} bytes; free space and run again")
        os.fsync(file.fileno())


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
