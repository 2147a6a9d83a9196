"""Restores an online store that was lost or emptied: the lake has every row that was published.

A publication writes what is new. On top of a store that someone deleted, emptied or replaced, that would leave most
keys unknown, so each publication first looks whether the store is the one that was written before.
"""

import fcntl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.engine import fetch
from ct_assets.lake.lake import Lake
from ct_assets.lake.paths import write_atomically
from ct_assets.lib.online_rows import as_online, last_of
from ct_assets.lib.partitions import end_of
from ct_assets.stores.unavailable import OnlineStoreUnavailable

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

IDENTITY = "feast/online_store"
"""File under the home with the identity of the online store that publications have written to."""
BATCH = 20_000
"""Rows that are in memory at once, as the online store takes them."""


def restore_if_lost(lake: Lake, store: "FeatureStore", view: str) -> bool:
    """Write the current rows of all views to the online store, unless it is the one that was written before.

    Readers see an empty store or a whole one: all rows come in one transaction. A row is current while it is not older
    than its view's ttl, counted from the newest one. Only our own store is looked after; others have backups.

    Args:
        lake: Where all rows are.
        store: The feature store.
        view: The view that is about to be published.

    Returns:
        Whether it was lost.
    """
    online: Any = store._get_provider().online_store
    if not hasattr(online, "online_restore") or not _is_lost(lake, store, online, view):
        return False
    noted = lake.home / IDENTITY
    noted.parent.mkdir(parents=True, exist_ok=True)
    with noted.with_name(".online_store.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_lost(lake, store, online, view):
            online.online_restore(store.config, _parts(lake, store))
            write_atomically(noted, str(online.identity(store.config)).encode())
    return True


def _is_lost(lake: Lake, store: "FeatureStore", online: Any, view: str) -> bool:
    noted = lake.home / IDENTITY
    try:
        if not noted.exists() or noted.read_text() != online.identity(store.config):
            return True
        return bool(_dataset(lake, view).rows()) and not online.has_rows(store.config, store.get_feature_view(view))
    except OnlineStoreUnavailable:
        return True


def _dataset(lake: Lake, view: str) -> Any:
    return lake.dataset(f"features/{view}", "event_timestamp")


def _parts(lake: Lake, store: "FeatureStore") -> Iterator[tuple["FeatureView", list[Any]]]:
    for view in store.list_feature_views():
        yield from ((view, part) for part in _current(lake, view))


def _current(lake: Lake, view: "FeatureView") -> Iterator[list[Any]]:
    """The newest row of each key, in parts."""
    dataset = _dataset(lake, view.name)
    files = [file for file in dataset.files() if file.rows]
    if not files:
        return
    ends = [datetime.now(UTC) if file.partition == WHOLE else end_of(file.partition) for file in files]
    newest = min(max(pd.Timestamp(file.max_time) for file in files), max(map(pd.Timestamp, ends)))
    oldest = newest - view.ttl if view.ttl else None
    fresh = [file for file in files if oldest is None or pd.Timestamp(file.max_time) >= oldest]
    scan = f"read_parquet({dataset.paths(fresh)!r}, union_by_name=true)"
    since = "" if oldest is None else "WHERE event_timestamp >= $oldest "
    with lake.connect() as connection:
        sql = f"SELECT * FROM {scan} {since}{last_of(view.join_keys)}"
        rows = fetch(connection, sql, {} if oldest is None else {"oldest": oldest.to_pydatetime()})
    for start in range(0, rows.num_rows, BATCH):
        yield as_online(view, rows.slice(start, BATCH))
