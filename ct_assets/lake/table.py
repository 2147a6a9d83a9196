"""A database table as a source: its new rows become landing files, each exactly once.

A look reads, in the order of the cursor column, from the last row that it landed up to the newest row that was there
one `lag` ago. Whatever got a cursor value up to that one has been committed meanwhile, however the transactions
overlapped; so nothing appears behind the place where the next look begins, but rows with the very same value, which
are recognized by a digest. A cursor on a local clock goes back with it: while that is near, a look begins at the value
that the clock will be set back to, and the rows that it has had are recognized in the same way. Deleted rows are not
noticed.
"""

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.core.strict import unknown
from ct_assets.lake.columns import TIMESTAMP, Bad, stored_schema
from ct_assets.lake.contract import Source, SqlTable
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.formats import iso_texts, moments, strays
from ct_assets.lake.landing import Landing
from ct_assets.lake.outbox import Outbox, Outgoing
from ct_assets.lake.periods import partitions_at
from ct_assets.lake.sql_values import array, disorder, exact
from ct_assets.lake.texts import fit_timestamps

if TYPE_CHECKING:
    import sqlalchemy as sa

_SET_BACK = 4 * 60
"""Minutes that a clock is set back at most."""


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
    first = _first_to_come(source, table, after)
    at = {digest: _decoded(value) for digest, value in position.get("at", ())}
    with closing(_Table(source, table)) as database:
        # A look that seems to lie ahead was noted before the clock was set back.
        before = [top for top in position.get("tops", ()) if top[0] <= now]
        newest = database.top()
        _refuse_disorder(source, table, [after, newest])
        tops = [*before, [now, _encoded(newest)]]
        settled, tops = _settled(tops, now - table.lag.total_seconds())
        rows = database.rows(first, _decoded(settled), set(at)) if settled is not None else []
    more = len(rows) >= table.batch_rows
    number = position.get("number", 0) + bool(rows)
    _refuse_disorder(source, table, [after, *(row[table.cursor] for row in rows)])
    files = _files(source, table, rows, number, now)
    if rows:
        last = rows[-1][table.cursor]
        after = last if after is None else max(after, last)
        first = _first_to_come(source, table, after)
        at = {d: v for d, v in [*at.items(), *((_digest(source, r), r[table.cursor]) for r in rows)] if v >= first}
    kept = [[digest, _encoded(value)] for digest, value in sorted(at.items())]
    noted = {"number": number, "looked_at": now, "more": more, "tops": tops, "at": kept}
    outbox.commit(noted | ({} if after is None else {"after": _encoded(after)}), files)
    return Look(len(rows), len(files), number, more)


def _refuse_disorder(source: Source, table: SqlTable, values: Iterable[Any]) -> None:
    if kinds := disorder(values):
        raise TableError(
            f"source {source.name!r}, its table: column {table.cursor} holds {' and '.join(kinds)}; expected numbers, "
            "text or timestamps of one kind, whose order says which row is newer: cast it in table.query, or name "
            "another column in table.cursor"
        )


def _first_to_come(source: Source, table: SqlTable, after: Any) -> Any:
    """The least cursor value of a row that is yet to come, when the newest one so far had `after`.

    That value itself, but on a clock that is about to be set back, or just was: its own time is not known, and the
    hour comes, or came, a second time.

    Raises:
        TableError: The clock is one that the source does not name, or is set to where no time is.
    """
    clock = after
    if isinstance(after, str):
        try:
            clock = datetime.fromisoformat(after)
        except ValueError:
            return after
        if clock.tzinfo is not None and not after.endswith(("Z", "+00:00", "+00")):
            raise TableError(
                f"source {source.name!r}, its table: column {table.cursor} is text such as {after!r}, whose order is "
                "not that of time; expected a timestamp: cast it in table.query"
            )
    if not isinstance(clock, datetime) or clock.tzinfo is not None:
        return after
    if not table.zone:
        raise TableError(
            f"source {source.name!r}, its table: column {table.cursor} holds timestamps without a time zone, such as "
            f"{clock}; expected the zone in table.zone, as a clock may be set back"
        )
    zone = ZoneInfo(table.zone)
    try:
        since = clock.replace(second=0, microsecond=0, tzinfo=zone).astimezone(UTC)
        later = ((since + timedelta(minutes=1 + n)).astimezone(zone).replace(tzinfo=None) for n in range(_SET_BACK))
        least = min(later)
    except OverflowError as error:
        raise TableError(
            f"source {source.name!r}, its table: column {table.cursor} holds {clock}, at the end of all time; expected "
            "when the row was written: leave such rows out by table.query"
        ) from error
    if least >= clock:
        return after
    return least if isinstance(after, datetime) else least.isoformat(after[10])


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

    def rows(self, first: Any, settled: Any, known: set[str]) -> list[dict[str, Any]]:
        """Rows from `first` to `settled`, both included, in order, without the known ones; `batch_rows` at most."""
        query = self._sa.select(self._rows).where(self._cursor <= settled).order_by(self._cursor)
        if first is not None:
            query = query.where(self._cursor >= first)
        # As a stream: what is skipped and what is left for later is not held in memory.
        result = self._connection.execution_options(stream_results=True, yield_per=10_000).execute(query)
        found: list[dict[str, Any]] = []
        with closing(result):
            for row in result.mappings():
                if known and _digest(self.source, row) in known:
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
        for name in wanted:
            # Another column may stand for it.
            if name not in found and not (name == "known_at" != table.known_at):
                raise TableError(f"source {self.source.name!r}, its table: {unknown('column', name, found)}")
        dialect = self._engine.dialect.name
        return sa.select(*(exact(relation.c[name], dialect) for name in wanted if name in found)).subquery(
            "rows_wanted"
        )


def _files(source: Source, table: SqlTable, rows: list[dict[str, Any]], number: int, now: float) -> list[Outgoing]:
    """The rows as Parquet, one file an arrival day, in the database's types: the contract judges them later.

    Rows with a moment that is none land in files of their own, in which it is text: the contract rejects these alone.
    """
    if not rows:
        return []
    stray = _stray(source, table, rows)
    days = _days(source, table, rows, now)
    files: list[Outgoing] = []
    for are_stray in (False, True):
        chosen = stray == are_stray
        whole = _columns(source, table, [row for row, ours in zip(rows, chosen, strict=True) if ours], are_stray)
        ours = days[chosen]
        files += [_file(day, whole.filter(pa.array(ours == day)), number) for day in sorted(set(ours.tolist()))]
    return files


def _stray(source: Source, table: SqlTable, rows: list[dict[str, Any]]) -> Bad:
    """Which rows hold a moment that is none."""
    bad = np.zeros(len(rows), dtype=bool)
    for field in stored_schema(source.schema):
        if field.type == TIMESTAMP:
            bad |= strays((row[_column(table, field.name)] for row in rows), table.zone)
    return bad


def _days(source: Source, table: SqlTable, rows: list[dict[str, Any]], now: float) -> npt.NDArray[np.str_]:
    """The arrival day of each row; one whose own cannot be read goes with the last one, or with today."""
    if not source.daily:
        return np.full(len(rows), WHOLE)
    text = iso_texts(row[table.known_at] for row in rows)
    if text.null_count:
        raise TableError(
            f"source {source.name!r}, its table: {text.null_count} row(s) have no {table.known_at}; "
            "expected the time at which each became known: leave them out by a query, or fill the column"
        )
    domain, today = source.domain, pd.Timestamp(now, unit="s", tz="UTC")
    last = pd.Timestamp(domain.last_day, tz="UTC") if domain.last_day else today
    days = partitions_at(domain.cadence, fit_timestamps(text, table.zone or "UTC").array).to_pylist()
    other = max((day for day in days if day is not None), default=domain.partition_of(min(today, last)))
    return np.array([day or other for day in days])


def _columns(source: Source, table: SqlTable, rows: list[dict[str, Any]], are_stray: bool) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for field in stored_schema(source.schema):
        column = _column(table, field.name)
        values = [row[column] for row in rows]
        if field.type != TIMESTAMP:
            columns[field.name] = array(values, field.type)
            continue
        try:
            columns[field.name] = moments(column, values, table.zone)
        except ValueError as error:
            if not are_stray:
                told = f"source {source.name!r}, its table: {error}; or name its zone in table.zone"
                raise TableError(told) from error
            columns[field.name] = iso_texts(values)
    return pa.table(columns)


def _column(table: SqlTable, name: str) -> str:
    """What the table calls a column of the contract."""
    return table.known_at if name == "known_at" else name


def _file(partition: str, rows: pa.Table, number: int) -> Outgoing:
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    name = f"rows-{number:08d}-{partition}-{hashlib.sha256(sink.getvalue()).hexdigest()[:12]}.parquet"
    return Outgoing(partition, name, sink.getvalue())


def _digest(source: Source, row: Mapping[Any, Any]) -> str:
    """Tells rows apart, by the cursor's value and the contract's key."""
    assert source.table is not None
    names = (name if name in row else source.table.known_at for name in source.key)
    values = [_encoded(row[name]) for name in (source.table.cursor, *names)]
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()[:32]


def _encoded(value: Any) -> Any:
    """A value as JSON keeps it; a moment with a zone in UTC, whatever zone the database shows it in."""
    if isinstance(value, datetime):
        return {"moment": _utc(value).isoformat()}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    return {"decimal": str(value)} if isinstance(value, Decimal) else value


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC) if value.tzinfo else value
    except OverflowError:  # It lies in year 0 or 10000 there.
        return value


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
