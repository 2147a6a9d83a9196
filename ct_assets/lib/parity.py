"""The daily parity check: are the features online those that the offline join gives training and gate?

A random sample of a day is compared feature by feature, in three ways:

- *served*: what the server logged of its predictions, with the join at the same timestamps;
- *recomputed*: what was online at the timestamps of the day's events by the records of publications, read by the
  server's reader, with the join for the events;
- *held*: what the online store has now of the events' keys, with the newest published rows.

The last two cost as much as the day's join. In a recorded group, where `created` is as recorded for both, they are
done for the partitions that begin on a Monday.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ct_assets.core.canonical import digest
from ct_assets.core.spec import ModelSpec
from ct_assets.lake.contract import Domain
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.examples import with_features
from ct_assets.lake.lake import Lake
from ct_assets.lake.served_log import ServedLog, ServedRow, plain
from ct_assets.lib.partitions import end_of, next_partition, start_of
from ct_assets.lib.published import PastReader, Published, Row, published
from ct_assets.resources.feast import service_versions, versions_digest
from ct_assets.serving.features import FeatureReader
from ct_assets.serving.schemas import Columns

if TYPE_CHECKING:
    from feast import FeatureView

MOST_UNEQUAL = 0.01
"""Share of a feature's compared rows that may differ."""
CLOCK = pd.Timedelta(minutes=1)
"""A value that came online so much later than the join has it counts as equal: a publication takes its time."""
PUBLICATION_SECONDS = 2.0
"""After so long rows that a publication has brought online are in the lake as well."""
EVENTS, RECORDED_EVENTS, SERVED = 200, 16, 500
"""Sizes of the samples: events of a live group and of a recorded one, and predictions from the log."""
MONDAY = 0


@dataclass(frozen=True)
class Compared:
    """One feature, compared in one way.

    Attributes:
        how: `served`, `recomputed` or `held`.
        feature: Its name.
        rows: How many were compared.
        unequal: How many of them differ.
        missing: How many of them have no value online, but offline.
    """

    how: str
    feature: str
    rows: int
    unequal: int
    missing: int

    @property
    def share(self) -> float:
        """Share of the rows that differ."""
        return self.unequal / self.rows if self.rows else 0.0

    @property
    def fails(self) -> bool:
        """Whether more differ than may."""
        return self.share > MOST_UNEQUAL

    def __str__(self) -> str:
        missing = f", {self.missing / self.rows:.1%} missing online" if self.missing else ""
        return f"{self.feature}: {self.share:.1%} of {self.rows} {self.how} differ{missing}"


def compare_day(
    lake: Lake, reader: FeatureReader, spec: ModelSpec, domain: Domain, partition: str, events: pd.DataFrame
) -> list[Compared]:
    """Compare a sample of an arrival partition.

    Args:
        lake: Where the rows are.
        reader: What the server reads features with.
        spec: The model.
        domain: Whose partition it is.
        partition: Its name.
        events: Those of the partition with the features that the offline join gave them.

    Raises:
        OnlineStoreUnavailable: The online store is gone or cannot be read.
    """
    day = _Day(lake, reader, spec, partition, domain.last_day is None)
    return [*day.served(), *day.published(events)]


@dataclass(frozen=True)
class _Day:
    lake: Lake
    reader: FeatureReader
    spec: ModelSpec
    partition: str
    live: bool

    def served(self) -> Iterator[Compared]:
        """Compare what was logged of the server's predictions."""
        logged = ServedLog(self.lake.home, self.spec.name).read(start_of(self.partition), end_of(self.partition))
        if not logged:
            return
        now = versions_digest(service_versions(self.reader.store, self.spec.feature_service))
        # What other definitions gave cannot be joined any more.
        rows = [row for row in logged if row.definitions == now]
        if rows:
            asked = self._sample(_asked(self.spec, rows), SERVED)
            online = {name: [row[name] for row in asked["features"]] for name in self.reader.columns}
            yield from self._joined("served", online, asked.drop(columns="features"))

    def published(self, events: pd.DataFrame) -> Iterator[Compared]:
        """Compare what was published of the features of events."""
        if not self.live and start_of(self.partition).dayofweek != MONDAY:
            return
        chosen = self._sample(events, EVENTS if self.live else RECORDED_EVENTS)
        if not len(chosen):
            return
        views = self.reader.definitions.values()
        rows = {view.name: self._published(view, chosen) for view in views}
        online = PastReader(self.reader, self.spec, rows).read(chosen)
        yield from self._compared("recomputed", online, chosen)
        for view in views:
            if self._is_newest(view):
                yield from self._held(view, chosen, rows[view.name])

    def _published(self, view: "FeatureView", chosen: pd.DataFrame) -> Published:
        low = _low(view, chosen)
        high = None if self._is_newest(view) else _micros(end_of(self.partition))
        asked = pa.Table.from_pandas(chosen[[*view.join_keys, "event_timestamp"]], preserve_index=False)
        return published(self.lake, view, asked, (None if low is None else _micros(low), high))

    def _sample(self, rows: pd.DataFrame, most: int) -> pd.DataFrame:
        """The same rows whenever it is drawn again."""
        if len(rows) <= most:
            return rows.reset_index(drop=True)
        seed = int(digest([self.spec.name, self.partition])[:16], 16)
        places = np.random.default_rng(seed).choice(len(rows), most, replace=False)
        return rows.iloc[np.sort(places)].reset_index(drop=True)

    def _joined(self, how: str, online: Columns, asked: pd.DataFrame) -> Iterator[Compared]:
        return self._compared(how, online, with_features(self.reader.store, self.spec, asked))

    def _compared(self, how: str, online: Columns, judged: pd.DataFrame) -> Iterator[Compared]:
        """Compare by feature; rows of a live group that differ are compared with the join of a little earlier too."""
        differ = {name: _differ(values, judged[name]) for name, values in online.items()}
        rows = np.flatnonzero(np.any(list(differ.values()), axis=0)) if self.live else np.array([], dtype=int)
        if len(rows):
            asked = judged.iloc[rows][["event_timestamp", *self.spec.entities, *self.spec.request]]
            before = asked.assign(event_timestamp=asked["event_timestamp"] - CLOCK)
            earlier = with_features(self.reader.store, self.spec, before)
            for name, values in online.items():
                differ[name][rows] &= _differ([values[row] for row in rows], earlier[name])
        for name, values in online.items():
            missing = sum(values[row] is None for row in np.flatnonzero(differ[name]))
            yield Compared(how, name, len(judged), int(differ[name].sum()), missing)

    def _held(self, view: "FeatureView", chosen: pd.DataFrame, rows: Published) -> Iterator[Compared]:
        """Compare what the online store has with the newest rows; twice, as a publication may be under way."""
        found = list(self._held_now(view, chosen, rows))
        if any(each.unequal for each in found):
            time.sleep(PUBLICATION_SECONDS)
            found = list(self._held_now(view, chosen, self._published(view, chosen)))
        yield from found

    def _held_now(self, view: "FeatureView", chosen: pd.DataFrame, rows: Published) -> Iterator[Compared]:
        from feast.type_map import feast_value_type_to_python_type

        def values(row: Row, name: str) -> Any:
            at, given = row
            # A row that is too old for any of the events is as good as none.
            fresh = at is not None and given is not None and name in given and (low is None or at >= low)
            return plain(feast_value_type_to_python_type(given[name])) if fresh and given else None

        low = _low(view, chosen)
        names = [name for of in self.reader.views if of.name == view.name for name in of.features]
        store = self.reader.store
        online = store._get_provider().online_store.online_read(store.config, view, [k for k, _ in rows.newest], names)
        for name in names:
            pairs = [(values(now, name), values(row, name)) for now, (_, row) in zip(online, rows.newest, strict=True)]
            unequal = [(now, row) for now, row in pairs if not _equal(now, row)]
            missing = sum(now is None for now, _ in unequal)
            yield Compared("held", f"{view.name}:{name}", len(pairs), len(unequal), missing)

    def _is_newest(self, view: "FeatureView") -> bool:
        """Whether no partition was published that the sample's rows cannot be expected to reach."""
        after = next_partition(next_partition(self.partition))
        files = self.lake.dataset(f"features/{view.name}", "event_timestamp").files(after)
        return all(file.partition == WHOLE for file in files)


def _asked(spec: ModelSpec, rows: Sequence[ServedRow]) -> pd.DataFrame:
    """What was asked of the server, as the offline store is asked."""
    frame = pd.DataFrame({name: [row.given[name] for row in rows] for name in (*spec.entities, *spec.request)})
    frame = frame.convert_dtypes(convert_string=False)
    for name, kind in spec.request.items():
        if kind == "timestamp":
            frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601").astype("datetime64[us, UTC]")
    at = pd.to_datetime([row.at for row in rows], utc=True, format="ISO8601").astype("datetime64[us, UTC]")
    return frame.assign(event_timestamp=at, features=pd.Series([row.features for row in rows], dtype=object))


def _differ(online: Sequence[Any], judged: pd.Series) -> npt.NDArray[np.bool_]:
    return np.array([not _equal(one, plain(other)) for one, other in zip(online, judged, strict=True)], dtype=bool)


def _equal(one: Any, other: Any) -> bool:
    """Exactly; whole numbers that became floats beside a missing one, as the model sees them, are compared as such."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return float(one) == float(other) if numbers and float in (type(one), type(other)) else bool(one == other)


def _low(view: "FeatureView", events: pd.DataFrame) -> pd.Timestamp | None:
    """The event time from which on a row is fresh for any of the events; None without a ttl."""
    return events["event_timestamp"].min() - view.ttl if view.ttl else None


def _micros(time: pd.Timestamp) -> int:
    return time.value // 1000
