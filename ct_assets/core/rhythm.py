"""Moments that come again and again, the same whichever window is asked for."""

from functools import lru_cache

import pandas as pd

EPOCH = pd.Timestamp(0, tz="UTC")
"""Multiples are counted from here on: whatever is asked for, every second Monday is the same one."""


def refuse_unknown(every: str) -> None:
    """Raise ValueError for what is no pandas offset, or does not move forward."""
    try:
        offset = pd.tseries.frequencies.to_offset(every)
    except ValueError as error:
        raise ValueError(f"{every!r} is no pandas offset; expected such as 'W-MON', 'MS' or '6h'") from error
    if offset.n < 1:
        raise ValueError(f"{every!r} does not go forward; expected such as 'W-MON', 'MS' or '6h'")


def moments_of(every: str, start: pd.Timestamp, end: pd.Timestamp) -> pd.DatetimeIndex:
    """The moments of a rhythm from `start` to `end` (excluded).

    Args:
        every: A pandas offset.
        start: With a time zone.
        end: Likewise.
    """
    offset = pd.tseries.frequencies.to_offset(every)
    if isinstance(offset, pd.offsets.Tick | pd.offsets.Day):
        step = pd.Timedelta(offset.n, "D") if isinstance(offset, pd.offsets.Day) else pd.Timedelta(offset.nanos, "ns")
        first = EPOCH + -((EPOCH - start) // step) * step
        moments = pd.date_range(first, end, freq=step)
    elif offset.n == 1:
        moments = pd.date_range(start.floor("D"), end, freq=offset)
    else:
        moments = _multiples(every, end.year)
    return moments[(moments >= start) & (moments < end)]


@lru_cache(maxsize=64)
def _multiples(every: str, year: int) -> pd.DatetimeIndex:
    """Each `n`-th of the moments since the epoch, until a year is over."""
    offset = pd.tseries.frequencies.to_offset(every)
    return pd.date_range(EPOCH, pd.Timestamp(year + 1, 1, 2, tz="UTC"), freq=offset.base)[:: offset.n]
