"""Datasets: immutable Parquet files by partition, named by a small manifest.

A file is written once under its content's digest and never changed. What a dataset *is* at a moment is the list in its
`manifest.json`, replaced as a whole; an older version's files can stay on disk without being read.
"""

import fcntl
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ct_assets.lake.paths import read_replaced, write_atomically

WHOLE = "all"
"""Partition name of a dataset without daily partitions."""


DEFINITION = "definition"
"""Name of the file in a dataset's folder that says by which definition its newest rows were computed."""


@dataclass(frozen=True)
class DataFile:
    """One immutable file of a dataset.

    Attributes:
        path: Relative to the dataset's folder.
        partition: Arrival day as YYYY-MM-DD, or `WHOLE`.
        digest: SHA-256 of the batch it came from, or of its own bytes.
        rows: Number of rows.
        min_time: Smallest value of the dataset's time column, ISO 8601 in UTC; None without rows.
        max_time: Largest value, likewise.
        name: Name under which the batch landed; empty for the rows that were computed here, or what else they are.
    """

    path: str
    partition: str
    digest: str
    rows: int
    min_time: str | None
    max_time: str | None
    name: str = ""


def to_parquet(table: pa.Table) -> bytes:
    """Parquet bytes of a table; the same table gives the same bytes."""
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd", coerce_timestamps="us")
    return sink.getvalue()


class Dataset:
    """One dataset in the lake.

    Args:
        root: The dataset's folder.
        time_column: Column whose range is noted for every file, so that readers skip files by time.
    """

    def __init__(self, root: Path, time_column: str = "known_at") -> None:
        self.root = root
        self.time_column = time_column

    @property
    def manifest_path(self) -> Path:
        """Where the list of current files is."""
        return self.root / "manifest.json"

    def files(self, first: str | None = None, last: str | None = None) -> list[DataFile]:
        """Current files, in partition order, of the partitions from `first` to `last` (both included)."""
        return [
            f for f in self._read() if (first is None or f.partition >= first) and (last is None or f.partition <= last)
        ]

    @property
    def definition(self) -> str:
        """Digest of what computes the rows, as it was last noted; empty for what is not computed."""
        try:
            return (self.root / DEFINITION).read_text()
        except FileNotFoundError:
            return ""

    def note_definition(self, digest: str) -> None:
        """Note what computes the rows from now on."""
        if self.definition != digest:
            write_atomically(self.root / DEFINITION, digest.encode())

    def partition(self, partition: str) -> list[DataFile]:
        """Current files of one partition."""
        return self.files(partition, partition)

    def rows(self) -> int:
        """Number of rows in all current files."""
        return sum(f.rows for f in self._read())

    def paths(self, files: Iterable[DataFile]) -> list[str]:
        """Absolute paths of files, for DuckDB."""
        return [str(self.root / f.path) for f in files]

    def write(
        self, partition: str, table: pa.Table, digest: str | None = None, *, name: str = "", append: bool = False
    ) -> DataFile:
        """Store `table` as the content of `partition`.

        Args:
            partition: Arrival day or `WHOLE`.
            table: Rows; timestamps in microseconds UTC.
            digest: Digest of the batch that the rows came from; that of the stored bytes when None.
            name: Name under which the batch landed, or what the rows are beside the others of the partition.
            append: Keep what the partition has and add to it; otherwise replace it.

        Returns:
            The file written. Writing the same content again changes nothing.
        """
        payload = to_parquet(table)
        digest = digest or hashlib.sha256(payload).hexdigest()
        low, high = self._time_range(table)
        new = DataFile(f"{partition}/{digest[:32]}.parquet", partition, digest, table.num_rows, low, high, name)
        target = self.root / new.path
        if not target.exists():
            write_atomically(target, payload)
        with self._locked():
            kept = [f for f in self._read() if f.path != new.path and (append or f.partition != partition)]
            self._write([*kept, new])
        return new

    def _time_range(self, table: pa.Table) -> tuple[str | None, str | None]:
        if self.time_column not in table.column_names or table.num_rows == 0:
            return None, None
        bounds = pc.min_max(table[self.time_column]).as_py()
        return _iso(bounds["min"]), _iso(bounds["max"])

    def _read(self) -> tuple[DataFile, ...]:
        try:
            return read_replaced(self.manifest_path, _files_of)
        except FileNotFoundError:
            return ()

    def _write(self, files: list[DataFile]) -> None:
        entries = [vars(f) for f in sorted(files, key=lambda f: (f.partition, f.path))]
        write_atomically(self.manifest_path, json.dumps({"time_column": self.time_column, "files": entries}).encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer of the manifest at a time, across processes."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _files_of(manifest: bytes) -> tuple[DataFile, ...]:
    return tuple(DataFile(**entry) for entry in json.loads(manifest)["files"])


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
