"""Examples: events with their features and, once known, their labels, all as of a moment."""

import math
from typing import TYPE_CHECKING

import pandas as pd

from ct_assets.core.spec import ModelSpec
from ct_assets.lake.lake import Lake, Window

if TYPE_CHECKING:
    from feast import FeatureStore

DAY = pd.Timedelta(days=1)
INSTANT = pd.Timedelta(1, "us")
"""The smallest step of time."""


def partition_of(moment: pd.Timestamp) -> str:
    """The arrival day that a moment lies in."""
    return moment.tz_convert("UTC").date().isoformat()


def read_events(
    lake: Lake, spec: ModelSpec, start: pd.Timestamp, end: pd.Timestamp, besides: pd.Series | None = None
) -> pd.DataFrame:
    """Events whose prediction is due from `start` (included) to `end` (excluded), as known at `end`.

    Args:
        lake: Where the source is.
        spec: Says what an event is.
        start: First moment of prediction.
        end: The moment after the last one.
        besides: Ids of events that are not wanted.

    Returns:
        The columns of the spec's SQL, ordered by time and id; timestamps in UTC.
    """
    window = Window(partition_of(start - spec.events.lookback_days * DAY), partition_of(end - INSTANT))
    id_column = spec.events.id_column
    unwanted = {} if besides is None or besides.empty else {"unwanted": besides.to_frame(id_column)}
    sql = f"""
SELECT * FROM ({spec.events.sql}) {f"ANTI JOIN unwanted USING ({id_column})" if unwanted else ""}
WHERE event_timestamp >= $start AND event_timestamp < $end ORDER BY event_timestamp, {id_column}
"""
    table = lake.query(sql, {spec.events.source: window}, end, {"start": start, "end": end}, unwanted)
    return table.to_pandas()


def read_labels(lake: Lake, spec: ModelSpec, as_of: pd.Timestamp, first: str | None = None) -> pd.DataFrame:
    """Labels known at `as_of`, the newest of each event, of arrival day `first` and later.

    Returns:
        Columns: the id, `label`, `known_at`.
    """
    id_column = spec.events.id_column
    sql = f"""
SELECT {id_column}, label, known_at FROM ({spec.label.sql}) WHERE label IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY {id_column} ORDER BY known_at DESC) = 1 ORDER BY {id_column}
"""
    window = Window(first, partition_of(as_of - INSTANT))
    return lake.query(sql, {spec.label.source: window}, as_of).to_pandas()


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
    found = job.to_df().sort_values("_row", ignore_index=True)
    features = [column for column in found.columns if column not in asked.columns]
    return pd.concat([events.reset_index(drop=True), found[features]], axis=1)


def label_lookback_days(spec: ModelSpec) -> int:
    """How many arrival days before a label its event can have been scored."""
    return math.ceil(spec.label.delay / DAY) + 1


def matured_before(spec: ModelSpec, as_of: pd.Timestamp) -> pd.Timestamp:
    """Events predicted before this moment have their labels, as far as they ever get one."""
    return as_of - spec.label.delay
