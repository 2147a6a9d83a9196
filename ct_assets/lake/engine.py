"""DuckDB as an engine: one in-memory database a process and setting, a cursor of it for each query.

Opening a database costs more than most queries of a day. Cursors share the database's threads and memory limit, and
keep their temporary tables and views to themselves.
"""

import atexit
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

_opening = threading.Lock()
# `fetch` copies knowingly.
warnings.filterwarnings("ignore", "Arrow output on a DB-API result", UserWarning)


@contextmanager
def cursor(
    threads: int = 1, memory_limit: str | None = None, spill: str | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor that thinks in UTC; closed on the way out, whatever happens.

    Args:
        threads: DuckDB threads.
        memory_limit: Such as `8GB`; DuckDB's default when None. More spills to disk.
        spill: Folder for what does not fit into memory; the system's temporary folder when None.
    """
    with _opening:
        connection = _database(threads, memory_limit, spill).cursor()
    try:
        yield connection
    finally:
        connection.close()


def fetch(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
    """Run a query whose result is small, such as a day's, in the least time.

    DuckDB would rather be asked by `sql()`, which does not copy the result but plans the query twice; planning is what
    a small query spends its time on.

    Args:
        connection: Where to run it.
        sql: The query.
        parameters: Its named parameters.
    """
    return connection.execute(sql, dict(parameters or {})).to_arrow_table()


def quoted(identifier: str) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


@cache
def _database(threads: int, memory_limit: str | None, spill: str | None) -> duckdb.DuckDBPyConnection:
    # DuckDB numbers the files it spills, so no two processes may share the folder.
    if spill is not None:
        Path(spill).mkdir(parents=True, exist_ok=True)
    own = tempfile.TemporaryDirectory(prefix="duckdb-", dir=spill)
    atexit.register(own.cleanup)
    settings: dict[str, str | bool | int | float | list[str]] = {"threads": threads, "temp_directory": own.name}
    if memory_limit is not None:
        settings["memory_limit"] = memory_limit
    database = duckdb.connect(":memory:", config=settings)
    database.execute("SET GLOBAL TimeZone = 'UTC'")
    # A day opens most of the files that the day before opened; one that was replaced is told by its time and read anew.
    database.execute("LOAD parquet")
    database.execute("SET GLOBAL parquet_metadata_cache = true")
    return database
