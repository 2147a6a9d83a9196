"""A database table as a source: its new rows become landing files, each exactly once.

A look reads, in the order of the cursor column, from the last row that it landed up to the newest row that was there
one `lag` ago. Whatever got a cursor value up to that one has been committed meanwhile, however the transactions
overlapped; so nothing appears behind the place where the next look begins, but rows with the very same value, which
are told apart by a digest. Deleted rows are not noticed.
"""

import hashlib
import io
import json
import math
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.core.strict import unknown
from ct_assets.lake.contract import Source, SqlTable
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.formats import ARROW_TYPES, MOMENT, moments
from ct_assets.lake.landing import Landing
from ct_assets.lake.outbox import Outbox, Outgoing

if TYPE_CHECKING:
    import sqlalchemy as sa


class TableError(ValueError):
    """A table that cannot be read as its source was declared."""


@dataclass(frozen=True)
class Look:
    """What came of one look at a table.

    Attributes:
        rows: How many rows landed.
        files: In how many files.
        number: Of looks that landed something, this one's number.
        more: Whether rows were left for the next look.
    """

    rows: int
    files: int
    number: int
    more: bool


def look(home: Path, source: Source, now: float | None = None) -> Look:
    """Land the rows of a source's table that are new and settled.

    Args:
        home: `$CT_HOME`.
        source: One with a table.
        now: Seconds since 1970 by the wall clock; only differences between looks count.

    Raises:
        TableError: The environment variable is not set, or the table lacks a column, or a moment has no time zone;
            the rows stay where they are and come with a later look.
        sqlalchemy.exc.SQLAlchemyError: The database does not answer.
        OSError: A disk or place did not take a file.
    """
    assert source.table is not None
    now = time.time() if now is None else now
    outbox = Outbox(home / "tables" / source.name, Landing(home, source))
    with outbox.locked() as ours:
        if not ours:
            return Look(0, 0, 0, False)
        outbox.land()
        position = outbox.position()
        number = position.get("number", 0)
        since = now - position.get("looked_at", -math.inf)
        if not position.get("more") and 0 <= since < source.table.every.total_seconds():
            return Look(0, 0, number, False)
        return _take(outbox, source, source.table, position, now)


def _take(outbox: Outbox, source: Source, table: SqlTable, position: dict[str, Any], now: float) -> Look:
    after = _decoded(position["after"]) if "after" in position else None
    at = set(position.get("at", ()))
    with closing(_Table(source, table)) as database:
        # A look that seems to lie ahead was noted before the clock was set back.
        before = [top for top in position.get("tops", ()) if top[0] <= now]
        tops = [*before, [now, _encoded(database.top())]]
        settled, tops = _settled(tops, now - table.lag.total_seconds())
        rows = database.rows(after, _decoded(settled), at) if settled is not None else []
    more = len(rows) >= table.batch_rows
    number = position.get("number", 0) + bool(rows)
    files = _files(source, table, rows, number)
    if rows:
        last = rows[-1][table.cursor]
        at = {_digest(source, row) for row in rows if row[table.cursor] == last} | (at if last == after else set())
        after = last
    noted = {"number": number, "looked_at": now, "more": more, "tops": tops, "at": sorted(at)}
    outbox.commit(noted | ({} if after is None else {"after": _encoded(after)}), files)
    return Look(len(rows), len(files), number, more)


def _settled(tops: list[list[Any]], before: float) -> tuple[Any, list[list[Any]]]:
    """The newest row's cursor as it was at `before` or earlier, and the looks that later ones still need."""
    settled = [top for top in tops if top[0] <= before]
    return (settled[-1][1] if settled else None), [*settled[-1:], *(top for top in tops if top[0] > before)]


class _Table:
    """One connection to the database of a source."""

    def __init__(self, source: Source, table: SqlTable) -> None:
        import sqlalchemy as sa

        self._sa = sa
        self.source, self.table = source, table
        url = os.environ.get(table.url)
        if not url:
            raise TableError(
                f"source {source.name!r}: the environment variable {table.url} is not set; expected the SQLAlchemy URL "
                "of its database, such as postgresql+psycopg://user@host/database"
            )
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)
        try:
            self._rows = self._relation()
            self._connection = self._engine.connect()
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()

    def top(self) -> Any:
        """The greatest value of the cursor."""
        return self._connection.execute(self._sa.select(self._sa.func.max(self._cursor))).scalar()

    def rows(self, after: Any, settled: Any, known: set[str]) -> list[dict[str, Any]]:
        """Rows from `after` to `settled`, both included, in order, without the known ones; `batch_rows` at most."""
        query = self._sa.select(self._rows).where(self._cursor <= settled).order_by(self._cursor)
        if after is not None:
            query = query.where(self._cursor >= after)
        # As a stream: what is skipped and what is left for later is not held in memory.
        result = self._connection.execution_options(stream_results=True, yield_per=10_000).execute(query)
        found: list[dict[str, Any]] = []
        with closing(result):
            for row in result.mappings():
                if row[self.table.cursor] == after and _digest(self.source, row) in known:
                    continue
                found.append(dict(row))
                if len(found) == self.table.batch_rows:
                    break
        return found

    @property
    def _cursor(self) -> "sa.ColumnElement[Any]":
        return self._rows.c[self.table.cursor]

    def _relation(self) -> "sa.FromClause":
        """The columns that are wanted, with the database's types."""
        sa, table = self._sa, self.table
        wanted = dict.fromkeys([*self.source.schema.columns, table.known_at, table.cursor])
        if table.table == "":
            with self._engine.connect() as connection:
                probe = sa.select(sa.text("*")).select_from(sa.text(f"({table.query}) AS probe")).limit(0)
                found = list(connection.execute(probe).keys())
            relation: Any = sa.text(table.query).columns(*map(sa.column, found)).subquery("source_rows")
        else:
            schema, _, name = table.table.rpartition(".")
            try:
                relation = sa.Table(name, sa.MetaData(), autoload_with=self._engine, schema=schema or None)
            except sa.exc.NoSuchTableError as error:
                raise TableError(f"source {self.source.name!r}: the database has no table {table.table!r}") from error
            found = list(relation.c.keys())
        known_at = {"known_at"} - set(found)
        for name in wanted:
            if name not in found and name not in known_at:
                raise TableError(f"source {self.source.name!r}, its table: {unknown('column', name, found)}")
        return sa.select(*(relation.c[name] for name in wanted if name in found)).subquery("rows_wanted")


def _files(source: Source, table: SqlTable, rows: list[dict[str, Any]], number: int) -> list[Outgoing]:
    """The rows as Parquet, one file an arrival day."""
    if not rows:
        return []
    frame = pd.DataFrame.from_records(rows)
    known_at = _moments(source, table, table.known_at, frame[table.known_at])
    columns: dict[str, pa.Array] = {}
    for name, column in source.schema.columns.items():
        if name == "known_at":
            columns[name] = pa.array(known_at, MOMENT)
        elif "datetime" in str(column.dtype):
            columns[name] = pa.array(_moments(source, table, name, frame[name]), MOMENT)
        else:
            columns[name] = _array([row[name] for row in rows], str(column.dtype))
    whole = pa.table(columns)
    if not source.daily:
        return [_file(WHOLE, whole, number)]
    if known_at.isna().any():
        raise TableError(
            f"source {source.name!r}, its table: {int(known_at.isna().sum())} row(s) have no {table.known_at}; "
            "expected the moment that each became known: leave them out by a query, or fill the column"
        )
    days = known_at.dt.strftime("%Y-%m-%d")
    return [_file(day, whole.filter(pa.array(days == day)), number) for day in sorted(days.unique())]


def _file(partition: str, rows: pa.Table, number: int) -> Outgoing:
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    name = f"rows-{number:08d}-{partition}-{hashlib.sha256(sink.getvalue()).hexdigest()[:12]}.parquet"
    return Outgoing(partition, name, sink.getvalue())


def _moments(source: Source, table: SqlTable, name: str, values: pd.Series) -> pd.Series:
    """Moments in UTC from whatever the database gives: with a zone, without one, or text."""
    try:
        return moments(name, values, table.zone)
    except ValueError as error:
        raise TableError(f"source {source.name!r}, its table: {error}; or name its zone in table.zone") from error


def _array(values: Sequence[Any], declared: str) -> pa.Array:
    """Values in the contract's type where they fit, and as they are where the contract is to tell what is wrong."""
    plain = [_plain(value, declared) for value in values]
    try:
        return pa.array(plain, ARROW_TYPES.get(declared))
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in plain])


def _plain(value: Any, declared: str) -> Any:
    """Types of databases that Parquet or the contract have no like of."""
    if isinstance(value, Decimal):
        return str(value) if declared == "object" else float(value)
    if declared == "bool" and value in (0, 1):
        return bool(value)
    return str(value) if isinstance(value, (uuid.UUID, date)) else value


def _digest(source: Source, row: Mapping[Any, Any]) -> str:
    """Tells rows of one cursor value apart, by the contract's key."""
    assert source.table is not None
    values = [_encoded(row[name] if name in row else row[source.table.known_at]) for name in source.key]
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()[:32]


def _encoded(value: Any) -> Any:
    """A value as JSON keeps it; a moment with a zone in UTC, whatever zone the database shows it in."""
    if isinstance(value, datetime):
        return {"moment": (value.astimezone(UTC) if value.tzinfo else value).isoformat()}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    return {"decimal": str(value)} if isinstance(value, Decimal) else value


def _decoded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, text),) = value.items()
    return _READERS[kind](text)


_READERS: Mapping[str, Callable[[str], Any]] = {
    "moment": datetime.fromisoformat,
    "date": date.fromisoformat,
    "decimal": Decimal,
}
