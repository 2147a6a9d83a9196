"""Real days of flights, some of them harmed or shifted."""

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.feeds import Delivery, parquet_bytes
from ct_assets.feeds.nycflights import NycFlights
from ct_assets.feeds.nycflights_faults import deliveries

SHIFTED = {
    "temp": 100.0,
    "dewp": 80.0,
    "humid": 3.0,
    "wind_dir": 90.0,
    "wind_speed": 120.0,
    "precip": 9.0,
    "pressure": 900.0,
    "visib": 1.0,
}
"""A weather that no January has seen, and that the contract still allows."""


def files_of(feed: NycFlights, number: int) -> list[Delivery]:
    """The undamaged files of the day `number` days after the first."""
    return deliveries(feed, feed.first_day + timedelta(days=number), faults=False)[0]


def day_of(number: int) -> str:
    """The partition of that day."""
    return (date(2013, 1, 1) + timedelta(days=number)).isoformat()


def changed(files: list[Delivery], source: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> list[Delivery]:
    """The same files, one of them with other content."""

    def content(each: Delivery) -> bytes:
        table = pq.read_table(io.BytesIO(each.payload))
        frame = change(table.to_pandas())
        schema = pa.schema([field for field in table.schema if field.name in frame])
        return parquet_bytes(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))

    return [replace(f, payload=content(f)) if f.source == source else f for f in files]


def with_another_climate(files: list[Delivery]) -> list[Delivery]:
    """The same files, with weather far away from that of the days before."""
    return changed(files, "weather", lambda frame: frame.assign(**{c: v + frame[c] * 0 for c, v in SHIFTED.items()}))


def without_column(files: list[Delivery], source: str, column: str) -> list[Delivery]:
    """The same files, one of them with a column missing."""
    return changed(files, source, lambda frame: frame.drop(columns=column))


def resent(files: list[Delivery], source: str) -> list[Delivery]:
    """The undamaged file of one source under another name."""
    return [replace(f, name=f"{source}-resent.parquet") for f in files if f.source == source]
