"""Examples: events with their features and, once known, their labels, all as of a moment.

An event is mature from the moment on at which its label is known, if it ever is. Like the rows that arrive at midnight,
a label that becomes known at a moment belongs to what comes after it: mature at t is what matured before t.
"""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ct_assets.core.division import MATURES
from ct_assets.core.spec import ModelSpec
from ct_assets.lake.engine import quoted
from ct_assets.lake.frames import to_frame, with_whole_ids
from ct_assets.lake.known_events import Events, announced_late, known_events, rows_are_independent
from ct_assets.lake.lake import Lake, Window

if TYPE_CHECKING:
    from feast import FeatureStore

DAY = pd.Timedelta(days=1)
INSTANT = pd.Timedelta(1, "us")
"""The smallest step of time."""

KEPT_VERSION = "as known at each event's moment"
"""What kept events hold; another text makes them again."""


def scored_name(spec: ModelSpec) -> str:
    """The dataset of a model's scored events."""
    return f"{spec.name}/scored"


def day_of(time: pd.Timestamp) -> str:
    """The UTC day that a time lies in; as a limit of a `Window` it stands for all of its partitions."""
    return time.tz_convert("UTC").date().isoformat()


def arrivals_of(spec: ModelSpec, start: pd.Timestamp, end: pd.Timestamp) -> Window:
    """The arrival days of events whose prediction is due from `start` to `end` (excluded)."""
    return Window(day_of(start - spec.events.lookback_days * DAY), day_of(end - INSTANT))


def has_events(lake: Lake, spec: ModelSpec, start: pd.Timestamp, end: pd.Timestamp) -> bool:
    """Whether anything has arrived that `read_events` could read."""
    return start < end and lake.has_rows(spec.events.source, arrivals_of(spec, start, end))


def read_events(
    lake: Lake,
    spec: ModelSpec,
    start: pd.Timestamp,
    end: pd.Timestamp,
    scored: pa.Table | None = None,
    matured_by: pd.Timestamp | None = None,
) -> pa.Table:
    """Events whose prediction is due from `start` (included) to `end` (excluded), each as known at that moment.

    Args:
        lake: Where the source is.
        spec: Says what an event is.
        start: First moment of prediction.
        end: The moment after the last one.
        scored: Id and `event_timestamp` of events that are not wanted.
        matured_by: Only events that matured before this moment, where each has its own.

    Returns:
        The columns of the spec's SQL, ordered by time and id, and `MATURES` where each event matures by itself;
        timestamps in UTC. An id that was due at several moments, as it was announced again, is there with each.

    Raises:
        ValueError: The SQL yields an event twice for one moment, or one without an id.
    """
    if rows_are_independent(spec):
        found = known_events(lake, spec, _searched(lake, spec, start, end), start, end)
        return _events(lake, spec, found, start, end, scored, matured_by)
    # Each day by itself, and once: its SQL has to be run as of many moments.
    kept = kept_events(lake, spec, start, end)
    if kept is None:
        return _events_of(lake, spec, start, end)
    return _events(lake, spec, Events("SELECT * FROM known", tables={"known": kept}), start, end, scored, matured_by)


def _events_of(lake: Lake, spec: ModelSpec, start: pd.Timestamp, end: pd.Timestamp) -> pa.Table:
    return _events(lake, spec, known_events(lake, spec, _searched(lake, spec, start, end), start, end), start, end)


def _events(
    lake: Lake,
    spec: ModelSpec,
    found: Events,
    start: pd.Timestamp,
    end: pd.Timestamp,
    scored: pa.Table | None = None,
    matured_by: pd.Timestamp | None = None,
) -> pa.Table:
    key, own = quoted(spec.events.id_column), spec.label.matures_at
    unwanted = {} if scored is None or not len(scored) else {"unwanted": scored}
    moment = "" if own is None else f"CAST({quoted(own)} AS TIMESTAMPTZ) AS {MATURES}"
    added = "" if own is None else f" REPLACE ({moment})" if own == MATURES else f", {moment}"
    matured = "" if own is None or matured_by is None else f"WHERE {MATURES} < $matured_by "
    sql = f"""
SELECT * FROM (SELECT *{added} FROM ({found.sql}))
{f"ANTI JOIN unwanted USING ({key}, event_timestamp)" if unwanted else ""}
{matured}ORDER BY event_timestamp, {key}
"""
    moments = {"matured_by": matured_by} if matured else {}
    events = lake.query(sql, found.windows, end, moments, {**found.tables, **unwanted})
    events = with_whole_ids(events, spec.events.id_column, f"the events' SQL of {spec.name}")
    refuse_repeated(spec, events)
    _refuse_undue(spec, events, start, end)
    return events


def late_events(lake: Lake, spec: ModelSpec, start: pd.Timestamp, end: pd.Timestamp, known: pa.Table) -> list[object]:
    """Ids of the events of a day that were announced after their moment, so that nobody could predict them.

    Args:
        lake: Where the source is.
        spec: Says what an event is.
        start: Begin of the day.
        end: Its end.
        known: The day's events, as `read_events` gives them.
    """
    found = announced_late(lake, spec, _searched(lake, spec, start, end), start, end, known)
    ids: list[object] = found[spec.events.id_column].to_pylist()
    return ids


def refuse_repeated(spec: ModelSpec, events: pa.Table) -> None:
    """Refuse ids that do not name one event each of a moment: labels are joined by them.

    Raises:
        ValueError: An id is there twice for one moment, or missing.
    """
    name = spec.events.id_column
    ids, moments = events[name], events["event_timestamp"]
    if ids.null_count:
        problem = f"{ids.null_count} of {len(ids)} events without {name}"
        remedy = "an id for each event: leave such rows out"
    else:
        counts = pa.table({"id": ids, "at": moments}).group_by(["id", "at"]).aggregate([([], "count_all")])
        if len(counts) == len(ids):
            return
        twice = counts.filter(pc.greater(counts["count_all"], 1))
        problem = f"{name} {twice['id'][0].as_py()!r} more than once for {twice['at'][0].as_py().isoformat()}"
        remedy = (
            f"one row, or the newest to be told by `known_at` among the columns: leave the others out, group by {name}"
        )
    raise ValueError(
        f"the events' SQL of {spec.name} yields {problem}; expected {remedy}, or name another `events.id_column`"
    )


def newest_versions(frame: pd.DataFrame, id_column: str) -> pd.DataFrame:
    """One row of each id: that of the latest moment of prediction, of an event that was announced again."""
    if not frame[id_column].duplicated().any():
        return frame
    newest = frame.sort_values("event_timestamp", kind="stable").drop_duplicates(id_column, keep="last")
    return frame.loc[newest.index.sort_values()].reset_index(drop=True)


def newest_events(spec: ModelSpec, events: pa.Table) -> pa.Table:
    """The same for a table."""
    id_column = spec.events.id_column
    if pc.count_distinct(events[id_column]).as_py() == len(events):
        return events
    pairs = [id_column, "event_timestamp"]
    newest = events.group_by(id_column).aggregate([("event_timestamp", "max")])
    newest = newest.rename_columns([id_column, "event_timestamp"])
    return events.join(newest.select(pairs), keys=pairs, join_type="left semi").sort_by(
        [("event_timestamp", "ascending"), (id_column, "ascending")]
    )


def kept_events(lake: Lake, spec: ModelSpec, start: pd.Timestamp, end: pd.Timestamp) -> pa.Table | None:
    """The events of `read_events`, at the cost of the days that are new.

    The labels of a horizon are computed again every day for as long as a figure looks at them. Their events stay the
    same, so those of each day are kept beside the lake's other datasets, under the digest of what they were made of.

    Returns:
        None if nothing has arrived that they could be in.
    """
    dataset, parts = lake.dataset(f"{spec.name}/events", "event_timestamp"), []
    days = pd.date_range(start.floor("D"), end - INSTANT, freq="D")
    due = [day for day in days if spec.events.every is None or len(spec.events.due(day, day + DAY))]
    for day in due or days[-1:]:
        window, partition = arrivals_of(spec, day, day + DAY), day_of(day)
        paths = [file.path for file in lake.dataset(spec.events.source).files(window.first, window.last)]
        if not paths:
            continue
        made_of = [KEPT_VERSION, spec.events.sql, str(spec.events.every), str(spec.label.matures_at), *paths]
        digest = hashlib.sha256("\n".join(made_of).encode()).hexdigest()
        kept = dataset.partition(partition)
        if [file.digest for file in kept] != [digest]:
            kept = [dataset.write(partition, _events_of(lake, spec, day, day + DAY), digest)]
        parts += [pq.read_table(path) for path in dataset.paths(kept)]
    if not parts:
        return None
    events = pa.concat_tables(parts, promote_options="permissive")
    moments = events["event_timestamp"]
    return events.filter(pc.and_(pc.greater_equal(moments, pa.scalar(start)), pc.less(moments, pa.scalar(end))))


def _searched(lake: Lake, spec: ModelSpec, start: pd.Timestamp, end: pd.Timestamp) -> Window:
    """The arrival days in which to look for events; when none can be due, one that tells the types of their columns."""
    window = arrivals_of(spec, start, end)
    files = lake.dataset(spec.events.source).files(window.first, window.last)
    if spec.events.every is None or len(spec.events.due(start, end)) or not files:
        return window
    return Window(files[-1].partition, files[-1].partition)


def _refuse_undue(spec: ModelSpec, events: pa.Table, start: pd.Timestamp, end: pd.Timestamp) -> None:
    if spec.events.every is None:
        return
    found = pd.DatetimeIndex(events["event_timestamp"].unique().to_pandas())
    if len(undue := found.difference(spec.events.due(start, end))):
        raise ValueError(
            f"the events' SQL of {spec.name} yields one at {undue[0].isoformat()}, and predictions are due "
            f"{spec.events.every!r} only; expected events at such moments: mend `events.sql` or `events.every`"
        )


def read_labels(lake: Lake, spec: ModelSpec, as_of: pd.Timestamp, first: pd.Timestamp) -> pd.DataFrame:
    """The labels known at `as_of`, the newest of each event, of events predicted from `first` on.

    A label that an event gets for want of one (`absent`) is none of them. Those of a horizon are the ones of events
    that are mature.

    Returns:
        Columns: the id, `label`, `known_at`, from when on it was this one, and `came`, when the first label did.

    Raises:
        ValueError: The SQL of a horizon yields an event twice.
    """
    if spec.label.horizon is not None:
        labels = horizon_labels(lake, spec, first, matured_before(spec, as_of), as_of)
        return labels.assign(came=labels["known_at"])
    key = quoted(spec.events.id_column)
    news = "" if spec.label.absent is None else "FILTER (WHERE label IS DISTINCT FROM $absent)"
    asked = {} if spec.label.absent is None else {"absent": spec.label.absent}
    wanted = f"""
SELECT *, min(known_at) {news} OVER (PARTITION BY {key}) AS came FROM versions
QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY known_at DESC, label DESC) = 1 ORDER BY {key}
"""
    found = _versions(lake, spec, as_of, day_of(first), wanted, asked)
    return found if "came" in found else found.assign(came=found["known_at"])


def label_versions(lake: Lake, spec: ModelSpec, as_of: pd.Timestamp, first: str) -> pd.DataFrame:
    """Every label that arrived from the day `first` on and was known at `as_of`; more than one where it changed.

    Of several that became known at one moment, the one that counts comes first, as `read_labels` has it.

    Returns:
        Columns: the id, `label`, `known_at`.
    """
    key = quoted(spec.events.id_column)
    return _versions(lake, spec, as_of, first, f"SELECT * FROM versions ORDER BY {key}, known_at, label DESC", {})


def _versions(
    lake: Lake, spec: ModelSpec, as_of: pd.Timestamp, first: str, wanted: str, asked: Mapping[str, object]
) -> pd.DataFrame:
    """What is `wanted` of the table `versions`: each label that differs from the one before."""
    id_column = spec.events.id_column
    if not lake.has_rows(spec.label.source, Window()):
        # It has sent nothing yet, as where the first labels come later than the first events.
        return pd.DataFrame({id_column: [], "label": [], "known_at": pd.Series(dtype="datetime64[us, UTC]")})
    key = quoted(id_column)
    sql = f"""
WITH versions AS (
  SELECT {key}, label, known_at FROM ({spec.label.sql})
  WHERE label IS NOT NULL AND {key} IS NOT NULL AND known_at <= $as_of
  QUALIFY label IS DISTINCT FROM lag(label) OVER (PARTITION BY {key} ORDER BY known_at, label)
) {wanted}
"""
    window = Window(first, day_of(as_of - INSTANT))
    found = lake.query(sql, {spec.label.source: window}, as_of, {"as_of": as_of, **asked})
    return to_frame(with_whole_ids(found, id_column, f"the label SQL of {spec.name}"))


def horizon_labels(
    lake: Lake,
    spec: ModelSpec,
    start: pd.Timestamp,
    end: pd.Timestamp,
    as_of: pd.Timestamp,
    events: pa.Table | None = None,
) -> pd.DataFrame:
    """Labels of the events predicted from `start` to `end` (excluded), all of which are mature at `as_of`.

    They are computed from the rows known at `as_of`: rows that came after the horizon correct them.

    Args:
        lake: Where the source is.
        spec: Says what a label is.
        start: First moment of prediction.
        end: The moment after the last one.
        as_of: What was known when.
        events: Those events, if they are at hand.

    Returns:
        Columns: the id, `label`, and `known_at`, which is the end of the event's horizon.

    Raises:
        ValueError: The SQL yields an event twice.
    """
    id_column = spec.events.id_column
    if not has_events(lake, spec, start, end):
        return pd.DataFrame({id_column: [], "label": [], "known_at": pd.Series(dtype="datetime64[us, UTC]")})
    events = newest_events(spec, read_events(lake, spec, start, end) if events is None else events)
    ends = pa.array(events["event_timestamp"].to_pandas() + spec.label.horizon)
    events = events.append_column("horizon_ends", ends.cast(events.schema.field("event_timestamp").type))
    key = quoted(id_column)
    sql = f"""
SELECT {key}, label, horizon_ends AS known_at FROM ({spec.label.sql}) JOIN events USING ({key})
WHERE label IS NOT NULL ORDER BY {key}
"""
    window = Window(day_of(start), day_of(as_of - INSTANT))
    found = lake.query(sql, {spec.label.source: window}, as_of, tables={"events": events})
    labels = to_frame(with_whole_ids(found, id_column, f"the label SQL of {spec.name}"))
    repeated = labels.loc[labels[id_column].duplicated(), id_column]
    if len(repeated):
        raise ValueError(
            f"the label SQL of {spec.name} yields {id_column} {repeated.iloc[0]!r} more than once; "
            f"expected one row for each event: group by {id_column}"
        )
    return labels


def with_features(store: "FeatureStore", spec: ModelSpec, events: pd.DataFrame) -> pd.DataFrame:
    """Join each event with its features as they were known at its moment of prediction.

    Args:
        store: The feature store.
        spec: Names the feature service, the entities and the request values.
        events: As `read_events` gives them.

    Returns:
        The events in the same order, with the service's features added.
    """
    asked = events[["event_timestamp", *spec.entities, *spec.request]].reset_index(drop=True)
    asked["_row"] = range(len(asked))
    service = store.get_feature_service(spec.feature_service)
    job = store.get_historical_features(asked, service, filter_by_created_timestamp=True)
    found = to_frame(job.to_arrow()).sort_values("_row", ignore_index=True)
    features = [column for column in found.columns if column not in asked.columns]
    return pd.concat([events.reset_index(drop=True), found[features]], axis=1)


def matured_before(spec: ModelSpec, as_of: pd.Timestamp) -> pd.Timestamp:
    """Events predicted before this moment have their labels at `as_of`, as far as they ever get one.

    Where each event says itself when it is mature, those predicted before may be.
    """
    return as_of if spec.label.reach is None else as_of - spec.label.reach


def maturity(spec: ModelSpec, events: pd.DataFrame) -> pd.Series:
    """The moment at which each event is mature; missing for those that never are.

    Args:
        spec: The model.
        events: With `event_timestamp`, and with `MATURES` where each event has its own.
    """
    return events[MATURES] if spec.label.reach is None else events["event_timestamp"] + spec.label.reach


def maturing(spec: ModelSpec) -> str:
    """SQL of the same over scored events."""
    if spec.label.reach is None:
        return MATURES
    return f"event_timestamp + to_microseconds({spec.label.reach // timedelta(microseconds=1)})"
