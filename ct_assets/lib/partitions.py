"""Dagster's partitions of arrivals and of decisions."""

from datetime import UTC, datetime, time
from functools import cache

import dagster as dg
import pandas as pd
from dagster._utils.schedules import reverse_cron_string_iterator

from ct_assets.core.policy import RetrainPolicy
from ct_assets.lake.contract import Domain
from ct_assets.lake.periods import FORMATS, Cadence, day_before, end_of, next_partition, partition_at, start_of

__all__ = [
    "arrival_partitions",
    "day_before",
    "decides_with_arrivals",
    "decision_partitions",
    "decision_time",
    "end_of",
    "next_partition",
    "partition_at",
    "start_of",
]

CRONS: dict[Cadence, str] = {"hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * 1"}


@cache
def arrival_partitions(domain: Domain) -> dg.TimeWindowPartitionsDefinition:
    """One partition per hour, day or week of arrival, in UTC; in a live group the current one exists as well."""
    return dg.TimeWindowPartitionsDefinition(
        cron_schedule=CRONS[domain.cadence],
        start=start_of(partition_at(domain.cadence, pd.Timestamp(domain.first_day, tz="UTC"))).to_pydatetime(),
        end=_recorded_until(domain),
        fmt=FORMATS[domain.cadence],
        timezone="UTC",
        end_offset=0 if domain.last_day else 1,
    )


def decides_with_arrivals(policy: RetrainPolicy, domain: Domain) -> bool:
    """Whether it is decided at the end of each arrival partition, and not in a cycle of its own."""
    return (policy.decide_at, policy.decide_timezone) == (CRONS[domain.cadence], "UTC")


@cache
def decision_partitions(policy: RetrainPolicy, domain: Domain) -> dg.TimeWindowPartitionsDefinition:
    """One partition per decision: the time from the decision before it on; it is decided as of its end."""
    if decides_with_arrivals(policy, domain):
        return arrival_partitions(domain)
    first = datetime.combine(domain.first_day, time(), UTC)
    before = reverse_cron_string_iterator(first.timestamp(), policy.decide_at, policy.decide_timezone)
    return dg.TimeWindowPartitionsDefinition(
        cron_schedule=policy.decide_at,
        start=next(before),
        end=_recorded_until(domain),
        fmt="%Y-%m-%d-%H:%M",
        timezone=policy.decide_timezone,
    )


def decision_time(policy: RetrainPolicy, domain: Domain, partition: str) -> pd.Timestamp:
    """The time, in UTC, as of which the decision of a partition is made."""
    window = decision_partitions(policy, domain).time_window_for_partition_key(partition)
    return pd.Timestamp(window.end).tz_convert("UTC")


def _recorded_until(domain: Domain) -> datetime | None:
    """The end of the last arrival partition of a recording; None for a live group."""
    if domain.last_day is None:
        return None
    last_hour = pd.Timestamp(domain.last_day, tz="UTC") + pd.Timedelta(hours=23)
    return end_of(partition_at(domain.cadence, last_hour)).to_pydatetime()
