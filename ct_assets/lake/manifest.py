"""A dataset's manifest: the list of its current files, at a cost that does not grow with their number.

`manifest.json` lists the newest files itself. The others are in leaves: immutable lists of files, in the order of
partitions, of which `manifest.json` holds the path, the first and last file, the sum of rows and the range of times.
An arrival rewrites `manifest.json` and at times a leaf; a reader of a window opens the leaves of the window. So that
`manifest.json` stays short, `FAN` leaves of `LEAF` files are merged into one. A manifest without leaves is complete,
and may be written by anyone.
"""

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from ct_assets.lake.paths import locked, read_replaced, write_atomically
from ct_assets.lake.periods import within

MANIFEST = "manifest.json"
LEAVES = "manifest"
"""Folder of the leaves, beside `manifest.json`."""
LEAF = 16
"""How many files move into a leaf at once; `manifest.json` itself lists at most twice as many."""
FAN = 16
"""How many leaves of `LEAF` files become one."""
LOOKS = 10
"""How often a reader starts again because a leaf was replaced under it."""
_KEPT_LEAVES = 256

Entry = Mapping[str, Any]
"""One file, or one leaf, as the manifest says it: `rows`, `min_time` and `max_time` of both."""
_LAST = "\U0010ffff"
T = TypeVar("T")


@dataclass(frozen=True)
class DataFile:
    """One immutable file of a dataset.

    Attributes:
        path: Relative to the dataset's folder.
        partition: Arrival partition, such as `2013-01-31`, or `WHOLE`.
        digest: SHA-256 of the batch it came from, or of its own bytes.
        rows: Number of rows.
        min_time: Smallest value of the dataset's time column, ISO 8601 in UTC; None without rows.
        max_time: Largest value, likewise.
        name: Name under which the batch landed; empty for the rows that were computed here, or what else they are.
        matures: Largest value of the dataset's `matures_at`, ISO 8601 in UTC; None without such a column or value.
    """

    path: str
    partition: str
    digest: str
    rows: int
    min_time: str | None
    max_time: str | None
    name: str = ""
    matures: str | None = None


@dataclass(frozen=True)
class Part:
    """The files of one leaf.

    Attributes:
        summary: What was computed of them.
        files: Lists them.
    """

    summary: Any
    files: Callable[[], list[DataFile]]


def entries(path: str, wanted: Callable[[Entry], bool]) -> list[Any]:
    """The listed files, in the order of partitions, as the manifest holds them.

    Args:
        path: Of the manifest; local, or a URL that fsspec opens.
        wanted: Which leaves to open, by what the manifest says of them.

    Raises:
        OSError: There is no such manifest, or a leaf of it is gone.
        ValueError: It is not JSON, or has no list of files.
    """

    def listed() -> list[Any]:
        document, folder = _document(path), path.rpartition("/")[0]
        leaves = [leaf for leaf in document.get("leaves", []) if wanted(leaf)]
        return [*(entry for leaf in leaves for entry in _leaf(f"{folder}/{leaf['path']}")), *document["files"]]

    return _of_one_version(listed)


def _of_one_version(read: Callable[[], T]) -> T:
    """Read again where a writer replaced a leaf after the reader had seen the manifest that names it."""
    for _ in range(LOOKS):
        with suppress(FileNotFoundError):
            return read()
    return read()


class Manifest:
    """The manifest of one dataset, on a local file system.

    Args:
        folder: The dataset's.
        time_column: Noted in it.
    """

    def __init__(self, folder: Path, time_column: str) -> None:
        self.folder = folder
        self.path = folder / MANIFEST
        self._time_column = time_column

    def files(
        self, first: str | None = None, last: str | None = None, matures_from: str | None = None
    ) -> list[DataFile]:
        """The files of the partitions from `first` to `last`, both included, in their order; empty without manifest.

        A bound may be of a coarser cadence: the hours of a day lie between that day and itself. With
        `matures_from`, ISO 8601 in UTC, those are left out that say that all of their rows mature earlier.
        """

        def wanted(begin: str, end: str, entry: Entry) -> bool:
            matures = entry.get("matures")
            return (
                within(end, first, None)
                and within(begin, None, last)
                and (matures_from is None or matures is None or matures >= matures_from)
            )

        def overlaps(leaf: Entry) -> bool:
            return wanted(_partition(leaf["first"]), _partition(leaf["last"]), leaf)

        try:
            found = entries(str(self.path), overlaps)
        except FileNotFoundError:
            if self.path.exists():
                raise
            return []
        return [DataFile(**entry) for entry in found if wanted(entry["partition"], entry["partition"], entry)]

    def summaries(
        self, kind: str, summarize: Callable[[list[DataFile]], Any], last: str
    ) -> tuple[list[Part], list[DataFile]]:
        """A summary of each leaf whose partitions are all up to `last`, and the files up to `last` of no such leaf.

        A leaf never changes, so that its summary is computed once and kept beside it.

        Args:
            kind: What is summarized and how; part of a file's name.
            summarize: From a leaf's files to what JSON can hold.
            last: Last partition, included.
        """

        def read() -> tuple[list[Part], list[DataFile]]:
            leaves = [leaf for leaf in _document(str(self.path)).get("leaves", []) if _partition(leaf["last"]) <= last]
            first, end = ("", "") if not leaves else _key(leaves[-1]["last"])
            loose = [f for f in self.files(first or None, last) if (f.partition, f.path) > (first, end)]
            return [self._part(leaf, kind, summarize) for leaf in leaves], loose

        return _of_one_version(read) if self.path.exists() else ([], [])

    def _part(self, leaf: Entry, kind: str, summarize: Callable[[list[DataFile]], Any]) -> Part:
        def files() -> list[DataFile]:
            return [DataFile(**entry) for entry in self._files_of(leaf)]

        path = self.folder / f"{leaf['path'].removesuffix('.json')}.{kind}.json"
        try:
            summary = _summary(str(path))
        except FileNotFoundError:
            summary = summarize(files())
            write_atomically(path, json.dumps(summary).encode())
        return Part(summary, files)

    def rows(self) -> int:
        """Rows of all files, from the sums."""
        if not self.path.exists():
            return 0
        document = _document(str(self.path))
        return sum(entry["rows"] for entry in [*document.get("leaves", []), *document["files"]])

    def begin(self) -> None:
        """Write a manifest of no files, unless there is one."""
        with self._locked():
            if not self.path.exists():
                self.write([])

    def add(self, new: DataFile, append: bool) -> None:
        """Name a file, beside the others of its partition or instead of them."""
        with self._locked():
            document = _document(str(self.path)) if self.path.exists() else {"files": []}
            leaves, tail = document.get("leaves", []), document["files"]
            low = (new.partition, new.path if append else "")
            high = (new.partition, new.path if append else _LAST)
            start = bisect_left(leaves, low, key=lambda leaf: _key(leaf["last"]))
            stop = bisect_right(leaves, high, key=lambda leaf: _key(leaf["first"]))
            in_tail = not leaves or high > _key(leaves[-1]["last"])
            if not in_tail:
                stop = max(stop, start + 1)  # between two leaves: into the second
            held = [entry for leaf in leaves[start:stop] for entry in self._files_of(leaf)]
            files = [DataFile(**entry) for entry in [*held, *(tail if in_tail else [])]]
            kept = [f for f in files if f.path != new.path and (append or f.partition != new.partition)]
            named = self.write([*kept, new], leaves[:start], leaves[stop:], [] if in_tail else tail)
            for path in {leaf["path"] for leaf in leaves} - named:
                for gone in self.folder.glob(f"{path.removesuffix('.json')}.*"):
                    gone.unlink(missing_ok=True)

    def write(
        self,
        files: Iterable[DataFile],
        before: Sequence[Entry] = (),
        after: Sequence[Entry] = (),
        tail: Sequence[Entry] = (),
    ) -> set[str]:
        """Name `files` between the leaves before and those after them; without a `tail`, the newest of them become it.

        Returns:
            Paths of all leaves named now.
        """
        listed: list[dict[str, Any]] = [vars(f) for f in sorted(files, key=lambda f: (f.partition, f.path))]
        leaves, large = list(before), LEAF * FAN
        while len(listed) > (2 * large if tail else 2 * LEAF):
            size = large if len(listed) > large else LEAF
            part, listed = listed[:size], listed[size:]
            small = leaves[1 - FAN :]
            if size == LEAF and len(small) == FAN - 1 and all(leaf["files"] <= 2 * LEAF for leaf in small):
                part = [*(entry for leaf in small for entry in self._files_of(leaf)), *part]
                del leaves[1 - FAN :]
            leaves.append(self._write_leaf(part))
        if tail:
            leaves.append(self._write_leaf(listed))
            listed = []
        leaves += after
        document = {"time_column": self._time_column, **({"leaves": leaves} if leaves else {})}
        write_atomically(self.path, json.dumps(document | {"files": [*listed, *tail]}).encode())
        return {leaf["path"] for leaf in leaves}

    def _files_of(self, leaf: Entry) -> list[Any]:
        return _leaf(f"{self.folder}/{leaf['path']}")

    def _write_leaf(self, files: list[dict[str, Any]]) -> Entry:
        payload = json.dumps({"files": files}).encode()
        path = f"{LEAVES}/{hashlib.sha256(payload).hexdigest()[:16]}.json"
        write_atomically(self.folder / path, payload)
        return {
            "path": path,
            "first": files[0]["path"],
            "last": files[-1]["path"],
            "files": len(files),
            "rows": sum(f["rows"] for f in files),
            "min_time": min((f["min_time"] for f in files if f["min_time"]), default=None),
            "max_time": max((f["max_time"] for f in files if f["max_time"]), default=None),
            # Unknown for all if it is for one that has rows.
            "matures": max((f["matures"] or _LAST for f in files if f["rows"]), default=None),
        }

    def _locked(self) -> AbstractContextManager[None]:
        """One writer of the manifest at a time, across processes."""
        return locked(self.folder / ".lock")


def _document(path: str) -> Any:
    document = read_replaced(Path(path), json.loads) if "://" not in path else _fetched(path)
    if not isinstance(document, dict) or not isinstance(document.get("files"), list):
        raise ValueError('the manifest has no list of paths under "files"')
    return document


@lru_cache(maxsize=_KEPT_LEAVES)
def _leaf(path: str) -> list[Any]:
    # Immutable, so that it is read once.
    document = json.loads(Path(path).read_bytes()) if "://" not in path else _fetched(path)
    return list(document["files"])


@lru_cache(maxsize=_KEPT_LEAVES)
def _summary(path: str) -> Any:
    return json.loads(Path(path).read_bytes())


def _fetched(url: str) -> Any:
    with fsspec.open(url, "r", encoding="utf-8") as stream:
        return json.load(stream)


def _partition(path: str) -> str:
    return path.rpartition("/")[0]


def _key(path: str) -> tuple[str, str]:
    return _partition(path), path
