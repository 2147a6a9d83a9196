"""DuckDB as an engine: one in-memory database a process and setting, a cursor of it for each query.

Opening a database costs more than most queries of a day. Cursors share the database's threads and memory limit, and
keep their temporary tables and views to themselves.
"""

import atexit
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import duckdb

_opening = threading.Lock()


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
    return database
