"""The daily parity check: what was online at a prediction is what the offline join gives for it."""

import sqlite3
from datetime import UTC, date, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_app import ask
from world import World, instance, spec_named, wait_until

from ct_assets.lake.contract import Domain
from ct_assets.lake.examples import with_features
from ct_assets.lake.served_log import ServedLog, ServedRow, plain
from ct_assets.lib.parity import _equal, compare_day
from ct_assets.lib.parity_check import parity_result
from ct_assets.lib.publishing import ONLINE_AT, Availability, publish
from ct_assets.lib.scoring import _parity
from ct_assets.resources.lake import LakeResource
from ct_assets.serving.features import FeatureReader

DAY = "2026-03-02"
LIVE, RECORDED = Domain("live", date(2020, 1, 1)), Domain("recorded", date(2020, 1, 1), date(2030, 1, 1))
UTC_US = pa.timestamp("us", "UTC")


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"{DAY}T{clock}:00+00:00")


class Town:
    """A home with weather of three airports and a few planes, published as they arrive."""

    def __init__(self, home: Path) -> None:
        self.world = World(home)
        self.spec = spec_named("town")
        self.lake = LakeResource(home=str(home)).lake()
        self.store = self.world.store

    def publish(self, view, keys, event, now=None, partition=DAY, live=True, **features):
        fields = self.store.get_feature_view(view).features
        rows = len(next(iter(keys.values())))
        columns = {name: pa.array(values, pa.string()) for name, values in keys.items()}
        columns |= {name: pa.array([event] * rows, UTC_US) for name in ("event_timestamp", "created")}
        for field in fields:
            kind = pa.int64() if "INT" in field.dtype.to_value_type().name else pa.float64()
            columns[field.name] = pa.array(features.get(field.name, [None] * rows), kind)
        available = Availability(live=live, now=now)
        return publish(self.lake, self.store, view, partition, pa.table(columns), "one", lambda: available)

    def begin(self, now, live=True, partition=DAY):
        event = now - timedelta(minutes=5)
        self.publish("plane", {"tailnum": ["N1", "N2"]}, event, now, partition, live, year_built=[1990.0, 2001.0])
        self.publish("network_delays", {"network": ["all"]}, event, now, partition, live, network_mean_3h=[4.5])
        self.weather(event, now, [50.0, 60.0, None], live, partition)

    def weather(self, event, now, temperature, live=True, partition=DAY):
        origins = {"origin": ["EWR", "JFK", "LGA"]}
        self.publish("weather", origins, event, now, partition, live, temperature=temperature, humidity=[40.0] * 3)

    def events(self, clocks):
        times = [pd.Timestamp(at(clock)) for clock in clocks]
        rows = len(times)
        frame = pd.DataFrame(
            {
                "event_timestamp": pd.Series(times).astype("datetime64[us, UTC]"),
                "carrier": ["UA"] * rows,
                "network": ["all"] * rows,
                "origin": (["EWR", "JFK", "LGA", None] * rows)[:rows],
                "tailnum": (["N1", "N2", "N3"] * rows)[:rows],
                "sched_dep": pd.Series(times).astype("datetime64[us, UTC]") + pd.Timedelta(hours=2),
                "fare": [100.0] * rows,
            }
        )
        return with_features(self.store, self.spec, frame)

    def compare(self, clocks=(), domain=LIVE, partition=DAY):
        events = self.events(clocks) if clocks else pd.DataFrame()
        return compare_day(self.lake, FeatureReader(self.store, self.spec), self.spec, domain, partition, events)


@pytest.fixture
def town(tmp_path):
    return Town(tmp_path)


def unequal(compared):
    return {(each.how, each.feature): (each.rows, each.unequal, each.missing) for each in compared if each.unequal}


def every_minute(first, last):
    times = pd.date_range(at(first), at(last), freq="min")
    return [f"{time:%H:%M}" for time in times]


@pytest.mark.parametrize("domain", [LIVE, RECORDED])
def test_a_clean_day_has_no_difference(town, domain):
    live = domain.last_day is None
    town.begin(at("08:00"), live)
    for hour in range(9, 12):
        town.weather(at(f"{hour:02}:50"), at(f"{hour + 1:02}:07"), [hour + 0.1, None, hour / 3], live)
    compared = town.compare(every_minute("07:30", "13:00"), domain)
    assert {each.how for each in compared} == {"recomputed", "held"}
    assert [each for each in compared if each.unequal] == []
    assert parity_result(town.spec, compared).passed
    (rows,) = {each.rows for each in compared if each.how == "recomputed"}
    assert rows == (200 if live else 16)
    # Something was compared: temperatures are there for most of the day.
    assert town.events(["12:30"])["temperature"].tolist() == [11.1]


def test_a_feature_that_came_online_late_is_named_with_its_share(town):
    town.begin(at("08:00"))
    town.weather(at("08:50"), at("10:30"), [70.0, 71.0, 72.0])
    dataset = town.lake.dataset("features/weather", "event_timestamp")
    # The lake says 09:07; the online store had it at 10:30.
    files = dataset.partition(DAY)
    rows = pa.concat_tables([pq.read_table(path) for path in dataset.paths(files)])
    created = [at("09:07") if time == at("10:30") else time for time in rows["created"].to_pylist()]
    rows = rows.set_column(rows.column_names.index("created"), "created", pa.array(created, UTC_US))
    dataset.write(DAY, rows, name="one")
    compared = town.compare(["09:00", "09:30", "10:00", "10:29", "10:31", "11:00"])
    # At 09:30 in New York 60 instead of 71, at 10:00 at LGA nothing instead of 72; the fourth event has no origin.
    assert unequal(compared) == {("recomputed", "celsius"): (6, 2, 1)}
    result = parity_result(town.spec, compared)
    assert not result.passed
    assert result.description == "celsius: 33.3% of 6 recomputed differ, 16.7% missing online"
    assert result.metadata["features_failing"].value == 1


def test_a_publication_may_take_a_minute(town):
    town.begin(at("08:00"))
    dataset = town.lake.dataset("features/weather", "event_timestamp")
    (file,) = dataset.partition(DAY)
    rows = pq.read_table(dataset.paths([file])[0])
    late = pa.array([at("08:01")] * rows.num_rows, UTC_US)
    dataset.write(DAY, rows.set_column(rows.column_names.index(ONLINE_AT), ONLINE_AT, late), name="one")
    assert unequal(town.compare(["08:00"])) == {}
    later = pa.array([at("08:02")] * rows.num_rows, UTC_US)
    dataset.write(DAY, rows.set_column(rows.column_names.index(ONLINE_AT), ONLINE_AT, later), name="one")
    assert unequal(town.compare(["08:01"])) == {
        ("recomputed", "celsius"): (1, 1, 1),
        ("recomputed", "humidity"): (1, 1, 1),
    }


@pytest.mark.parametrize("domain", [LIVE, RECORDED])
def test_another_value_online_and_a_lost_key_are_found(town, domain, monkeypatch):
    monkeypatch.setattr("ct_assets.lib.parity.PUBLICATION_SECONDS", 0.0)
    town.begin(at("08:00"), domain.last_day is None)
    clocks = every_minute("08:00", "08:15")
    assert unequal(town.compare(clocks, domain)) == {}
    town.world.write("weather", {"origin": ["JFK"]}, at("07:55"), temperature=[61.0], humidity=[40.0])
    town.world.write("weather", {"origin": ["JFK"]}, at("08:00"), temperature=[61.0], humidity=[40.0])
    with sqlite3.connect(town.world.home / "feast" / "online.db") as online:
        online.execute("DELETE FROM entity_rows WHERE view = 'ct_assets/plane'")
    compared = town.compare(clocks, domain)
    # One of three airports; of the planes of the events, N3 is nowhere.
    lost = {("held", f"plane:{name}"): (2, 2, 2) for name in ("year_built",)}
    assert unequal(compared) == {("held", "weather:temperature"): (3, 1, 0), **lost}
    assert (
        "plane:year_built: 100.0% of 2 held differ, 100.0% missing online"
        in parity_result(town.spec, compared).description
    )


def test_a_store_that_is_gone_fails_the_check_and_not_the_scoring(town):
    town.begin(at("08:00"))
    (town.world.home / "feast" / "online.db").unlink()
    result = _parity(town.lake, FeatureReader(town.store, town.spec), town.spec, LIVE, DAY, town.events(["08:30"]))
    assert not result.passed
    assert "online.db is not there" in result.description


@pytest.fixture
def served(tmp_path):
    """A town with a server that logs one instance of each request."""
    town = Town(tmp_path / "home")
    town.begin(datetime.now(UTC), partition=today())
    town.world.promote(town.spec, 5)
    with town.world.server(town.spec, logged_every_seconds=0.0) as client:
        yield town, client


def today():
    return datetime.now(UTC).date().isoformat()


def predictions(town, client, times):
    for _ in range(times):
        assert ask(client, town.spec, [instance(sched_dep=f"{today()}T15:30:00Z")], None).status_code == 200


def logged(town, rows):
    log, now = ServedLog(town.world.home, town.spec.name), datetime.now(UTC)
    read = partial(log.read, now - timedelta(days=1), now + timedelta(days=1))
    wait_until(lambda: len(read()) >= rows)
    return read()


def test_what_the_server_gave_is_compared_with_the_join(served, monkeypatch):
    monkeypatch.setattr("ct_assets.lib.parity.CLOCK", pd.Timedelta(0))
    town, client = served
    predictions(town, client, 3)
    rows = logged(town, 3)
    assert {row.features["celsius"] for row in rows} == {(60.0 - 32) * 5 / 9}
    compared = town.compare(partition=rows[0].at[:10])
    assert {(each.how, each.rows, each.unequal) for each in compared} == {("served", 3, 0)}
    # The lake is not told of what the store is given now.
    town.world.write("weather", {"origin": ["JFK"]}, datetime.now(UTC), temperature=[61.0], humidity=[40.0])
    predictions(town, client, 1)
    rows = logged(town, 4)
    assert unequal(town.compare(partition=rows[-1].at[:10])) == {("served", "celsius"): (4, 1, 0)}


def test_another_time_than_the_present_is_not_logged(served):
    town, client = served
    before = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert ask(client, town.spec, [instance(sched_dep=f"{today()}T15:30:00Z")], before).status_code == 200
    predictions(town, client, 1)
    assert len(logged(town, 1)) == 1


def test_a_log_that_cannot_be_written_fails_no_request(tmp_path):
    town = Town(tmp_path / "home")
    town.begin(datetime.now(UTC), partition=today())
    town.world.promote(town.spec, 5)
    (town.world.home / "served").write_text("no folder")
    with town.world.server(town.spec, logged_every_seconds=0.0) as client:
        predictions(town, client, 5)


def test_the_log_is_bounded(tmp_path, monkeypatch):
    log = ServedLog(tmp_path, "m")
    for day in (1, 2, 10, 11):
        log.append([ServedRow(f"2026-03-{day:02}T10:00:00.000000+00:00", "1", "d", {"k": "a"}, {"x": 0.1 + 0.2})])
    assert sorted(path.stem for path in log.folder.iterdir()) == ["2026-03-10", "2026-03-11"]
    with (log.folder / "2026-03-11.jsonl").open("ab") as file:
        file.write(b'{"at": "2026-03-11T11:00')
    (row,) = log.read(datetime(2026, 3, 11, tzinfo=UTC), datetime(2026, 3, 12, tzinfo=UTC))
    assert row.features == {"x": 0.1 + 0.2}
    monkeypatch.setattr("ct_assets.lake.served_log.MOST_BYTES", 100)
    size = (log.folder / "2026-03-11.jsonl").stat().st_size
    log.append([row])
    assert (log.folder / "2026-03-11.jsonl").stat().st_size == size


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (0.1 + 0.2, 0.3, False),
        (2**53 + 1, float(2**53), True),
        (2**53 + 1, 2**53, False),
        (None, float("nan"), True),
        (None, 0.0, False),
        ("1", 1, False),
        ([1, 2.0], np.array([1.0, 2.0]), True),
        (datetime(2026, 3, 1, 1, tzinfo=timezone(timedelta(hours=1))), pd.Timestamp("2026-03-01", tz="UTC"), True),
        (b"a", b"b", False),
        (True, True, True),
    ],
)
def test_values_are_compared_exactly(one, other, equal):
    assert _equal(plain(one), plain(other)) is equal
