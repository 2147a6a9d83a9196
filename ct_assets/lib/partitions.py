"""Arrival days: how partitions, moments and folder names hang together."""

from datetime import timedelta
from functools import cache

import dagster as dg
import pandas as pd

from ct_assets.lake.contract import Domain


@cache
def arrival_days(domain: Domain) -> dg.DailyPartitionsDefinition:
    """One partition per UTC day of arrival."""
    end = domain.last_day + timedelta(days=1) if domain.last_day else None
    return dg.DailyPartitionsDefinition(domain.first_day.isoformat(), end.isoformat() if end else None)


def end_of(partition: str) -> pd.Timestamp:
    """The `as_of` of an arrival day: the midnight, UTC, that ends it."""
    return pd.Timestamp(partition, tz="UTC") + pd.Timedelta(days=1)


def day_before(partition: str, days: int) -> str:
    """The partition that lies `days` earlier."""
    return (pd.Timestamp(partition) - pd.Timedelta(days=days)).date().isoformat()
