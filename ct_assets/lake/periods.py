"""Arrival partitions by their names: when one begins and ends, and which one a time lies in.

A name says its cadence: `2026-03-09` is a day, `2026-03-09-13:00` an hour and `2026-03-09-week` the week from that
Monday on, all in UTC. Within one cadence the order of names is the order of time, and a day may bound a window of
hours or weeks.
"""

from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

Cadence = Literal["hourly", "daily", "weekly"]

FORMATS: dict[Cadence, str] = {"hourly": "%Y-%m-%d-%H:%M", "daily": "%Y-%m-%d", "weekly": "%Y-%m-%d-week"}
_LENGTHS = {
    "hourly": pd.Timedelta(hours=1),
    "daily": pd.Timedelta(days=1),
    "weekly": pd.Timedelta(days=7),
}
_DAY = len("2026-03-09")


def cadence_of(partition: str) -> Cadence:
    """The cadence that a partition's name says."""
    return "daily" if len(partition) == _DAY else "weekly" if partition.endswith("-week") else "hourly"


def start_of(partition: str) -> pd.Timestamp:
    """When a partition begins, in UTC."""
    if cadence_of(partition) == "hourly":
        return pd.Timestamp(f"{partition[:_DAY]}T{partition[_DAY + 1 :]}", tz="UTC")
    return pd.Timestamp(partition[:_DAY], tz="UTC")


def end_of(partition: str) -> pd.Timestamp:
    """When a partition ends, in UTC: the `as_of` at which all of it is known."""
    return start_of(partition) + _LENGTHS[cadence_of(partition)]


def partition_at(cadence: Cadence, time: pd.Timestamp) -> str:
    """The partition of a cadence that a time lies in."""
    utc = time.tz_convert("UTC")
    start = utc.floor("h") if cadence == "hourly" else utc.normalize()
    if cadence == "weekly":
        start -= pd.Timedelta(days=start.dayofweek)
    return start.strftime(FORMATS[cadence])


def partitions_at(cadence: Cadence, times: pa.ChunkedArray) -> pa.ChunkedArray:
    """The partitions of a cadence that times, which have a time zone, lie in."""
    if cadence == "weekly":
        times = pc.floor_temporal(times.cast(pa.timestamp("us", "UTC")), unit="week")
    return pc.strftime(times, "%Y-%m-%d-%H:00" if cadence == "hourly" else FORMATS[cadence])


def next_partition(partition: str) -> str:
    """The partition that follows."""
    return partition_at(cadence_of(partition), end_of(partition))


def day_before(partition: str, days: int) -> str:
    """The day that lies `days` before the one on which a partition begins, to bound a window."""
    return (start_of(partition) - pd.Timedelta(days=days)).date().isoformat()


def last_name_of(partition: str) -> str:
    """The name by which a partition is compared with the first bound of a window: a week reaches to its Sunday."""
    if cadence_of(partition) != "weekly":
        return partition
    return (end_of(partition) - pd.Timedelta(days=1)).date().isoformat()


def within(partition: str, first: str | None, last: str | None) -> bool:
    """Whether a partition has a part between two bounds, both included; a bound may be of a coarser cadence."""
    if first is not None and last_name_of(partition) < first:
        return False
    return last is None or partition[: len(last)] <= last
