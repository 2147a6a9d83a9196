"""dagster-duckdb's resource on an in-memory database, made to close its cursors on errors too."""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
from dagster_duckdb import DuckDBResource

from ct_assets.lake.engine import cursor


class InMemoryDuckDB(DuckDBResource):
    """DuckDB as an engine over Parquet; no file, so no writer lock between runs and server.

    Attributes:
        threads: DuckDB threads of one query; most look at a few days, where a second thread costs more than it saves.
        memory_limit: Such as `8GB`; empty for DuckDB's default.
    """

    database: str = ":memory:"
    threads: int = 1
    memory_limit: str = ""

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor that thinks in UTC and is closed whatever happens."""
        with cursor(self.threads, self.memory_limit or None) as connection:
            yield connection
