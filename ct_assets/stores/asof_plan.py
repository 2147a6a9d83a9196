"""The point-in-time join as SQL: one join per view, each returning one row per entity row, in its order."""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast.data_source import DataSource
from feast.errors import EntityTimestampInferenceException, FeastEntityDFMissingColumnsError
from feast.feature_view import DUMMY_ENTITY_ID, FeatureView
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.type_map import feast_value_type_to_pa
from feast.utils import _get_requested_feature_views_to_features_dict, _parse_feature_ref

from ct_assets.lake.engine import fetch, quoted
from ct_assets.stores.parquet_source import ParquetScan, Span, open_scan

FEW_ROWS = 20_000
"""Below so many entity rows a query is planned for longer than it runs, and a second thread does not pay."""

FEW_PAIRS = 8_000_000
"""Up to so many pairs of an entity row and a stored row, comparing those of one key is planned in less time."""

_MICROS_UTC = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class ViewRequest:
    """What one view is asked for, in the source's column names.

    Attributes:
        name: the view, for error messages.
        source: its batch source.
        keys: (column of the entity rows, column of the source) per join key; empty for a view without entities.
        features: (column of the result, column of the source) per feature.
        timestamp, created: time columns of the source; `created` may be None.
        ttl: None or zero is unlimited.
        schema: declared columns and types, used when the source has no file yet.
    """

    name: str
    source: DataSource
    keys: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]
    timestamp: str
    created: str | None
    ttl: timedelta | None
    schema: pa.Schema

    @classmethod
    def of(cls, view: FeatureView, features: list[str], full_feature_names: bool) -> Self:
        """From a view and the features asked of it, undoing its source's field mapping."""
        source = view.batch_source
        if source is None:
            raise ValueError(f"Feature view {view.name!r} has no batch source, so it has no history to join.")
        stored = {mapped: column for column, mapped in source.field_mapping.items()}
        prefix = f"{view.projection.name_alias or view.name}__" if full_feature_names else ""
        join_keys = [column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]
        timestamp = stored.get(source.timestamp_field, source.timestamp_field)
        known = source.created_timestamp_column
        created = stored.get(known, known) if known else None
        declared = {
            stored.get(field.name, field.name): feast_value_type_to_pa(field.dtype.to_value_type())
            for field in [*view.entity_columns, *view.features]
            if field.name != DUMMY_ENTITY_ID
        }
        declared |= {column: _MICROS_UTC for column in (timestamp, created) if column}
        return cls(
            name=view.name,
            source=source,
            keys=tuple((view.projection.join_key_map.get(key, key), stored.get(key, key)) for key in join_keys),
            features=tuple((prefix + feature, stored.get(feature, feature)) for feature in features),
            timestamp=timestamp,
            created=created,
            ttl=view.ttl if view.ttl else None,
            schema=pa.schema(list(declared.items())),
        )


def requested_views(
    refs: list[str], views: list[FeatureView], on_demand: list[OnDemandFeatureView], full_feature_names: bool
) -> tuple[list[ViewRequest], list[str]]:
    """Feast's references as one request per view, and the result columns that on-demand views will add."""
    by_view, _ = _get_requested_feature_views_to_features_dict(refs, views, on_demand)
    requests = [ViewRequest.of(view, features, full_feature_names) for view, features in by_view.items()]
    computed = []
    for ref in refs:
        view_name, _, feature = _parse_feature_ref(ref)
        if any(view_name == view.projection.name_to_use() for view in on_demand):
            computed.append(f"{view_name}__{feature}" if full_feature_names else feature)
    return requests, computed


@dataclass(frozen=True)
class EntityRows:
    """The entity rows as given, with their time in microseconds UTC."""

    table: pa.Table
    time_column: str

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, entity_df: pd.DataFrame | pa.Table | str) -> Self:
        """From a pandas frame, an Arrow table or a DuckDB query (run on `con`)."""
        if isinstance(entity_df, str):
            table = con.sql(entity_df).to_arrow_table()
        elif isinstance(entity_df, pa.Table):
            table = entity_df
        elif isinstance(entity_df, pd.DataFrame):
            table = pa.Table.from_pandas(entity_df, preserve_index=False).replace_schema_metadata(None)
        else:
            raise ValueError(f"entity_df is a {type(entity_df).__name__}; expected pandas, Arrow or a SQL string.")
        time_column = _time_column(table.schema)
        position = table.column_names.index(time_column)
        return cls(
            table.set_column(position, time_column, _as_micros_utc(table[time_column], time_column)), time_column
        )

    @property
    def span(self) -> tuple[int | None, int | None]:
        """First and last time, microseconds since 1970 UTC; None without rows."""
        limits = pc.min_max(self.table[self.time_column].cast(pa.int64())).as_py()
        return limits["min"], limits["max"]

    def check(self, views: list[ViewRequest], computed: list[str]) -> None:
        """Refuse missing join keys and columns that would appear twice in the result."""
        given = set(self.table.column_names)
        needed = {entity for view in views for entity, _ in view.keys}
        if missing := needed - given:
            raise FeastEntityDFMissingColumnsError(needed, missing)
        names = [name for view in views for name, _ in view.features] + computed
        if taken := sorted(given & set(names)):
            raise ValueError(
                f"entity_df has columns named like requested features: {taken}. Rename or drop them, "
                "or ask for full_feature_names=True."
            )
        if twice := sorted(name for name, count in Counter(names).items() if count > 1):
            raise ValueError(f"Features of several views share the names {twice}: ask for full_feature_names=True.")

    def register(self, con: duckdb.DuckDBPyConnection, columns: list[str]) -> None:
        """Make `entity_df(row, at, k0, k1, ...)` on `con`: position, microseconds UTC, and `columns` in order.

        Only what the joins need goes through DuckDB; other columns keep their type and stay where they are.
        """
        data = {"row": pa.array(range(len(self.table))), "at": self.table[self.time_column].cast(pa.int64())}
        data |= {f"k{index}": self.table[column] for index, column in enumerate(columns)}
        con.register("entity_df", pa.table(data))


@dataclass(frozen=True)
class HistoricalPlan:
    """Point-in-time features of `views` for `entities`."""

    entities: EntityRows
    views: list[ViewRequest]
    filter_by_created: bool
    root: Path | None

    def fetch(self, con: duckdb.DuckDBPyConnection) -> pa.Table:
        """Run every view's join; the entity table with the feature columns appended."""
        result = self.entities.table
        for view, sql in zip(self.views, self._statements(con), strict=True):
            columns = (fetch(con, sql) if len(result) < FEW_ROWS else con.sql(sql).to_arrow_table()).columns
            for (name, _), column in zip(view.features, columns, strict=True):
                result = result.append_column(name, column)
        return result

    def sql(self, con: duckdb.DuckDBPyConnection) -> str:
        """The statements of all views."""
        return ";\n\n".join(self._statements(con))

    def _statements(self, con: duckdb.DuckDBPyConnection) -> list[str]:
        columns = list(dict.fromkeys(entity for view in self.views for entity, _ in view.keys))
        self.entities.register(con, columns)
        kinds = dict(zip(columns, map(str, con.table("entity_df").types[2:]), strict=True))
        aliases = {column: f"k{index}" for index, column in enumerate(columns)}
        statements = []
        for view in self.views:
            scan = open_scan(con, view.source, self.root, view.schema, self._span(view))
            for entity, stored in view.keys:
                _check_comparable(view.name, entity, kinds[entity], scan.type_of(stored, "a join key"))
            statements.append(self._statement(view, scan, [aliases[entity] for entity, _ in view.keys]))
        return statements

    def _statement(self, view: ViewRequest, scan: ParquetScan, keys: list[str]) -> str:
        """One view's join.

        `visible` is the time from which a row can be seen: its timestamp, or with the created filter the later of
        timestamp and created. The ttl is judged on the winner's own timestamp: when the newest is too old, so is every
        other.
        """
        cut_off = self.filter_by_created and view.created is not None
        features = [f"f{index}" for index in range(len(view.features))]
        selected = [f"{quoted(stored)} AS {key}" for key, (_, stored) in zip(keys, view.keys, strict=True)]
        for feature, (_, stored) in zip(features, view.features, strict=True):
            scan.type_of(stored, f"a feature of view {view.name!r}")
            selected.append(f"{quoted(stored)} AS {feature}")
        ts = scan.micros(view.timestamp, "the timestamp field")
        created = scan.micros(view.created, "the created column") if view.created else "NULL::BIGINT"
        visible = "greatest(ts, created)" if cut_off else "ts"
        few = keys and scan.rows is not None and scan.rows * len(self.entities.table) <= FEW_PAIRS
        tables, joined = _compared(keys, visible) if few else _sorted(keys, visible, cut_off)
        return f"""
WITH stored AS (
  SELECT {", ".join([*selected, f"{ts} AS ts", f"{created} AS created", "file_index", "file_row_number"])}
  FROM {scan.sql}
  WHERE {" AND ".join(self._conditions(view, scan, cut_off))}
), {tables}
SELECT {", ".join(self._result_columns(view, features))}
FROM {joined}
ORDER BY e.row""".strip()

    def _conditions(self, view: ViewRequest, scan: ParquetScan, cut_off: bool) -> list[str]:
        low, high = self._span(view)
        conditions = [f"{quoted(view.timestamp)} IS NOT NULL", *scan.within(view.timestamp, low, high)]
        if cut_off and view.created is not None:
            conditions += [f"{quoted(view.created)} IS NOT NULL", *scan.within(view.created, None, high)]
        return conditions

    def _span(self, view: ViewRequest) -> Span:
        """When a row of the view can matter to any entity row; without any, no moment is wanted."""
        low, high = self.entities.span
        if high is None:
            return (1, 0)
        return (None if low is None or view.ttl is None else low - _micros(view.ttl), high)

    @staticmethod
    def _result_columns(view: ViewRequest, features: list[str]) -> list[str]:
        within = f"CASE WHEN f.ts >= e.at - {_micros(view.ttl)} THEN f.{{}} END" if view.ttl else "f.{}"
        named = zip(features, view.features, strict=True)
        return [f"{within.format(feature)} AS {quoted(name)}" for feature, (name, _) in named]


def _compared(keys: list[str], visible: str) -> tuple[str, str]:
    """Tables, and the source of the result: each entity row with the greatest of all rows that it sees."""
    conditions = " AND ".join([*(f"e.{key} = r.{key}" for key in keys), f"e.at >= {visible}"])
    tables = f"""ranked AS (
  SELECT *, row_number() OVER (ORDER BY ts, created NULLS FIRST, file_index, file_row_number) AS rank FROM stored
), newest AS (
  SELECT e.row, max(rank) AS rank FROM entity_df e JOIN ranked r ON {conditions} GROUP BY e.row
)"""
    return tables, "entity_df e LEFT JOIN newest USING (row) LEFT JOIN ranked f USING (rank)"


def _sorted(keys: list[str], visible: str, cut_off: bool) -> tuple[str, str]:
    """The same for many rows, each of which is looked at once.

    Sorted by `visible`, the newest row visible at t is the running maximum of (ts, created), so rows below that maximum
    never win and are dropped; what is left increases, and one ASOF join finds it.
    """
    equal = " AND ".join(f"e.{key} = f.{key}" for key in keys)
    per_key = f"PARTITION BY {', '.join(keys)} " if keys else ""
    keep = "lead(visible) OVER w IS DISTINCT FROM visible"
    if cut_off:
        # One number that orders like the pair (ts, created).
        rank = "(ts::HUGEINT * 18446744073709551616 + created)"
        keep += f" AND {rank} >= max({rank}) OVER w"
    tables = f"""asked AS (
  SELECT f.*, {visible} AS visible
  FROM stored f {f"SEMI JOIN entity_df e ON {equal}" if keys else ""}
), newest AS (
  SELECT * FROM asked
  WINDOW w AS ({per_key}ORDER BY visible, ts, created NULLS FIRST, file_index, file_row_number)
  QUALIFY {keep}
)"""
    return tables, f"entity_df e ASOF LEFT JOIN newest f ON {' AND '.join(filter(None, [equal, 'e.at >= f.visible']))}"


def _micros(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def _time_column(schema: pa.Schema) -> str:
    if "event_timestamp" in schema.names:
        return "event_timestamp"
    times = [field.name for field in schema if pa.types.is_timestamp(field.type) or pa.types.is_date(field.type)]
    if len(times) != 1:
        raise EntityTimestampInferenceException("event_timestamp")
    return times[0]


def _as_micros_utc(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.chunked_array([pa.array(pd.to_datetime(column.to_pandas(), utc=True, format="ISO8601"), _MICROS_UTC)])
    if pa.types.is_null(kind):
        return column.cast(_MICROS_UTC)
    if pa.types.is_date(kind):
        column, kind = column.cast(pa.timestamp("us")), pa.timestamp("us")
    if not pa.types.is_timestamp(kind):
        raise ValueError(f"entity_df column {name!r} has type {kind}, expected a timestamp, a date or ISO 8601 text.")
    if kind.tz is None:
        column = pc.assume_timezone(column, "UTC")
    return column.cast(_MICROS_UTC, safe=False)  # nanoseconds are cut off


def _check_comparable(view: str, entity: str, asked: str, stored: str) -> None:
    """DuckDB would cast text to numbers and fail on the first key that is not one."""
    text = [kind.startswith(("VARCHAR", "ENUM")) for kind in (asked, stored)]
    if text[0] != text[1] and '"NULL"' not in (asked, stored):
        raise ValueError(
            f"Join key {entity!r} is {asked} in entity_df and {stored} in the source of view {view!r}; "
            "cast the entity column to the source's type."
        )
