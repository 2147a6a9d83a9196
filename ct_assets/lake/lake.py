"""The lake: all datasets under one home, and DuckDB over them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa

from ct_assets.lake.dataset import DataFile, Dataset
from ct_assets.lake.engine import cursor, fetch

MANY_ROWS = 1_000_000
"""From so many rows on a query's result may be large, and a copy of it costs more than a second planning."""


@dataclass(frozen=True)
class Window:
    """Which part of a dataset a query sees.

    Attributes:
        first: First partition, included; None for all.
        last: Last partition, included; None for all.
        matures_from: Files are left out whose events all say to mature earlier; None for none.
    """

    first: str | None = None
    last: str | None = None
    matures_from: pd.Timestamp | None = None


class Lake:
    """Datasets as DuckDB tables.

    Args:
        home: `$CT_HOME`.
        connect: Opens a DuckDB cursor.
    """

    def __init__(
        self, home: Path, connect: Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]] = cursor
    ) -> None:
        self.home = Path(home)
        self._connect = connect

    def dataset(self, name: str, time_column: str = "known_at") -> Dataset:
        """The dataset called `name`, which may contain slashes."""
        return Dataset(self.home / "lake" / name, time_column)

    def has_rows(self, name: str, window: Window) -> bool:
        """Whether a dataset has files in a window, which a query of it needs."""
        return bool(self.dataset(name).files(window.first, window.last))

    def connect(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """A DuckDB cursor; its temporary views and tables are its own."""
        return self._connect()

    def query(
        self,
        sql: str,
        windows: Mapping[str, Window | Sequence[DataFile]],
        as_of: pd.Timestamp,
        parameters: Mapping[str, object] | None = None,
        tables: Mapping[str, pd.DataFrame | pa.Table] | None = None,
    ) -> pa.Table:
        """Run `sql` over datasets as they were known at `as_of`.

        Args:
            sql: DuckDB SQL that names datasets as tables.
            windows: Which datasets, and which of their partitions or files, the query may see.
            as_of: Rows with a later `known_at` are invisible.
            parameters: Named parameters of the query.
            tables: Further tables, by the names that the query has for them.
        """
        with self.connect() as connection:
            rows = self.expose(connection, windows, as_of) if windows else 0
            for name, table in (tables or {}).items():
                connection.register(name, table)
            if rows < MANY_ROWS:
                return fetch(connection, sql, parameters)
            return connection.sql(sql, params=dict(parameters or {})).to_arrow_table()

    def expose(
        self,
        connection: duckdb.DuckDBPyConnection,
        windows: Mapping[str, Window | Sequence[DataFile]],
        as_of: pd.Timestamp,
    ) -> int:
        """Make datasets visible in `connection` as views of their own names, cut at `as_of`.

        Returns:
            How many rows their files have.

        Raises:
            FileNotFoundError: A dataset has never had a file.
        """
        rows = 0
        for name, window in windows.items():
            dataset = self.dataset(name)
            if isinstance(window, Window):
                files = dataset.files(window.first, window.last, window.matures_from)
                files = files or dataset.files(window.first, window.last)[-1:]
            else:
                files = list(window)
            # An empty file costs as much to open as another; one alone tells the columns.
            shown = [file for file in files if file.rows] or files[-1:]
            # Of a source that is silent for the whole window, another file tells the columns, and no row is seen.
            paths = dataset.paths(shown or self._another(dataset, window))
            if not paths:
                raise FileNotFoundError(
                    f"dataset {name!r} has no files; expected at least one arrived batch: land it, or materialize "
                    f"'{name}'"
                )
            connection.execute(
                f'CREATE OR REPLACE TEMP VIEW "{name}" AS SELECT * FROM read_parquet({paths!r}, union_by_name=true) '
                f"WHERE {'' if shown else 'false AND '}known_at <= TIMESTAMPTZ '{as_of.isoformat()}'"
            )
            rows += sum(file.rows for file in files)
        return rows

    @staticmethod
    def _another(dataset: Dataset, window: "Window | Sequence[DataFile]") -> list[DataFile]:
        """The newest file before an empty window, or else the first one after it."""
        last = window.last if isinstance(window, Window) else None
        return dataset.files(last=last)[-1:] or dataset.files()[:1]
