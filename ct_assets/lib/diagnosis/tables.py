"""Tables that a contract promises, without rows or with made-up ones, and SQL over them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from ct_assets.core.strict import unknown
from ct_assets.lake.columns import stored_schema
from ct_assets.lake.contract import Source
from ct_assets.lake.engine import cursor, fetch

MOMENT = pa.timestamp("us", "UTC")
FIRST = pd.Timestamp("2024-01-01", tz="UTC")
DAYS = 4
ROWS = 60
"""Made-up rows of a source, spread over the days from `FIRST` on."""
SPAN = {"start": FIRST, "end": FIRST + pd.Timedelta(days=DAYS)}


def schema_of(source: Source) -> pa.Schema:
    """The Arrow types of the columns that a contract declares."""
    return stored_schema(source.schema)


@contextmanager
def tables(content: Mapping[str, pa.Table]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB cursor that sees these tables and no others."""
    with cursor() as connection:
        for name, table in content.items():
            connection.register(name, table)
        yield connection


def bound(
    sources: Mapping[str, Source],
    sql: str,
    parameters: Mapping[str, Any] | None = None,
    more: Mapping[str, pa.Schema] | None = None,
) -> pa.Schema:
    """What a query over these sources, and more tables, yields.

    Raises:
        duckdb.Error: The query does not fit the contracts.
    """
    schemas = {name: schema_of(source) for name, source in sources.items()} | dict(more or {})
    with tables({name: schema.empty_table() for name, schema in schemas.items()}) as connection:
        return fetch(connection, sql, parameters).schema


def in_words(error: duckdb.Error, visible: Mapping[str, Source], others: Mapping[str, Source]) -> str:
    """What DuckDB found, with the nearest valid name.

    Args:
        error: What it raised.
        visible: Sources that the query may read.
        others: Sources of the deployment that it may not.
    """
    text = str(error)
    line = re.search(r"LINE (\d+): (.*)", text)
    place = f" (line {line[1]}: {line[2].strip()})" if line else ""
    if column := re.search(r'(?:Referenced column|column named) "([^"]+)"', text):
        return unknown("column", column[1], {c for s in visible.values() for c in s.schema.columns}) + place
    if table := re.search(r"Table with name (\S+) does not exist", text):
        if table[1] in others:
            return f"reads {table[1]!r}, but this query sees the rows of {', '.join(visible)} only{place}"
        return unknown("source", table[1], visible) + place
    if "count mismatch" in text:
        return "does not use each of $start and $end, or names them otherwise"
    if missing := re.search(r"following parameters: (.*)", text):
        return f"names the parameter(s) {missing[1]}, which nobody gives"
    return text.partition("\n")[0].partition("Error: ")[2] + place


def made_up(source: Source, sql: str, seed: int = 0, among: pa.Table | None = None) -> pa.Table:
    """Rows of a source with its contract's types, ordered by `known_at`; the same every time.

    Numbers are whole, so that a sum does not depend on its order; no two rows have the same moment, so that there is
    one. Texts are those that the contract allows or that the SQL compares with, as a filter should let rows through; of
    columns that `among` has too, they are its own, as a join should find some.
    """
    random = np.random.default_rng(seed)
    literals = re.findall(r"'([^'\s]+)'", sql)
    columns = {
        name: _column(name, kind, source, literals, random)
        for name, kind in zip(schema_of(source).names, schema_of(source).types, strict=True)
    }
    frame = pd.DataFrame(columns)
    if among is not None and among.num_rows:
        for name in set(frame) & set(among.column_names):
            if pa.types.is_string(among.schema.field(name).type):
                frame[name] = random.choice(among[name].to_numpy(), len(frame))
    if "known_at" in frame:
        frame = frame.sort_values("known_at", ignore_index=True)
    return pa.Table.from_pandas(frame, schema_of(source), preserve_index=False)


def _column(name: str, kind: pa.DataType, source: Source, literals: list[str], random: np.random.Generator) -> Any:
    stated = {key: value for check in source.schema.columns[name].checks for key, value in check.statistics.items()}
    if pa.types.is_timestamp(kind):
        minutes = random.choice(DAYS * 24 * 60, ROWS, replace=False)
        return (FIRST if kind.tz else FIRST.tz_localize(None)) + pd.to_timedelta(minutes, unit="min")
    if pa.types.is_boolean(kind):
        return random.integers(0, 2, ROWS).astype(bool)
    if pa.types.is_string(kind):
        if source.key == (name,):
            return [f"{name}{row}" for row in range(ROWS)]
        pool = list(stated.get("allowed_values", [*literals, "a", "b", "c"]))
        return [str(pool[i]) for i in random.integers(0, len(pool), ROWS)]
    low = int(np.ceil(max(stated.get("min_value", 0), -(2**31))))
    high = max(low, int(min(stated.get("max_value", low + 100), low + 100)))
    return random.integers(low, high + 1, ROWS).astype(kind.to_pandas_dtype())
