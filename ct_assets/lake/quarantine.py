"""Rejected files: kept as they came, each next to a note that says why and what became of it.

A rejection stays open, and its day's contract check red, until its rows are there (a fixed file was accepted), or a
person has said that they are to be taken in as they are (release), or that they will not come (drop).
"""

import hashlib
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.lake.contract import Source
from ct_assets.lake.dataset import Dataset
from ct_assets.lake.formats import UnreadableError, read
from ct_assets.lake.landing import kept_folder, shortened
from ct_assets.lake.paths import write_atomically

RELEASED, DROPPED, REPLACED = "released", "dropped", "replaced"
"""What becomes of a rejection; the first two are also kinds of ledger records."""


@dataclass(frozen=True)
class Rejection:
    """One rejected file.

    Attributes:
        source: Name of its source.
        partition: Arrival partition, or `WHOLE`.
        file: Name under which it landed.
        digest: SHA-256 of its bytes.
        rows: Its rows; 0 when they could not be read.
        reasons: Why it was rejected.
        accepted: Digests of what had been accepted of its partition before.
        rejected_at: When, ISO 8601 in UTC, by the wall clock.
        closed: What became of it: `released`, `dropped`, `replaced`; empty while that is open.
        because: Why it was closed: a person's words, or the name of the file that replaced it.
    """

    source: str
    partition: str
    file: str
    digest: str
    rows: int
    reasons: tuple[str, ...]
    accepted: tuple[str, ...]
    rejected_at: str = ""
    closed: str = ""
    because: str = ""

    @property
    def id(self) -> str:
        """What a command calls it; of what is sent twice, each copy has its own."""
        place = json.dumps([self.source, self.partition, self.file, self.digest])
        return hashlib.sha256(place.encode()).hexdigest()[:12]


class Quarantine:
    """The rejected files of one source.

    Args:
        home: `$CT_HOME`.
        source: Whose they are.
    """

    def __init__(self, home: Path, source: Source) -> None:
        self._home, self._source = home, source
        self._root = home / "quarantine" / source.name

    def path(self, rejection: Rejection) -> Path:
        """Where its file lies."""
        return self._folder(rejection.partition) / f"{rejection.digest[:12]}-{shortened(rejection.file)}"

    def note(self, rejection: Rejection) -> None:
        """Keep a note: of a new rejection, or of what became of one."""
        content = json.dumps(vars(rejection), indent=2).encode()
        write_atomically(self._note_path(rejection), content)

    def all(self, partition: str | None = None) -> list[Rejection]:
        """Every rejection whose file is still here, of one partition or of all, in order of partitions."""
        folder = self._root if partition is None else self._folder(partition)
        notes = sorted(folder.glob("*.json") if partition is not None else folder.rglob("*.json"))
        found = [_rejection(note.read_text()) for note in notes if note.with_suffix("").exists()]
        return sorted(found, key=lambda rejection: (rejection.partition, rejection.rejected_at))

    def open(self, dataset: Dataset, partition: str | None = None) -> list[Rejection]:
        """The rejections that still keep a partition's contract broken."""
        found = self.all(partition)
        taken = {p: {f.digest for f in dataset.partition(p)} for p in {r.partition for r in found if r.closed}}
        return [r for r in found if not r.closed or (r.closed == RELEASED and r.digest not in taken[r.partition])]

    def is_released(self, partition: str, digest: str) -> bool:
        """Whether a person said that these bytes, of whatever name, are to be taken in as they are."""
        notes = self._folder(partition).glob(f"{digest[:12]}-*.json")
        return any(_rejection(note.read_text()).closed == RELEASED for note in notes)

    def settle(self, dataset: Dataset, partition: str, name: str, table: pa.Table) -> None:
        """Close the rejections whose rows have come with a batch that was just accepted.

        They have when every key of the rejected file is there that was not before. Rows whose key cannot be read, and
        files that cannot, are taken to have come with a file of the same name.
        """
        for rejection in self.open(dataset, partition):
            if self._has_come(rejection, dataset, name, table):
                self.note(replace(rejection, closed=REPLACED, because=name))

    def _has_come(self, rejection: Rejection, dataset: Dataset, name: str, table: pa.Table) -> bool:
        same_name = _called(name) == _called(rejection.file)
        try:
            rows = read(self._source, self.path(rejection).read_bytes()).table
        except UnreadableError:
            return same_name
        key = list(self._source.key)
        if set(key) - set(rows.column_names):
            return same_name
        named = rows.select(key).drop_null()
        wanted, complete = _keys(named), named.num_rows == rows.num_rows
        before: set[tuple[Any, ...]] = set()
        since = _keys(table.select(key))
        for file in dataset.partition(rejection.partition):
            (path,) = dataset.paths([file])
            known = _keys(pq.read_table(path, columns=key))
            if file.digest in rejection.accepted:
                before |= known
            else:
                since |= known
        # A reference table brings its rows again; on a day, a row comes once.
        new = wanted - before if self._source.daily else wanted
        if wanted and not new:
            return False
        return new <= since and (complete or same_name)

    def _folder(self, partition: str) -> Path:
        return kept_folder(self._home / "quarantine", self._source.name, partition)

    def _note_path(self, rejection: Rejection) -> Path:
        path = self.path(rejection)
        return path.with_name(f"{path.name}.json")


def rejected(
    source: Source, partition: str, file: str, digest: str, rows: int, reasons: tuple[str, ...], dataset: Dataset
) -> Rejection:
    """A new rejection."""
    accepted = tuple(f.digest for f in dataset.partition(partition))
    now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
    return Rejection(source.name, partition, file, digest, rows, reasons, accepted, now)


def find(home: Path, sources: Iterable[Source], id: str) -> tuple[Source, Rejection]:
    """The rejection that a command names.

    Raises:
        LookupError: There is none of this id, or there are several.
    """
    rejections = [(source, each) for source in sources for each in Quarantine(home, source).all()] if id else []
    # Checks of earlier versions show the beginning of the digest.
    found = [(s, r) for s, r in rejections if r.id.startswith(id) or r.digest.startswith(id)]
    if len(found) != 1:
        many = f"{len(found)} rejected files begin so" if found else "there is no such file in quarantine"
        raise LookupError(f"{id!r}: {many}; expected an id that `ct quarantine list` prints")
    return found[0]


def _keys(table: pa.Table) -> set[tuple[Any, ...]]:
    return set(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _rejection(note: str) -> Rejection:
    content = json.loads(note)
    return Rejection(**{**content, "reasons": tuple(content["reasons"]), "accepted": tuple(content["accepted"])})


def _called(name: str) -> str:
    """A file's name without the digest that `ct land` puts into it."""
    return re.sub(r"-[0-9a-f]{12}(?=\.|$)", "", name)
