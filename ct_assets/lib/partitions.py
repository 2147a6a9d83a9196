"""Arrival days: how partitions, moments and folder names hang together."""

import os

import dagster as dg
import pandas as pd

FIRST_ARRIVAL_DAY = "2013-01-01"
LAST_ARRIVAL_DAY = "2014-01-01"

ARRIVAL_DAYS = dg.DailyPartitionsDefinition(
    start_date=os.environ.get("CT_FIRST_ARRIVAL_DAY", FIRST_ARRIVAL_DAY),
    end_date=(pd.Timestamp(os.environ.get("CT_LAST_ARRIVAL_DAY", LAST_ARRIVAL_DAY)) + pd.Timedelta(days=1))
    .date()
    .isoformat(),
)
"""One partition per UTC day of arrival. A recorded feed ends; a live deployment moves the last day on."""


def end_of(partition: str) -> pd.Timestamp:
    """The `as_of` of an arrival day: the midnight, UTC, that ends it."""
    return pd.Timestamp(partition, tz="UTC") + pd.Timedelta(days=1)


def day_before(partition: str, days: int) -> str:
    """The partition that lies `days` earlier."""
    return (pd.Timestamp(partition) - pd.Timedelta(days=days)).date().isoformat()
