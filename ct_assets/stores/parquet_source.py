"""What a Feast `FileSource` names: one Parquet file, a directory, a glob, or a manifest that lists files."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource

from ct_assets.lake.engine import quoted
from ct_assets.lake.manifest import Entry, entries

MANIFEST_SUFFIX = "manifest.json"
_GLOB_CHARACTERS = frozenset("*?[")
_REMEMBERED_SCANS = 500
_remembered: dict[str, Mapping[str, str]] = {}


@dataclass(frozen=True)
class ParquetScan:
    """One DuckDB scan over a source.

    Attributes:
        sql: what to put behind FROM; it also has the columns `file_index` and `file_row_number` (position of a row).
        types: column name -> DuckDB type name, as stored.
        location: the source's name and path, for error messages.
        rows: how many rows the files have, where a manifest says it.
    """

    sql: str
    types: Mapping[str, str]
    location: str
    rows: int | None = None

    def type_of(self, column: str, purpose: str) -> str:
        """The DuckDB type of `column`; ValueError naming the source and its columns when there is none."""
        if column not in self.types:
            raise ValueError(
                f"{self.location} has no column {column!r}, needed as {purpose}; it has {sorted(self.types)}. "
                "Fix the view's schema or the source's field_mapping, or rewrite the files."
            )
        return self.types[column]

    def micros(self, column: str, purpose: str) -> str:
        """SQL for a time column as BIGINT microseconds since 1970 UTC (naive = UTC, nanoseconds are cut off)."""
        kind = self.type_of(column, purpose)
        name = quoted(column)
        if kind in ("TIMESTAMP_NS", "TIMESTAMPTZ_NS"):
            return f"(epoch_ns({name}) // 1000)"
        if kind.startswith(("TIMESTAMP", "DATE")):
            return f"epoch_us({name})"
        raise ValueError(f"{self.location}: {purpose} {column!r} has type {kind}, expected a timestamp or a date.")

    def within(self, column: str, low: int | None, high: int | None) -> list[str]:
        """SQL conditions `low <= column <= high` (microseconds UTC), in a form Parquet row groups are skipped by."""
        kind = self.type_of(column, "a time column")
        # Only a bare column against a constant of its own type reaches the row-group statistics.
        bare = {"TIMESTAMP WITH TIME ZONE": "make_timestamptz", "TIMESTAMP": "make_timestamp"}.get(kind)
        value = quoted(column) if bare else self.micros(column, "a time column")
        limits = [(">=", low), ("<=", high)]
        return [
            f"{value} {sign} {f'{bare}({limit})' if bare else limit}" for sign, limit in limits if limit is not None
        ]


Span = tuple[int | None, int | None]
"""First and last time of interest, microseconds since 1970 UTC; None is unbounded."""


def open_scan(
    con: duckdb.DuckDBPyConnection,
    source: DataSource | None,
    root: Path | None,
    if_empty: pa.Schema,
    span: Span = (None, None),
) -> ParquetScan:
    """Resolve `source` to a scan on `con`, reading a manifest now if it names one.

    Args:
        con: where the scan will run.
        source: a Parquet `FileSource`; a relative path is relative to `root`.
        root: where relative paths begin.
        if_empty: columns and types of the table when a manifest lists no file.
        span: files that a manifest says to lie wholly outside of it are not opened.

    Raises:
        ValueError: not a Parquet FileSource, an unreadable manifest, or files DuckDB cannot open.
    """
    if not isinstance(source, FileSource):
        raise ValueError(f"The ASOF offline store reads Parquet FileSources, got {type(source).__name__}: {source!r}.")
    if source.file_format is not None and not isinstance(source.file_format, ParquetFormat):
        raise ValueError(f"Source {source.name!r}: the ASOF offline store reads Parquet, not {source.file_format!r}.")
    path = FileSource.get_uri_for_file_path(root, source.path)
    location = f"Source {source.name!r} ({path})"
    if "://" in path:
        con.register_filesystem(fsspec.filesystem(path.split("://", 1)[0]))
    rows: int | None = None
    if path.endswith(MANIFEST_SUFFIX):
        files, rows = _manifest_files(path, location, span)
        if not files:
            return _empty_scan(con, if_empty, location)
        # A folder name such as `day=2013-01-01` is the writer's business here, not a column.
        options = "union_by_name=true, hive_partitioning=false"
    else:
        files = [_as_pattern(path)]
        options = "union_by_name=true"
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    sql = f"read_parquet([{listed}], {options})"
    try:
        types = _types(con, sql, remember=path.endswith(MANIFEST_SUFFIX))
    except duckdb.Error as error:
        raise ValueError(f"{location} cannot be read as Parquet: {error}") from error
    return ParquetScan(sql, types, location, rows)


def _types(con: duckdb.DuckDBPyConnection, sql: str, remember: bool) -> Mapping[str, str]:
    """Column types of a scan; those of files that a manifest lists are remembered, as such files never change."""
    if sql not in _remembered:
        relation = con.sql(f"SELECT * FROM {sql}")
        types = dict(zip(relation.columns, map(str, relation.types), strict=True))
        if not remember:
            return types
        if len(_remembered) >= _REMEMBERED_SCANS:
            _remembered.clear()
        _remembered[sql] = types
    return _remembered[sql]


def source_schema(con: duckdb.DuckDBPyConnection, source: DataSource, root: Path | None) -> pa.Schema:
    """Column names and Arrow types of a source as stored; ValueError for an empty manifest, which has none."""
    scan = open_scan(con, source, root, pa.schema([]))
    if not scan.types:
        raise ValueError(f"{scan.location} lists no file, so nothing can be inferred: give the view a `schema=`.")
    return con.sql(f"SELECT * FROM {scan.sql} LIMIT 0").to_arrow_table().schema


def _as_pattern(path: str) -> str:
    remote_folder = "://" in path and not path.endswith(".parquet") and not _GLOB_CHARACTERS & set(path)
    return f"{path.rstrip('/')}/**/*.parquet" if remote_folder or Path(path).is_dir() else path


def _manifest_files(path: str, location: str, span: Span) -> tuple[list[str], int | None]:
    """The files of a time span, and how many rows they have, if all of them say it."""
    try:
        listed = entries(path, lambda leaf: _overlaps(leaf, span))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{location}: the manifest cannot be read ({type(error).__name__}: {error}). Expected a JSON document "
            '{"files": ["<partition>/<digest>.parquet", ...]}; materialize the dataset that writes it.'
        ) from error
    if not all(map(_is_entry, listed)):
        raise ValueError(f'{location}: the manifest has no list of paths under "files".')
    wanted = [entry for entry in listed if _overlaps(entry, span)]
    files = [entry if isinstance(entry, str) else entry["path"] for entry in wanted]
    counts = [None if isinstance(entry, str) else entry.get("rows") for entry in wanted]
    if odd := [file for file in files if _GLOB_CHARACTERS & set(file)]:
        # DuckDB would expand it and read files the manifest does not list.
        raise ValueError(f"{location}: the manifest lists {odd[0]!r}; a listed path cannot contain *, ? or [.")
    folder = path.rsplit("/", 1)[0]
    if "://" not in path and (missing := [file for file in files if not Path(folder, file).is_file()]):
        raise ValueError(
            f"{location}: the manifest lists {missing[0]!r}, which does not exist ({len(missing)} in all)."
        )
    known = [count for count in counts if isinstance(count, int)]
    return [f"{folder}/{file}" for file in files], sum(known) if len(known) == len(counts) else None


def _is_entry(entry: object) -> bool:
    return isinstance(entry, str) or (isinstance(entry, dict) and isinstance(entry.get("path"), str))


def _overlaps(entry: str | Entry, span: Span) -> bool:
    """Whether a file or leaf can hold rows inside `span`, by what the manifest says of it; True if it says nothing."""
    if isinstance(entry, Mapping) and entry.get("rows") == 0:
        return False
    if isinstance(entry, str) or not entry.get("min_time") or not entry.get("max_time"):
        return True
    low, high = span
    first, last = (_micros(entry[name]) for name in ("min_time", "max_time"))
    return (low is None or last >= low) and (high is None or first <= high)


@lru_cache(maxsize=4096)
def _micros(moment: str) -> int:
    return (datetime.fromisoformat(moment) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _empty_scan(con: duckdb.DuckDBPyConnection, schema: pa.Schema, location: str) -> ParquetScan:
    relation = con.from_arrow(schema.empty_table()) if len(schema) else None
    types = dict(zip(relation.columns, map(str, relation.types), strict=True)) if relation is not None else {}
    columns = "".join(f"NULL::{kind} AS {quoted(name)}, " for name, kind in types.items())
    return ParquetScan(f"(SELECT {columns}0 AS file_index, 0 AS file_row_number WHERE false)", types, location)
