"""Datasets: immutable Parquet files by partition, named by a manifest.

A file is written once under its content's digest and never changed. Which files a dataset has at a moment is what its
`manifest.json` lists; an older version's files can stay on disk without being read.
"""

import hashlib
import io
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ct_assets.core.division import MATURES
from ct_assets.lake.manifest import DataFile, Manifest, Part
from ct_assets.lake.paths import locked, write_atomically

__all__ = ["WHOLE", "DataFile", "Dataset", "to_parquet"]

WHOLE = "all"
"""Partition name of a dataset without daily partitions."""


DEFINITION = "definition"
"""Name of the file in a dataset's folder that says by which definition its newest rows were computed."""


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
        self._manifest = Manifest(root, time_column)

    @property
    def manifest_path(self) -> Path:
        """Where the list of current files is."""
        return self._manifest.path

    def files(
        self, first: str | None = None, last: str | None = None, matures_from: pd.Timestamp | None = None
    ) -> list[DataFile]:
        """Current files, in partition order, of the partitions from `first` to `last` (both included).

        With `matures_from`, files are left out whose rows all say to mature earlier.
        """
        return self._manifest.files(first, last, _iso(matures_from))

    def summaries(
        self, kind: str, summarize: Callable[[list[DataFile]], Any], last: str
    ) -> tuple[list[Part], list[DataFile]]:
        """Summaries of the older files up to a partition, each computed once, and the files that are in none.

        Args:
            kind: What is summarized and how, as part of a file's name.
            summarize: From some files to what JSON can hold.
            last: Last partition, included.
        """
        return self._manifest.summaries(kind, summarize, last)

    @property
    def definition(self) -> str:
        """Digest of what computes the rows, as it was last noted; empty for what is not computed."""
        try:
            return (self.root / DEFINITION).read_text()
        except FileNotFoundError:
            return ""

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the lock of who reads the dataset and then writes by what was read."""
        return locked(self.root / ".exclusive")

    def begin(self) -> None:
        """Have a manifest, of no files, where there is none yet."""
        if not self.manifest_path.exists():
            self._manifest.begin()

    def note_definition(self, digest: str) -> None:
        """Note what computes the rows from now on."""
        if self.definition != digest:
            write_atomically(self.root / DEFINITION, digest.encode())

    def partition(self, partition: str) -> list[DataFile]:
        """Current files of one partition."""
        return self.files(partition, partition)

    def rows(self) -> int:
        """Number of rows in all current files."""
        return self._manifest.rows()

    def paths(self, files: Iterable[DataFile]) -> list[str]:
        """Absolute paths of files, for DuckDB."""
        return [str(self.root / f.path) for f in files]

    def write(
        self, partition: str, table: pa.Table, digest: str | None = None, *, name: str = "", append: bool = False
    ) -> DataFile:
        """Store `table` as the content of `partition`.

        Args:
            partition: Arrival partition, or `WHOLE`.
            table: Rows; timestamps in microseconds UTC.
            digest: Digest of the batch that the rows came from; that of the stored bytes when None.
            name: Name under which the batch landed, or what the rows are beside the others of the partition.
            append: Keep what the partition has and add to it; otherwise replace it.

        Returns:
            The file written. Writing the same content again changes nothing.
        """
        payload = to_parquet(table)
        digest = digest or hashlib.sha256(payload).hexdigest()
        low, high = _range(table, self.time_column)
        path, (_, matures) = f"{partition}/{digest[:32]}.parquet", _range(table, MATURES)
        new = DataFile(path, partition, digest, table.num_rows, low, high, name, matures)
        target = self.root / new.path
        if not target.exists():
            write_atomically(target, payload)
        self._manifest.add(new, append)
        return new


def _range(table: pa.Table, column: str) -> tuple[str | None, str | None]:
    kind = table.schema.field(column).type if column in table.column_names and table.num_rows else None
    if kind is None or not pa.types.is_timestamp(kind) or kind.tz is None:
        return None, None
    bounds = pc.min_max(table[column]).as_py()
    return _iso(bounds["min"]), _iso(bounds["max"])


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
