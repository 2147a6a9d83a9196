"""Landing recorded days one after another, at a chosen pace."""

import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from ct_assets.feeds import feed_wave, write_synced
from ct_assets.feeds.faults import deliveries
from ct_assets.feeds.nycflights import NycFlights

LAST_FED = "feed/last_day"


def land_days(
    home: Path, days: int, first: str = "", every: float = 0.0, faults: bool = False
) -> Iterator[tuple[date, int]]:
    """Land up to `days` days of flights.

    Args:
        home: `$CT_HOME`.
        days: How many days.
        first: First day, YYYY-MM-DD; the day after the last one fed when empty.
        every: Seconds between two days.
        faults: Whether the upstream system makes its planted mistakes.

    Yields:
        The day and the number of files that landed, after each day.

    Raises:
        ValueError: `first` is no date, or lies outside of the recording.
    """
    feed, mark = NycFlights(), home / LAST_FED
    day = date.fromisoformat(first) if first else _next_day(home, feed)
    if first and not feed.first_day <= day <= feed.last_day:
        raise ValueError(f"first day {first} was not recorded; expected {feed.first_day} to {feed.last_day}")
    for _ in range(days):
        if day > feed.last_day:
            return
        written = sum(len(feed_wave(wave, str(home))) for wave in deliveries(feed, day, faults))
        write_synced(mark.with_suffix(".part"), mark, day.isoformat().encode())
        yield day, written
        day += timedelta(days=1)
        time.sleep(every)


def _next_day(home: Path, feed: NycFlights) -> date:
    """The day after the newest one that was fed, by this feeder or by the demo."""
    names = [p.name for root in ("archive", "landing") for p in (home / root / "flights").glob("????-??-??")]
    if (mark := home / LAST_FED).exists():
        names.append(mark.read_text())
    fed = [day for name in names if (day := _day(name)) and feed.first_day <= day <= feed.last_day]
    return max(fed) + timedelta(days=1) if fed else feed.first_day


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(name)
    except ValueError:
        return None
