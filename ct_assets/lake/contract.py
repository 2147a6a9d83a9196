"""What a source promises, and the batches that break the promise."""

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal

import pandas as pd
import pandera.pandas as pa
import pyarrow
from pandera.errors import SchemaErrors

from ct_assets.lake.columns import Content
from ct_assets.lake.declaration import check_declaration
from ct_assets.lake.periods import Cadence, partition_at, within


@dataclass(frozen=True)
class SqlTable:
    """A database table whose new rows land as files.

    Attributes:
        url: Name of the environment variable that holds the SQLAlchemy URL; never the URL, which has a password.
        table: Name of the table or view, with its schema where it has one: `shop.orders`.
        query: A `SELECT` instead of it.
        cursor: Column by which rows come in order: a number or moment that never gets less in a newer row, such as an
            identity or `updated_at`. Rows without a value never arrive. Deleted rows are not noticed.
        known_at: Column that becomes `known_at`: when the database learned of the row. A row that changes arrives again
            as a row of its own, so the key then has to include what changed, such as `updated_at`.
        zone: Time zone of moments that the table keeps without one; empty: they are an error.
        lag: How long after the cursor's value was given a row may still be committed: longer than the longest
            transaction that writes to the table. Rows land this much later.
        batch_rows: Most rows of one look.
        every: Time between two looks, unless the last one left rows behind.
    """

    url: str
    table: str = ""
    query: str = ""
    cursor: str = "updated_at"
    known_at: str = "known_at"
    zone: str = ""
    lag: timedelta = timedelta(minutes=1)
    batch_rows: int = 100_000
    every: timedelta = timedelta(minutes=1)


@dataclass(frozen=True)
class Domain:
    """Sources that share a calendar of arrival partitions, a group of the asset graph and the sensors that watch it.

    Attributes:
        name: Name of the group; the sensors' names begin with it.
        first_day: First UTC day of arrival.
        last_day: Last one; None for a live feed, whose days go on.
        cadence: How long a partition of arrivals is: an hour, a day or a week, in UTC. Its name, which is that of the
            landing folder, is `2026-03-09-13:00`, `2026-03-09` or `2026-03-09-week`, the week from that Monday on.
        closes_after: How long after the end of its last partition a live group waits for files of it. Then the
            partition is closed: it is scored and decided about with what has arrived.
        quiet_days: After so many days without any arrival, the partitions up to the next arrival or up to now are left
            out: what landed of years ago would have each day since decided by itself. At least the longest time
            until a label of its models is known; `ct doctor` warns if it is not.
    """

    name: str = "data"
    first_day: date = date(2000, 1, 1)
    last_day: date | None = None
    cadence: Cadence = "daily"
    closes_after: timedelta = timedelta(hours=1)
    quiet_days: int = 60

    def partition_of(self, time: pd.Timestamp) -> str:
        """The arrival partition that a time lies in."""
        return partition_at(self.cadence, time)

    def has(self, partition: str) -> bool:
        """Whether an arrival partition is one of its own; those of a live group go on without end."""
        last = self.last_day.isoformat() if self.last_day else None
        return within(partition, self.first_day.isoformat(), last)


@dataclass(frozen=True)
class Source:
    """One source and its contract.

    Attributes:
        name: Name of the source, its landing folder and its dataset.
        schema: Columns, types, ranges and row rules; timestamps are `datetime64[us, UTC]`. A value is stored in its
            column's type, unchanged, or its batch is rejected.
        key: Columns that name a row, which arrives once; in a reference table, each version of it.
        description: One sentence for the asset catalog.
        owner: `team:name` or an e-mail address.
        domain: What it belongs to; a model reads sources of one domain.
        daily: One partition per arrival day; otherwise the source is a reference table without partitions: each file
            brings the rows that are new, a changed one with a later `known_at`, and may bring the others again.
        stable: Numeric columns whose distribution does not move overnight; a jump means that the sender changed.
        min_rows: Fewest rows of a complete batch; 1 for a reference table that is sent in parts.
        fresh_within: Wall-clock time after which a silent source is stale.
        format: What its files are: `parquet`, `arrow` (file or stream), `csv` with a header, or `json` (an object a
            line).
        delimiter: Between two values of a CSV file.
        encoding: Of the text of a CSV or JSON file.
        missing: What stands for a missing value in a CSV file, such as `("", "NA")`; the empty text alone when left
            out, as `NA` may be Namibia. In quotes it is text.
        infinite: Columns of floats in which an infinity is a value; in others it is rejected. NaN is no value in any.
        landing: Where its files land: an absolute path or any URL that fsspec knows, such as `s3://bucket/prefix`;
            `$CT_HOME/landing/<name>` when empty.
        table: The database table that its rows come from; None when files land by themselves.
        event_type: `type` of the CloudEvents whose data are its rows; empty when it takes none.

    Raises:
        DeclarationError: The declaration contradicts itself.
    """

    name: str
    schema: pa.DataFrameSchema
    key: tuple[str, ...]
    description: str
    owner: str
    domain: Domain = Domain()
    daily: bool = True
    stable: tuple[str, ...] = ()
    min_rows: int = 1
    fresh_within: timedelta = field(default=timedelta(days=2))
    format: Literal["parquet", "arrow", "csv", "json"] = "parquet"
    delimiter: str = ","
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ("",)
    infinite: tuple[str, ...] = ()
    landing: str = ""
    table: SqlTable | None = None
    event_type: str = ""

    def __post_init__(self) -> None:
        check_declaration(self)


def contract_breaches(source: Source, content: Content) -> list[str]:
    """Every way in which a file breaks its source's contract, in words; empty when it keeps it.

    What is checked are the values that are stored, after the cast to the declared types, and never others.
    """
    declared = source.schema.columns
    if missing := [name for name in declared if name not in content.found]:
        found = ", ".join(content.found)
        return [f"column(s) {', '.join(missing)} missing; found {found}: ask the sender to restore them"]
    reasons = []
    if content.table.num_rows < source.min_rows:
        reasons.append(f"{content.table.num_rows} rows; expected at least {source.min_rows}: the batch is incomplete")
    if source.schema.strict is True and (more := [name for name in content.found if name not in declared]):
        reasons.append(f"column(s) {', '.join(more)} are not declared; expected {', '.join(declared)} alone")
    if content.breaches:
        return [*reasons, *content.breaches]
    frame = _frame(content.table)
    try:
        _checks(source.schema).validate(frame, lazy=True)
    except SchemaErrors as error:
        reasons += _in_words(error.failure_cases)
    repeated = int(frame.duplicated(list(source.key)).sum())
    if repeated:
        reasons.append(f"{repeated} rows repeat the key {', '.join(source.key)}; expected one row per key")
    return reasons


def _checks(schema: pa.DataFrameSchema) -> pa.DataFrameSchema:
    """What a contract says of values; the types are settled, and nothing is to be converted or filled in again."""
    columns = {
        name: pa.Column(None, column.checks, nullable=column.nullable, unique=column.unique)
        for name, column in schema.columns.items()
    }
    return pa.DataFrameSchema(columns, schema.checks, unique=schema.unique)


_NULLABLE = {
    pyarrow.bool_(): pd.BooleanDtype(),
    **{
        getattr(pyarrow, name.lower())(): getattr(pd, f"{name}Dtype")()
        for name in (
            "Int8",
            "Int16",
            "Int32",
            "Int64",
            "UInt8",
            "UInt16",
            "UInt32",
            "UInt64",
        )
    },
}


def _frame(table: pyarrow.Table) -> pd.DataFrame:
    """The stored values for pandera: whole numbers and flags with gaps in types that hold both, never in floats."""
    gaps = [f.name for f in table.schema if f.type in _NULLABLE and table[f.name].null_count]
    frame = table.drop_columns(gaps).to_pandas() if gaps else table.to_pandas()
    for name in gaps:
        frame[name] = table[name].to_pandas(types_mapper=_NULLABLE.get)
    return frame[table.column_names]


def _in_words(cases: pd.DataFrame, examples: int = 3) -> list[str]:
    reasons = []
    for (column, check), group in cases.groupby(["column", "check"], dropna=False):
        shown = ", ".join(str(v) for v in group["failure_case"].head(examples))
        rows = group["index"].dropna()
        first = ", ".join(str(int(row)) for row in rows.head(examples))
        where = f" at {len(rows)} row(s), first {first}" if len(rows) else ""
        reasons.append(f"column {column}: expected {check}; found {shown}{where}")
    return reasons
