"""Publication of feature rows: versions of them in the lake, the newest of each key online.

A row's `created` is the time from which on the server has it. A live group is published as it arrives, so `created` is
the time of the publication; what a recorded group, or a backfill from before the group went live, would have been
published at is what its SQL says plus the feature set's `publication_delay`, or what was measured. Historical retrieval
filters by `created`, so training and gate have exactly what the server had. A live row also has `ct_online_at`, the
clock after the online store had taken it, by which the daily parity check tries whether `created` is true, and
`ct_known_at`, what its SQL says: their difference is the delay of publication.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ct_assets.lake.contract import Domain
from ct_assets.lake.dataset import WHOLE, DataFile, Dataset
from ct_assets.lake.engine import fetch, quoted
from ct_assets.lake.lake import Lake
from ct_assets.lake.paths import write_atomically
from ct_assets.lib.online_rows import UTC_US, as_declared, as_online, last_of
from ct_assets.lib.partitions import end_of
from ct_assets.lib.restoring import restore_if_lost

if TYPE_CHECKING:
    from feast import FeatureStore

LIVE_SINCE = "live_since"
"""File in a view's dataset with the partition from which on its rows were published as they arrived."""
ONLINE_AT = "ct_online_at"
"""Column of live rows: when the online store had them."""
KNOWN_AT = "ct_known_at"
"""Column of live rows: the `created` of their SQL."""
USUAL_DELAY = timedelta(minutes=5)
"""How long a live group takes to publish what has arrived, until it has been measured."""
MEASURED_FILES = 200
"""How many of the newest publications a delay is measured by."""
LATE = pd.Timedelta(days=1)
"""A partition that ended longer ago than this, and is the first of its view, is a backfill."""
MOST_FILES = 24
"""Versions of a partition are joined into one file when there are more."""


@dataclass(frozen=True)
class Availability:
    """When the rows of a publication become available online.

    Attributes:
        live: Whether they are published as they arrive, and are available from `now` on.
        delay: Otherwise: how long after the SQL's `created` they would have been; as measured when None.
        now: Time of the publication; none of its rows is available later. The clock's when None.
    """

    live: bool = False
    delay: timedelta | None = timedelta(0)
    now: datetime | None = None

    def clock(self) -> pa.Scalar:
        """The time in microseconds since 1970."""
        return pa.scalar(self.now or datetime.now(UTC), UTC_US).cast(pa.int64())


@dataclass(frozen=True)
class Published:
    """What a publication brought.

    Attributes:
        rows: Rows that were new, or had another value than before.
        without_key: Rows that were left out because an entity key is null.
    """

    rows: int
    without_key: int


def availability(
    lake: Lake, domain: Domain, view: str, partition: str, delay: timedelta | None, now: datetime | None = None
) -> Availability:
    """How the rows of a partition become available; notes when a view of a live group is first published live.

    Without a declared delay that of a recorded group is zero, and that of a live one's past is measured.
    """
    if domain.last_day is not None:
        return Availability(delay=delay or timedelta(0), now=now)
    dataset = _dataset(lake, view)
    if partition == WHOLE:
        return Availability(live=bool(dataset.partition(WHOLE)), delay=delay, now=now)
    noted = dataset.root / LIVE_SINCE
    if not noted.exists() and pd.Timestamp(now or datetime.now(UTC)) < end_of(partition) + LATE:
        write_atomically(noted, partition.encode())
    live = noted.exists() and partition >= noted.read_text()
    return Availability(live=live, delay=delay, now=now)


def publish(
    lake: Lake,
    store: "FeatureStore",
    view: str,
    partition: str,
    table: pa.Table,
    definition: str,
    available: Callable[[], Availability] = Availability,
) -> Published:
    """Store the feature rows of a partition: all their versions in the lake, the newest of each key online.

    The rows of a live partition are added to those that are there: a row with another value is a version of its own,
    available from now on. Otherwise, and when the definition has changed, they replace those of the partition; a key
    that loses its newest row by that gets the one before it online, or none.

    Args:
        lake: Where all rows go.
        store: The feature store.
        view: Feature view that the rows belong to.
        partition: Arrival partition, or `WHOLE` for a reference table.
        table: The rows: join keys, `event_timestamp`, `created`, features.
        definition: Digest of what computed them; it becomes part of the view's version.
        available: Says when they become available online, which may depend on what is there; at `created` by default.
    """
    dataset = _dataset(lake, view)
    with dataset.exclusive():
        online_from = available()
        files = dataset.partition(partition)
        same = all(file.name == definition for file in files) and dataset.definition in ("", definition)
        keys = table.column_names[: table.column_names.index("event_timestamp")]
        rows, without_key = _with_keys(as_declared(store.get_feature_view(view), table), keys)
        rows = _one_each(lake, view, rows, keys)
        created = rows.column_names.index("created")
        stored = _read(dataset, files, rows.schema)
        restore_if_lost(lake, store, view)
        if online_from.live and same:
            rows = _news(lake, rows, stored, keys)
            known = rows["created"].cast(UTC_US)
            times = pc.max_element_wise(_micros(rows["created"]), online_from.clock(), skip_nulls=False)
            rows = rows.set_column(created, "created", times.cast(UTC_US))
            withdrawn = rows.slice(0, 0)
        else:
            delay = measured_delay(lake, view) if online_from.delay is None else online_from.delay
            shifted = pc.add(_micros(rows["created"]), delay // timedelta(microseconds=1))
            times = pc.min_element_wise(shifted, online_from.clock(), skip_nulls=False)
            rows = rows.set_column(created, "created", times.cast(UTC_US))
            withdrawn = _without(lake, stored, rows, [*keys, "event_timestamp", "created"])
        # Online first: after a crash in between, the lake still says what has to be done.
        _write_online(lake, store, dataset, view, partition, rows, withdrawn, keys)
        dataset.note_definition(definition)
        if not (online_from.live and same):
            dataset.write(partition, rows, name=definition)
        elif not files or rows.num_rows:
            together = len(files) >= MOST_FILES
            online_at = pa.repeat(online_from.clock().cast(UTC_US), rows.num_rows)
            rows = rows.append_column(ONLINE_AT, online_at).append_column(KNOWN_AT, known)
            content = pa.concat_tables([stored, rows], promote_options="default") if together else rows
            dataset.write(partition, content, name=definition, append=not together)
        return Published(rows.num_rows, without_key)


def measured_delay(lake: Lake, view: str) -> timedelta:
    """How long after the SQL's `created` the rows of a view came online: the median of its newest live publications.

    The median, as an outage would make the past look worse than it was; `USUAL_DELAY` before the first one.
    """
    dataset = _dataset(lake, view)
    noted = dataset.root / LIVE_SINCE
    files = [file for file in dataset.files(noted.read_text()) if file.rows] if noted.exists() else []
    tables = [pq.read_table(path) for path in dataset.paths(files[-MEASURED_FILES:])]
    timed = [table.select([KNOWN_AT, ONLINE_AT]) for table in tables if KNOWN_AT in table.column_names]
    delays = [pc.subtract(_micros(t[ONLINE_AT]), _micros(t[KNOWN_AT])).drop_null() for t in timed]
    found = [delay for column in delays for delay in column.to_pylist()]
    return max(timedelta(microseconds=median(found)), timedelta(0)) if found else USUAL_DELAY


def _dataset(lake: Lake, view: str) -> Dataset:
    return lake.dataset(f"features/{view}", "event_timestamp")


def _read(dataset: Dataset, files: Sequence[DataFile], schema: pa.Schema) -> pa.Table:
    parts = [pq.read_table(path) for path in dataset.paths(files)]
    return pa.concat_tables(parts, promote_options="default") if parts else schema.empty_table()


def _with_keys(table: pa.Table, keys: Sequence[str]) -> tuple[pa.Table, int]:
    """The rows that have all their keys, and how many have not: no request can ask for those."""
    if not any(table[key].null_count for key in keys):
        return table, 0
    missing = pc.is_null(table[keys[0]])
    for key in keys[1:]:
        missing = pc.or_(missing, pc.is_null(table[key]))
    kept = table.filter(pc.invert(missing))
    return kept, table.num_rows - kept.num_rows


def _one_each(lake: Lake, view: str, rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The rows without repetitions.

    Raises:
        ValueError: Two differ that have the same key and times: which one counts would be chance.
    """
    identity = [*keys, "event_timestamp", "created"]
    counts = rows.group_by(identity).aggregate([([], "count_all")])
    if counts.num_rows == rows.num_rows:
        return rows
    with lake.connect() as connection:
        connection.register("given", rows)
        order = ", ".join(map(quoted, identity))
        distinct = fetch(connection, f"SELECT DISTINCT * FROM given ORDER BY {order}").cast(rows.schema)
    if distinct.num_rows == counts.num_rows:
        return distinct
    twice = counts.filter(pc.greater(counts["count_all"], 1)).slice(0, 1).to_pylist()[0]
    named = ", ".join(f"{name} {twice[name]}" for name in identity)
    raise ValueError(
        f"view {view}: its SQL yields {twice['count_all']} rows for {named}, which differ; expected one for each key "
        "and time: aggregate them, or keep one with QUALIFY row_number()"
    )


def _micros(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Arrow has no minimum of timestamps with a time zone."""
    return times.cast(UTC_US).cast(pa.int64())


def _news(lake: Lake, rows: pa.Table, stored: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The rows that differ from the newest version of theirs, or have none yet."""
    if not stored.num_rows:
        return rows
    identity = ", ".join(map(quoted, [*keys, "event_timestamp"]))
    values = ", ".join(quoted(name) for name in rows.column_names if name != "created")
    newest = (
        f"SELECT {values} FROM stored QUALIFY row_number() OVER (PARTITION BY {identity} ORDER BY created DESC) = 1"
    )
    with lake.connect() as connection:
        connection.register("given", rows)
        connection.register("stored", stored)
        sql = f"SELECT {identity} FROM (SELECT {values} FROM given EXCEPT ALL ({newest}))"
        changed = fetch(connection, sql)
        connection.register("changed", changed)
        return fetch(connection, f"SELECT given.* FROM given SEMI JOIN changed USING ({identity})").cast(rows.schema)


def _without(lake: Lake, stored: pa.Table, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Stored rows that are not among `rows` any more, as far as these columns say."""
    if not stored.num_rows:
        return stored
    with lake.connect() as connection:
        connection.register("given", rows)
        connection.register("stored", stored)
        named = ", ".join(map(quoted, columns))
        return fetch(connection, f"SELECT stored.* FROM stored ANTI JOIN given USING ({named})")


def _write_online(
    lake: Lake,
    store: "FeatureStore",
    dataset: Dataset,
    view: str,
    partition: str,
    rows: pa.Table,
    withdrawn: pa.Table,
    keys: Sequence[str],
) -> None:
    """Write the newest row of each key, and put what is left in the place of rows that are withdrawn."""
    definition = store.get_feature_view(view)
    online, config = store._get_provider().online_store, store.config
    news = as_online(definition, _newest(rows, keys))
    revise = getattr(online, "online_revise", None)
    if not withdrawn.num_rows or revise is None:
        if news:
            online.online_write_batch(config, definition, news, None)
        return
    gone = as_online(definition, withdrawn)
    held = online.online_read(config, definition, [key for key, *_ in gone], [])
    affected = [at == event for (_, _, event, _), (at, _) in zip(gone, held, strict=True)]
    before: list[Any] = []
    if any(affected):
        lost = withdrawn.filter(pa.array(affected)).select(list(keys))
        before = as_online(definition, _newest_elsewhere(lake, dataset, partition, lost, keys))
    revise(config, definition, [(key, event, created) for key, _, event, created in gone], [*before, *news])


def _newest(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The newest row of each key."""
    ordered = rows.sort_by([("event_timestamp", "ascending"), ("created", "ascending")])
    places = ordered.select(list(keys)).append_column("ct_place", [pa.array(range(len(ordered)), pa.int64())])
    return ordered.take(places.group_by(list(keys)).aggregate([("ct_place", "max")])["ct_place_max"])


def _newest_elsewhere(lake: Lake, dataset: Dataset, partition: str, lost: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The newest row of each key in the other partitions."""
    paths = dataset.paths(file for file in dataset.files() if file.partition != partition and file.rows)
    if not paths:
        return lost.slice(0, 0)
    with lake.connect() as connection:
        connection.register("lost", lost)
        named = ", ".join(map(quoted, keys))
        sql = f"SELECT stored.* FROM read_parquet({paths!r}, union_by_name=true) stored SEMI JOIN lost USING ({named})"
        return fetch(connection, f"SELECT * FROM ({sql}) {last_of(keys)}")
