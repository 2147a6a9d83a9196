"""Names of arrival partitions against the calendar."""

import pandas as pd
import pytest

from ct_assets.lake.periods import Cadence, day_before, end_of, next_partition, partition_at, start_of, within


@pytest.mark.parametrize(
    ("cadence", "time", "name", "start", "end", "following"),
    [
        ("hourly", "2026-03-09T13:59:59Z", "2026-03-09-13:00", "2026-03-09T13", "2026-03-09T14", "2026-03-09-14:00"),
        ("hourly", "2026-12-31T23:00:00Z", "2026-12-31-23:00", "2026-12-31T23", "2027-01-01T00", "2027-01-01-00:00"),
        ("daily", "2026-03-09T00:30:00+01:00", "2026-03-08", "2026-03-08T00", "2026-03-09T00", "2026-03-09"),
        ("weekly", "2026-03-15T23:59:00Z", "2026-03-09-week", "2026-03-09T00", "2026-03-16T00", "2026-03-16-week"),
        ("weekly", "2027-01-01T00:00:00Z", "2026-12-28-week", "2026-12-28T00", "2027-01-04T00", "2027-01-04-week"),
    ],
)
def test_a_name_says_when_a_partition_begins_and_ends(
    cadence: Cadence, time: str, name: str, start: str, end: str, following: str
) -> None:
    assert partition_at(cadence, pd.Timestamp(time)) == name
    assert start_of(name) == pd.Timestamp(f"{start}:00Z")
    assert end_of(name) == pd.Timestamp(f"{end}:00Z")
    assert next_partition(name) == following


@pytest.mark.parametrize("cadence", ["hourly", "daily", "weekly"])
def test_names_are_in_the_order_of_time_and_lie_between_the_days_of_a_window(cadence: Cadence) -> None:
    times = pd.date_range("2026-02-20", "2026-03-20", freq="1h", tz="UTC")
    names = list(dict.fromkeys(partition_at(cadence, time) for time in times))
    assert names == sorted(names)
    first, last = pd.Timestamp("2026-03-04T05:00Z"), pd.Timestamp("2026-03-11T22:00Z")
    found = [name for name in names if within(name, first.date().isoformat(), last.date().isoformat())]
    begin, end = first.normalize(), last.normalize() + pd.Timedelta(days=1)
    assert found == [name for name in names if start_of(name) < end and end_of(name) > begin]


def test_a_window_is_bounded_by_whole_days() -> None:
    assert day_before("2026-03-09-13:00", 2) == "2026-03-07"
    assert day_before("2026-03-09-week", 7) == "2026-03-02"
    assert within("2026-03-09-13:00", None, "2026-03-09-13:00")
    assert not within("2026-03-09-14:00", None, "2026-03-09-13:00")
