"""Events as they were known at their own moment of prediction.

What the events' SQL yields depends on the rows that it sees. An event is due at t if the SQL yields it with that
`event_timestamp` from the rows that were known at t, of the arrival days that `lookback_days` reaches; its columns are
those of that result. So a prediction in its time, the same event joined again for a training, and a caller of the
server mean the same.

Of several rows of one id, the newest that is known at t counts: an event that was announced again for another moment is
due at that moment only, from the announcement on. Newest is the row with the greatest `known_at`, where the SQL yields
it or makes each row from one row of its source, and then the one with the latest `event_timestamp`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import pandas as pd
import pyarrow as pa

from ct_assets.core.spec import ModelSpec
from ct_assets.lake.engine import quoted
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.row_wise import KNOWN, row_wise

MOST_PAIRS = 2_000_000_000
"""Of the moments of a day and the rows that each of them sees; more would take many minutes."""
_BATCH = 4_000_000
_MOMENT = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Events:
    """A query for events, and what it reads.

    Attributes:
        sql: Yields the columns of the events' SQL.
        windows: Datasets that it reads, and which of their partitions.
        tables: Further tables.
    """

    sql: str
    windows: Mapping[str, Window] = field(default_factory=dict)
    tables: Mapping[str, pa.Table] = field(default_factory=dict)


def rows_are_independent(spec: ModelSpec) -> bool:
    """Whether each event is made from one row of its source, so that many days can be read at once."""
    return row_wise(spec.events.sql, spec.events.source) is not None


def known_events(lake: Lake, spec: ModelSpec, window: Window, start: pd.Timestamp, end: pd.Timestamp) -> Events:
    """The events due from `start` to `end` (excluded), each as known at its moment.

    Args:
        lake: Where the source is.
        spec: Says what an event is.
        window: The arrival days that may announce them.
        start: First moment of prediction.
        end: The moment after the last one; of the same day as `start` unless `rows_are_independent`.

    Raises:
        ValueError: A day has too many rows that are known at different moments.
    """
    sql = row_wise(spec.events.sql, spec.events.source)
    if sql is not None:
        return Events(_of_single_rows(spec, sql, start, end), {spec.events.source: window})
    return Events("SELECT * FROM known", tables={"known": _in_cuts(lake, spec, window, start, end)})


def announced_late(
    lake: Lake, spec: ModelSpec, window: Window, start: pd.Timestamp, end: pd.Timestamp, known: pa.Table
) -> pa.Table:
    """Ids that the SQL yields at the end of a day for moments of that day at which it did not yield them.

    Args:
        lake: Where the source is.
        spec: Says what an event is.
        window: The arrival days that may announce them.
        start: First moment of prediction.
        end: The moment after the last one.
        known: The events that were known in time.
    """
    key = quoted(spec.events.id_column)
    sql = f"""
SELECT DISTINCT {key} FROM ({spec.events.sql}) ANTI JOIN known USING ({key})
WHERE event_timestamp >= $start AND event_timestamp < $end ORDER BY {key}
"""
    asked = {"start": start, "end": end}
    return lake.query(sql, {spec.events.source: window}, end, asked, {"known": known.select([spec.events.id_column])})


def _of_single_rows(spec: ModelSpec, sql: str, start: pd.Timestamp, end: pd.Timestamp) -> str:
    key, low, high = quoted(spec.events.id_column), _literal(start), _literal(end)
    return f"""
WITH announced AS ({sql}),
seen AS (
  SELECT * FROM announced WHERE event_timestamp >= {low} AND event_timestamp < {high} AND {_visible(spec, "announced")}
  QUALIFY rank() OVER (PARTITION BY {key}, event_timestamp ORDER BY {KNOWN} DESC) = 1
),
moved AS (
  SELECT * FROM announced SEMI JOIN (
    SELECT {key} FROM announced GROUP BY {key} HAVING min(event_timestamp) < max(event_timestamp)
  ) USING ({key})
)
SELECT * EXCLUDE ({KNOWN}) FROM seen WHERE NOT EXISTS (
  SELECT 1 FROM moved AS newer WHERE newer.{key} = seen.{key} AND newer.event_timestamp <> seen.event_timestamp
    AND (newer.{KNOWN}, newer.event_timestamp) > (seen.{KNOWN}, seen.event_timestamp)
    AND newer.{KNOWN} <= seen.event_timestamp
)
"""


def _visible(spec: ModelSpec, table: str) -> str:
    """Whether a row was known at the moment of its event, and arrived no longer before than the SQL looks back."""
    reach = f"date_trunc('day', event_timestamp) - to_days({spec.events.lookback_days})"
    return f"{table}.{KNOWN} <= event_timestamp AND {table}.{KNOWN} >= {reach}"


def _in_cuts(lake: Lake, spec: ModelSpec, window: Window, start: pd.Timestamp, end: pd.Timestamp) -> pa.Table:
    """Run the SQL as of each moment at which its result may have changed: those at which a row became known.

    Between two of them it yields the same, so what is due there is known as it was at the first of them.
    """
    source, key = quoted(spec.events.source), quoted(spec.events.id_column)
    rows = lake.query(f"SELECT * FROM {source}", {spec.events.source: window}, end)
    cuts = _cuts(spec, rows, start, end)
    if cuts.num_rows * rows.num_rows > MOST_PAIRS:
        raise ValueError(
            f"the events' SQL of {spec.name} looks at several rows together, and has to be run as of each of the "
            f"{cuts.num_rows} moments at which a row of {spec.events.source!r} became known on {start.date()}, over "
            f"{rows.num_rows} rows each; expected at most {MOST_PAIRS:,} rows in all: name the moments of prediction "
            "by `events.every`, lower `events.lookback_days`, or make each event from one row"
        )
    columns = lake.query(f"SELECT * FROM ({spec.events.sql}) LIMIT 0", {}, end, tables={spec.events.source: rows})
    # A version whose moment has passed is newer only if it says so itself.
    told = "known_at" in columns.column_names
    newest = "known_at DESC, event_timestamp DESC" if told else "event_timestamp DESC"
    sql = f"""
SELECT event.* FROM cuts, LATERAL (
  WITH {source} AS (SELECT * FROM {quoted(_ROWS)} WHERE known_at <= cuts.cut)
  SELECT * FROM ({spec.events.sql}) {"" if told else "WHERE event_timestamp >= cuts.cut"}
  QUALIFY rank() OVER (PARTITION BY {key} ORDER BY {newest}) = 1
) AS event WHERE event.event_timestamp >= cuts.cut AND event.event_timestamp < cuts.until
"""
    size = max(1, _BATCH // max(1, rows.num_rows))
    batches = [cuts.slice(first, size) for first in range(0, max(1, cuts.num_rows), size)]
    parts = [lake.query(sql, {}, end, tables={"cuts": batch, _ROWS: rows}) for batch in batches]
    return pa.concat_tables(parts)


_ROWS = "rows of the source"


def _cuts(spec: ModelSpec, rows: pa.Table, start: pd.Timestamp, end: pd.Timestamp) -> pa.Table:
    if spec.events.every is not None:
        found = list(spec.events.due(start, end))
    else:
        moments = pd.DatetimeIndex(rows["known_at"].unique().to_pandas())
        found = [start, *sorted(moments[(moments > start) & (moments < end)])]
    bounds = list(pairwise([*found, end]))
    schema = pa.schema([("cut", _MOMENT), ("until", _MOMENT)])
    return pa.table({"cut": [cut for cut, _ in bounds], "until": [until for _, until in bounds]}, schema)


def _literal(moment: pd.Timestamp) -> str:
    return f"TIMESTAMPTZ '{moment.isoformat()}'"
