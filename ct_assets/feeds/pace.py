"""Landing recorded days one after another, at a chosen pace."""

import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from ct_assets.feeds import feed_wave, write_synced
from ct_assets.feeds.recordings import Recording, open_recording


def land_days(
    home: Path, name: str, days: int, first: str = "", every: float = 0.0, faults: bool = False
) -> Iterator[tuple[date, int]]:
    """Land up to `days` days of a recording.

    Args:
        home: `$CT_HOME`.
        name: Of the recording.
        days: How many days.
        first: First day, YYYY-MM-DD; the day after the last one fed when empty.
        every: Seconds between two days.
        faults: Whether the upstream system makes its planted mistakes.

    Yields:
        The day and the number of files that landed, after each day.

    Raises:
        ValueError: `first` is no date, or lies outside of the recording; or there is no such recording.
    """
    feed, mark = open_recording(name), mark_of(home, name)
    day = _day(first) if first else _next_day(home, feed, mark)
    if day is None or (first and not feed.first_day <= day <= feed.last_day):
        what = "is no date" if day is None else "was not recorded"
        raise ValueError(f"first day {first} {what}; expected YYYY-MM-DD from {feed.first_day} to {feed.last_day}")
    for _ in range(days):
        if day > feed.last_day:
            return
        written = sum(len(feed_wave(wave, str(home))) for wave in feed.waves(day, faults))
        write_synced(mark.with_suffix(".part"), mark, day.isoformat().encode())
        yield day, written
        day += timedelta(days=1)
        time.sleep(every)


def mark_of(home: Path, name: str) -> Path:
    """Where the last day of a recording that was fed is noted."""
    return home / "feed" / name / "last_day"


def _next_day(home: Path, feed: Recording, mark: Path) -> date:
    """The day after the newest one that was fed, by this feeder or by the demo."""
    names = [p.name for root in ("archive", "landing") for p in (home / root / feed.source).glob("????-??-??")]
    if mark.exists():
        names.append(mark.read_text())
    fed = [day for name in names if (day := _day(name)) and feed.first_day <= day <= feed.last_day]
    return max(fed) + timedelta(days=1) if fed else feed.first_day


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(name)
    except ValueError:
        return None
