"""Running a retrieval: a DuckDB connection of its own, and what Feast asks of a retrieval job."""

import os
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from typing_extensions import override

from ct_assets.lake.engine import cursor
from ct_assets.lake.frames import to_frame
from ct_assets.stores.asof_plan import FEW_ROWS

if TYPE_CHECKING:
    from feast.saved_dataset import ValidationReference

    # Feast wants the configuration in the store's own module, which imports this one.
    from ct_assets.stores.asof_duckdb import AsofDuckDBOfflineStoreConfig


def connection(
    config: "AsofDuckDBOfflineStoreConfig", rows: int | None = None
) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
    """A DuckDB cursor for one query, closed whatever happens.

    Args:
        config: of the store.
        rows: number of entity rows, if known; few of them are not worth a second thread.
    """
    threads = 1 if rows is not None and rows < FEW_ROWS else config.threads or os.cpu_count() or 1
    return cursor(threads, config.memory_limit, config.temp_directory)


class AsofRetrievalJob(RetrievalJob):
    """A retrieval that runs when its result is asked for, on a connection of its own."""

    def __init__(
        self,
        *,
        config: RepoConfig,
        fetch: Callable[[duckdb.DuckDBPyConnection], pa.Table],
        statement: Callable[[duckdb.DuckDBPyConnection], str],
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        full_feature_names: bool = False,
        metadata: RetrievalMetadata | None = None,
        rows: int | None = None,
    ):
        self._config = config
        self._fetch = fetch
        self._statement = statement
        self._on_demand_feature_views = on_demand_feature_views or []
        self._full_feature_names = full_feature_names
        self._metadata = metadata
        self._rows = rows

    @property
    def full_feature_names(self) -> bool:
        """Whether feature columns are named `<view>__<feature>`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """On-demand views that Feast computes on the result."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for; None for pulls."""
        return self._metadata

    @override
    def to_sql(self) -> str:
        """The SQL this job runs; point-in-time joins read a relation `entity_df(row, at, k0, k1, ...)`."""
        with connection(self._config.offline_store) as con:
            return self._statement(con)

    @override
    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        with connection(self._config.offline_store, self._rows) as con:
            return self._fetch(con)

    @override
    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return to_frame(self._to_arrow_internal(timeout))

    @override
    def to_df(
        self, validation_reference: "ValidationReference | None" = None, timeout: int | None = None
    ) -> pd.DataFrame:
        """The result in pandas, in which whole numbers beside missing ones stay whole (`Int64`)."""
        return to_frame(self.to_arrow(validation_reference=validation_reference, timeout=timeout))

    @override
    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,
        timeout: int | None = None,
    ) -> None:
        """Write the result, on-demand features included: a reader sees the old file or the new one, never half.

        A path that does not end in `.parquet` is a folder, and the file in it is `data.parquet`.

        Raises:
            SavedDatasetLocationAlreadyExists: something is there and `allow_overwrite` is False.
            ValueError: the storage is not a file storage.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            raise ValueError(f"Saved datasets go to a SavedDatasetFileStorage, got {type(storage).__name__}.")
        path = FileSource.get_uri_for_file_path(self._config.repo_path, storage.file_options.uri)
        target = path if path.endswith(".parquet") else f"{path.rstrip('/')}/data.parquet"
        filesystem, local = fsspec.core.url_to_fs(target)
        if not allow_overwrite and filesystem.exists(local):
            raise SavedDatasetLocationAlreadyExists(location=path)
        table = self.to_arrow(timeout=timeout)
        filesystem.makedirs(local.rpartition("/")[0], exist_ok=True)
        if "://" in target:  # an object appears when it is complete
            with filesystem.open(local, "wb") as stream:
                pq.write_table(table, stream)
            return
        _replace_file(Path(local), table)


def _replace_file(target: Path, table: pa.Table) -> None:
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("wb") as stream:
            pq.write_table(table, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
