"""Offline store: point-in-time joins as DuckDB ASOF joins over Parquet files.

Feast's own DuckDB store joins on an inequality and then ranks every candidate row, so its cost grows with the rows
inside the ttl; an ASOF join merges two sorted sides and looks at each row once.

Who wins for an entity row at time t: among the feature rows of its key with `ts <= t` (and `created <= t` when
`filter_by_created_timestamp` is asked for), the greatest (ts, created, position in the files), provided that
`ts >= t - ttl`. Times are compared in whole microseconds UTC; naive times are UTC.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL, FeatureView
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import PositiveInt, StrictStr
from typing_extensions import override

from ct_assets.lake.engine import quoted
from ct_assets.stores.asof_job import AsofRetrievalJob, connection
from ct_assets.stores.asof_plan import EntityRows, HistoricalPlan, requested_views
from ct_assets.stores.home import in_home
from ct_assets.stores.parquet_source import open_scan, source_schema


class AsofDuckDBOfflineStoreConfig(FeastConfigBaseModel):
    """`offline_store:` of feature_store.yaml."""

    type: StrictStr = "ct_assets.stores.asof_duckdb.AsofDuckDBOfflineStore"
    root: StrictStr | None = None
    """Where relative paths of sources begin (default: the repository)."""
    threads: PositiveInt | None = None
    """DuckDB threads of one query (default: all cores)."""
    memory_limit: StrictStr | None = None
    """DuckDB memory of one query, such as 8GB (default: 80 % of the machine); more spills to `temp_directory`."""
    temp_directory: StrictStr | None = None
    """Where a query spills (default: the system's); each query makes its own folder there and removes it."""


class AsofDuckDBOfflineStore(OfflineStore):
    """Feast offline store over Parquet `FileSource`s; see the module's docstring for who wins a join."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    @override
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pa.Table | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Point-in-time features for every row of `entity_df`, in its order.

        Args:
            config: the repository's configuration.
            feature_views: the views asked for, with their projections.
            feature_refs: `<view>:<feature>`, in the order of the result's columns.
            entity_df: rows with the join keys and a time, `event_timestamp` or the only time column: a pandas frame,
                an Arrow table, or a DuckDB query. The time comes back as microseconds UTC.
            registry: where on-demand views are looked up.
            project: the Feast project.
            full_feature_names: name columns `<view>__<feature>`.
            filter_by_created_timestamp: see only rows whose created timestamp is at or before the entity's time;
                a source without a created column is not filtered.

        Raises:
            ValueError: no entity_df, a column named like a requested feature, a source that cannot be read.
            FeastEntityDFMissingColumnsError: a join key is missing.
        """
        if entity_df is None:
            raise ValueError(
                "The ASOF offline store needs an entity_df (pandas, Arrow or SQL) with join keys and a timestamp; "
                "retrieval by start_date/end_date alone is not supported."
            )
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        with connection(config.offline_store, rows=0) as con:
            entities = EntityRows.of(con, entity_df)
        views, on_demand_names = requested_views(feature_refs, feature_views, on_demand, full_feature_names)
        entities.check(views, on_demand_names)
        plan = HistoricalPlan(entities, views, filter_by_created_timestamp, _root(config))
        low, high = entities.span
        return AsofRetrievalJob(
            config=config,
            fetch=plan.fetch,
            statement=plan.sql,
            on_demand_feature_views=on_demand,
            full_feature_names=full_feature_names,
            rows=len(entities.table),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in entities.table.column_names if name != entities.time_column],
                min_event_timestamp=_moment(low),
                max_event_timestamp=_moment(high),
            ),
        )

    @staticmethod
    @override
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None,
        end_date: datetime | None,
    ) -> RetrievalJob:
        """The newest row per key by (timestamp, created, position) with start <= timestamp <= end.

        A row with a null join key belongs to no key and is left out.
        """
        return _pull(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            times=[timestamp_field, created_timestamp_column],
            window=(start_date, end_date),
            latest=True,
        )

    @staticmethod
    @override
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Every row with start <= timestamp <= end, in file order."""
        return _pull(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            times=[timestamp_field, created_timestamp_column],
            window=(start_date, end_date),
            latest=False,
        )

    @override
    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Raise ValueError when a source's path or manifest cannot be read, or its timestamp column is missing.

        A manifest that is not there yet is no mistake: `feast apply` may come before the first materialization.
        """
        path, root = Path(getattr(data_source, "path", "")), _root(config)
        if path.suffix == ".json" and not path.is_absolute() and root is not None and not (root / path).exists():
            return
        with connection(config.offline_store) as con:
            scan = open_scan(con, data_source, _root(config), pa.schema([]))
        if scan.types:
            scan.micros(data_source.timestamp_field, "the timestamp field")

    @override
    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        """Column names and Arrow type names, for Feast's schema inference; also for folders, globs and manifests."""
        with connection(config.offline_store) as con:
            schema = source_schema(con, data_source, _root(config))
        return [(field.name, str(field.type)) for field in schema]


def _pull(
    config: RepoConfig,
    source: DataSource,
    keys: list[str],
    features: list[str],
    *,
    times: list[str | None],
    window: tuple[datetime | None, datetime | None],
    latest: bool,
) -> RetrievalJob:
    time_columns = [column for column in times if column]
    low, high = (_micros(moment) if moment else None for moment in window)
    schema = pa.schema(
        [(name, pa.string()) for name in [*keys, *features]]
        + [(name, pa.timestamp("us", tz="UTC")) for name in time_columns]
    )

    def statement(con: duckdb.DuckDBPyConnection) -> str:
        scan = open_scan(con, source, _root(config), schema, (low, high))
        for column in [*keys, *features]:
            scan.type_of(column, "a join key or a feature")
        instants = [scan.micros(column, "a time column") for column in time_columns]
        selected = [quoted(column) for column in [*keys, *features]]
        selected += [f"make_timestamptz({sql}) AS {quoted(c)}" for sql, c in zip(instants, time_columns, strict=True)]
        if not keys:
            selected.append(f"'{DUMMY_ENTITY_VAL}' AS {DUMMY_ENTITY_ID}")
        conditions = [f"{quoted(time_columns[0])} IS NOT NULL", *scan.within(time_columns[0], low, high)]
        newest = ", ".join(f"{sql} DESC NULLS LAST" for sql in [*instants, "file_index", "file_row_number"])
        if latest:
            conditions += [f"{quoted(key)} IS NOT NULL" for key in keys]
            per_key = f"PARTITION BY {', '.join(map(quoted, keys))} " if keys else ""
            ending = f"QUALIFY row_number() OVER ({per_key}ORDER BY {newest}) = 1"
        else:
            ending = "ORDER BY file_index, file_row_number"
        return f"SELECT {', '.join(selected)}\nFROM {scan.sql}\nWHERE {' AND '.join(conditions)}\n{ending}"

    def fetch(con: duckdb.DuckDBPyConnection) -> pa.Table:
        # Feast's conversion to online rows looks at a table's first chunk only.
        return con.sql(statement(con)).to_arrow_table().combine_chunks()

    return AsofRetrievalJob(config=config, fetch=fetch, statement=statement)


def _root(config: RepoConfig) -> Path | None:
    return Path(in_home(config.offline_store.root)) if config.offline_store.root else config.repo_path


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _micros(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else pd.Timestamp(micros, unit="us", tz="UTC").to_pydatetime()
