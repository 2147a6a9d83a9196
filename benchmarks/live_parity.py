"""Claim: what the server has at a moment is what training and gate join for it, while data arrive all the time.

Flights in live mode, with a simulated clock: every few minutes the rows that have become known land as files, are taken
into the open partition, and their features are published. Random predictions are read through the server's feature
reader at their own time; afterwards the same events are joined offline. A model trained on offline features is then
asked with both.
"""

import argparse
import io
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks._claim import Claim, Figure, publish, table
from ct_assets.core.artifact import load_model
from ct_assets.core.metrics import auc
from ct_assets.core.training import predict, train
from ct_assets.defs.features.flights import FEATURE_SETS
from ct_assets.defs.models.flight_delay.spec import SPEC
from ct_assets.defs.sources.contracts import SOURCES
from ct_assets.feeds.nycflights import NycFlights
from ct_assets.lake.contract import Source
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.examples import read_events, read_labels, with_features
from ct_assets.lake.ingest import ingest
from ct_assets.lake.lake import Lake
from ct_assets.lib.features import FeatureSet, compute
from ct_assets.lib.publishing import availability
from ct_assets.lib.publishing import publish as publish_features
from ct_assets.resources.feast import feature_store
from ct_assets.serving.features import FeatureReader

GOAL_AUC = 0.005
FIRST = date(2013, 1, 1)
DAY = pd.Timedelta(days=1)


def live(source: Source) -> Source:
    """The source as a live group sends it: without an end, in parts of any size."""
    return replace(source, domain=replace(source.domain, last_day=None), min_rows=0, stable=())


class World:
    """A home in which a live group is played by the clock of the simulation."""

    def __init__(self, home: Path, days: int) -> None:
        feed = NycFlights()
        self.lake = Lake(home)
        self.store = feature_store(home)
        self.sources = {source.name: live(source) for source in SOURCES}
        self.sets = {features.source.name: features for features in FEATURE_SETS}
        self.arrived: dict[str, pa.Table] = {}
        daily = [delivery for n in range(days) for delivery in feed.day(FIRST + timedelta(days=n))]
        for delivery in [*feed.reference(), *daily]:
            rows = pq.read_table(io.BytesIO(delivery.payload))
            before = self.arrived.get(delivery.source)
            self.arrived[delivery.source] = rows if before is None else pa.concat_tables([before, rows])

    def arrive(self, after: pd.Timestamp, now: pd.Timestamp) -> None:
        """Take in and publish what became known after a time and up to now."""
        for name, rows in self.arrived.items():
            source = self.sources[name]
            known = rows["known_at"]
            news = rows.filter(pc.and_(pc.greater(known, pa.scalar(after)), pc.less_equal(known, pa.scalar(now))))
            if not news.num_rows:
                continue
            days = pc.strftime(news["known_at"], "%Y-%m-%d") if source.daily else pa.array([WHOLE] * news.num_rows)
            for partition in sorted(set(days.to_pylist())):
                self._take_in(source, partition, news.filter(pc.equal(days, partition)), now)

    def _take_in(self, source: Source, partition: str, rows: pa.Table, now: pd.Timestamp) -> None:
        folder = self.lake.home / "landing" / source.name / (partition if source.daily else "")
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, folder / f"{now:%Y%m%dT%H%M}.parquet")
        (batch,) = ingest(self.lake, source, partition)
        assert batch.status == "accepted", batch.reasons
        if source.name in self.sets:
            self._publish(replace(self.sets[source.name], source=source), partition, now)

    def _publish(self, features: FeatureSet, partition: str, now: pd.Timestamp) -> None:
        for view, found in compute(self.lake, features, partition).items():
            delay = features.publication_delay
            domain, clock = features.source.domain, now.to_pydatetime()
            available = partial(availability, self.lake, domain, view, partition, delay, clock)
            publish_features(self.lake, self.store, view, partition, found, features.views[view].digest, available)


def chosen_events(world: World, days: int, predictions: int) -> pd.DataFrame:
    """Random events, of all days but the first one; read from a lake that has all of the schedule."""
    with tempfile.TemporaryDirectory() as home:
        lake, source = Lake(Path(home)), world.sources[SPEC.events.source]
        rows = world.arrived[source.name]
        known = pc.strftime(rows["known_at"], "%Y-%m-%d")
        for day in sorted(set(known.to_pylist())):
            lake.dataset(source.name).write(day, rows.filter(pc.equal(known, day)))
        start = pd.Timestamp(FIRST, tz="UTC")
        events = read_events(lake, SPEC, start + DAY, start + days * DAY).to_pandas()
    drawn = events.sample(min(predictions, len(events)), random_state=0)
    return drawn.sort_values("event_timestamp", kind="stable", ignore_index=True)


def ticks(days: int, minutes: int) -> Iterator[tuple[pd.Timestamp, pd.Timestamp]]:
    """Pairs of times at which what has landed is taken in."""
    start = pd.Timestamp(FIRST, tz="UTC")
    # The first of them brings what was known before, such as the registry of planes.
    yield from pairwise([pd.Timestamp(0, tz="UTC"), *pd.date_range(start, start + days * DAY, freq=f"{minutes}min")])


def read_online(reader: FeatureReader, event: Any) -> dict[str, Any]:
    """What the server would read of one event at its time."""
    given = {key: [None if pd.isna(event[key]) else event[key]] for key in SPEC.entities}
    given |= {key: [event[key].to_pydatetime()] for key in SPEC.request}
    features = reader.read(given, event["event_timestamp"].to_pydatetime())
    return {name: features.columns[name][0] for name in SPEC.columns}


def measure(days: int, minutes: int, predictions: int) -> tuple[Claim, list[Any]]:
    """Play, read and compare.

    Args:
        days: Days of flights.
        minutes: Between two arrivals.
        predictions: How many events to ask about.
    """
    with tempfile.TemporaryDirectory() as home:
        world = World(Path(home), days)
        asked = chosen_events(world, days, predictions)
        reader = FeatureReader(world.store, SPEC)
        served: list[dict[str, Any]] = []
        times = list(pd.DatetimeIndex(asked["event_timestamp"]))
        for after, now in ticks(days, minutes):
            # Before what lands now is there; what was published at a moment is there at that moment.
            while len(served) < len(times) and times[len(served)] < now:
                served.append(read_online(reader, asked.loc[len(served)]))
            world.arrive(after, now)
        asked = asked.iloc[: len(served)]
        online = pd.concat([asked, pd.DataFrame(served).drop(columns=asked.columns, errors="ignore")], axis=1)
        judged = with_features(world.store, SPEC, asked)
        differing = {name: int((~same(online[name], judged[name])).sum()) for name in SPEC.columns}
        missing = pd.DataFrame(
            {name: [online[name].isna().mean(), judged[name].isna().mean()] for name in SPEC.columns}
        )
        scores = aucs(world, days, online, judged)
    equal = int((~np.any([~same(online[n], judged[n]) for n in SPEC.columns], axis=0)).sum())
    gap = abs(scores[0] - scores[1])
    figures: dict[str, Figure] = {
        "predictions": len(asked),
        "equal": equal,
        "columns_differing": sum(count > 0 for count in differing.values()),
        "missing_online": float(missing.iloc[0].mean()),
        "missing_offline": float(missing.iloc[1].mean()),
        "auc_served": scores[0],
        "auc_judged": scores[1],
    }
    rows = [(name, count, *missing[name]) for name, count in differing.items()]
    shown = table("Features served and judged", ("feature", "differ", "missing served", "missing judged"), rows)
    goal = f"all served features equal those judged, AUC within {GOAL_AUC}"
    ok = equal == len(asked) > 0 and (np.isnan(gap) or gap <= GOAL_AUC)
    return Claim("live_parity", figures, goal, bool(ok)), [shown]


def same(one: pd.Series, other: pd.Series) -> Any:
    """Where two columns have the same value, or both none."""
    if pd.api.types.is_numeric_dtype(other):
        values = [pd.to_numeric(each).to_numpy(float, na_value=np.nan) for each in (one, other)]
        return (values[0] == values[1]) | (np.isnan(values[0]) & np.isnan(values[1]))
    return ((one == other) | (one.isna() & other.isna())).to_numpy()


def aucs(world: World, days: int, online: pd.DataFrame, judged: pd.DataFrame) -> tuple[float, float]:
    """AUC of one model on the features served and on those judged; NaN when there are too few labels."""
    start = pd.Timestamp(FIRST, tz="UTC")
    cut = start + max(days * 2 // 3, 2) * DAY
    labels = read_labels(world.lake, SPEC, start + days * DAY, start)[[SPEC.events.id_column, "label"]]
    # The first day has no history behind it. In a world too short to be cut, all is learned from.
    learned = read_events(world.lake, SPEC, start + DAY, cut).to_pandas()
    examples = with_features(world.store, SPEC, learned).merge(labels, on=SPEC.events.id_column)
    trained = train(SPEC, examples, examples)
    model = load_model(trained.payload, trained.digest, SPEC.trusted_types)
    found = []
    later = online["event_timestamp"] >= cut + 2 * DAY
    for features in (online, judged) if not later.any() else (online[later], judged[later]):
        labelled = features.merge(labels, on=SPEC.events.id_column)
        found.append(auc(labelled["label"].to_numpy(float), predict(SPEC, model, labelled)))
    return found[0], found[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--minutes", type=int, default=15)
    parser.add_argument("--predictions", type=int, default=1000)
    chosen = parser.parse_args()
    publish(*measure(chosen.days, chosen.minutes, chosen.predictions))
