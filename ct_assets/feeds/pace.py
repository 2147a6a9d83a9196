"""Landing recorded days one after another, at a chosen pace."""

import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from ct_assets.feeds import feed_wave
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
    for _ in range(days):
        if day > feed.last_day:
            return
        written = sum(len(feed_wave(wave, str(home))) for wave in deliveries(feed, day, faults))
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(day.isoformat())
        yield day, written
        day += timedelta(days=1)
        time.sleep(every)


def _next_day(home: Path, feed: NycFlights) -> date:
    """The day after the newest one that was fed, by this feeder or by the demo."""
    folders = [p.name for root in ("archive", "landing") for p in (home / root / "flights").glob("????-??-??")]
    if (mark := home / LAST_FED).exists():
        folders.append(mark.read_text())
    return date.fromisoformat(max(folders)) + timedelta(days=1) if folders else feed.first_day
