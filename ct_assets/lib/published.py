"""What the online store had of some events' keys at each event's timestamp, by the records of publications.

Nothing here goes through the offline store's join: for each event the newest row that was online by then is searched by
brute force, and what was found is read through the server's own feature reader.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from ct_assets.core.spec import ModelSpec
from ct_assets.lake.engine import fetch, quoted
from ct_assets.lake.lake import Lake
from ct_assets.lake.served_log import plain
from ct_assets.lib.online_rows import as_online
from ct_assets.lib.publishing import ONLINE_AT
from ct_assets.serving.features import FeatureReader

if TYPE_CHECKING:
    from feast import FeatureView

    from ct_assets.stores.parquet_source import Span

Row = tuple[datetime | None, Mapping[str, Any] | None]
"""Event time and values by feature, as an online store answers."""


@dataclass(frozen=True)
class Published:
    """What was online of one view.

    Attributes:
        at: By key and timestamp of an event, the newest row that was online then.
        newest: Each key, as an online store takes it, with the newest row of all.
    """

    at: Mapping[tuple[bytes, datetime], Row] = field(default_factory=dict)
    newest: Sequence[tuple[Any, Row]] = ()


def published(lake: Lake, view: "FeatureView", asked: pa.Table, span: "Span") -> Published:
    """Search the publications of a view for what was online of the events' keys.

    Args:
        lake: Where the rows are.
        view: The view.
        asked: The events, with its join keys and `event_timestamp`.
        span: Event times that count, in microseconds since 1970; None for all. Files outside of it are not opened.
    """
    from ct_assets.stores.as_of import key_bytes
    from ct_assets.stores.parquet_source import open_scan

    names = ", ".join(map(quoted, view.join_keys))
    wanted = ", ".join(map(quoted, [*view.join_keys, "event_timestamp", "created", *(f.name for f in view.features)]))
    with lake.connect() as connection:
        scan = open_scan(connection, view.batch_source, lake.home / "lake", pa.schema([]), span)
        if not scan.types:
            return Published()
        online_at = f"coalesce({ONLINE_AT}, created)" if ONLINE_AT in scan.types else "created"
        since = " AND ".join(["true", *scan.within("event_timestamp", span[0], None)])
        connection.register("events", asked.select([*view.join_keys, "event_timestamp"]))
        # Without a time, the newest row of each key is asked for; keys that are null join nothing.
        sql = f"""
SELECT asked_at, {wanted} FROM (
  SELECT DISTINCT {names}, event_timestamp AS asked_at FROM events
  UNION ALL SELECT DISTINCT {names}, NULL FROM events
) JOIN (
  SELECT {wanted}, {online_at} AS online_at, file_index, file_row_number FROM {scan.sql} WHERE {since}
) USING ({names})
WHERE asked_at IS NULL OR online_at <= asked_at
QUALIFY row_number() OVER (
  PARTITION BY {names}, asked_at
  ORDER BY event_timestamp DESC, created DESC, file_index DESC, file_row_number DESC
) = 1
"""
        found = fetch(connection, sql)
    at, newest = {}, []
    for time, (key, values, event, _) in zip(found["asked_at"].to_pylist(), as_online(view, found), strict=True):
        if time is None:
            newest.append((key, (event, values)))
        else:
            at[key_bytes(key), time] = (event, values)
    return Published(at, newest)


class PastReader:
    """The server's feature reader, on what was online at the timestamps of some events.

    Args:
        reader: The same for the present.
        spec: The model.
        rows: What was online, by view.
    """

    def __init__(self, reader: FeatureReader, spec: ModelSpec, rows: Mapping[str, Published]) -> None:
        from ct_assets.stores.as_of import AsOfOnlineStore

        self._online = AsOfOnlineStore({view: found.at for view, found in rows.items()})
        self._reader, self._spec = copy.copy(reader), spec
        store, provider = copy.copy(reader.store), copy.copy(reader.store._get_provider())
        provider._online_store = self._online  # type: ignore[attr-defined]
        store._provider = provider
        self._reader.store = store

    def read(self, events: pd.DataFrame) -> dict[str, list[Any]]:
        """The model's columns from features, as `plain` has them, for each event at its timestamp."""
        spec = self._spec
        columns: dict[str, list[Any]] = {name: [None] * len(events) for name in self._reader.columns}
        for time, places in events.groupby("event_timestamp", sort=False).indices.items():
            asked, at = events.iloc[places], pd.Timestamp(str(time)).to_pydatetime()
            given = {name: [_python(value) for value in asked[name]] for name in (*spec.entities, *spec.request)}
            self._online.at = at
            found = self._reader.read(given, at).columns
            for name, values in columns.items():
                for place, value in zip(places, found[name], strict=True):
                    values[place] = plain(value)
        return columns


def _python(value: Any) -> Any:
    """As a request has it."""
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return value.item() if hasattr(value, "item") else value
