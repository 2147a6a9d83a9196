"""When an arrival partition is closed: nothing more of it is waited for, and what depends on the whole of it may begin.

A partition that is closed stays closed. What arrives for it later is late: it is taken in, and what depends on it is
made again.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

import dagster as dg
import pandas as pd

from ct_assets.lake.contract import Domain, Source
from ct_assets.lake.ingest import open_rejections
from ct_assets.lake.lake import Lake, Window
from ct_assets.lib.partitions import arrival_partitions, end_of, next_partition, start_of

NEWEST = "closed_through"
"""In the report of a closed partition: the newest one, where another one than itself is."""


def calendar_key(domain: Domain) -> dg.AssetKey:
    """Key of the external asset whose partitions are the closed ones of a group."""
    return dg.AssetKey(["calendar", domain.name])


def calendar_asset(domain: Domain, owners: Sequence[str]) -> dg.AssetSpec:
    """What stands for the closing of a group's arrival partitions."""
    return dg.AssetSpec(
        calendar_key(domain),
        description="Arrival partitions that are closed: over, and nothing more is waited for. Reported by the arrival "
        "sensor, with the sources that had sent nothing.",
        group_name=domain.name,
        owners=list(owners),
        kinds={"file"},
        partitions_def=arrival_partitions(domain),
    )


def closed_through(instance: dg.DagsterInstance, domain: Domain) -> str | None:
    """The newest closed partition of a group: all before it are closed or left out. None before the first."""
    records = instance.fetch_materializations(calendar_key(domain), limit=1).records
    if not records or records[0].asset_materialization is None:
        return None
    newest = records[0].asset_materialization.metadata.get(NEWEST)
    return str(newest.value) if newest else records[0].partition_key


@dataclass(frozen=True)
class Closing:
    """Why a partition is closed.

    Attributes:
        partition: Its name.
        because: What it waited for.
        silent: Sources that have sent nothing for it, each with the newest partition that it has sent something for.
        stuck: Files of it in landing that nothing takes in.
    """

    partition: str
    because: str
    silent: tuple[str, ...]
    stuck: tuple[str, ...] = ()


def closings(
    lake: Lake,
    sources: Sequence[Source],
    waiting: Collection[str],
    after: str | None,
    now: pd.Timestamp,
    stuck: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Iterator[Closing]:
    """The partitions of a group that can be closed now, in order.

    A recorded group closes a partition when all of its sources have reported, or one has sent something later. In a
    live one more files of a partition may come at any time: it closes when all have sent something later, or when
    `Domain.closes_after` has passed since its end.

    A group that has sent nothing for `Domain.quiet_days` has the partitions up to the next arrival, or up to now,
    left out: nothing could be decided there that is not decided at the next one, and a table that ended years ago
    would have each day since decided one by one. What arrives later for a partition that was left out closes it.

    Args:
        lake: Where accepted rows are.
        sources: Those of the group.
        waiting: Partitions that have files in landing: those are taken in first.
        after: The newest closed partition.
        now: The time by the wall clock.
        stuck: Files of a partition in landing that nothing has taken in for as long as `Domain.closes_after`: what
            cannot be read holds nothing back for ever.
    """
    expected = [source for source in sources if source.daily]
    if not expected:
        return
    domain = expected[0].domain
    partition = _following(lake, domain, expected, waiting, after, now) if after else _first(lake, expected, waiting)
    while partition and arrival_partitions(domain).has_partition_key(partition) and end_of(partition) <= now:
        files = tuple(stuck.get(partition, ()))
        if partition in waiting and not files:
            return
        silent = tuple(each for each in expected if not _has_reported(lake, each, partition))
        because = _reason(lake, domain, expected, silent, waiting, partition, now)
        if because is None and files:
            because = f"nothing was taken in for {domain.closes_after}"
        if because is None:
            return
        yield Closing(partition, because, tuple(_since(lake, source, partition) for source in silent), files)
        partition = _following(lake, domain, expected, waiting, partition, now)


def _following(
    lake: Lake, domain: Domain, expected: Sequence[Source], waiting: Collection[str], closed: str, now: pd.Timestamp
) -> str:
    """The partition to close next: the following one, unless the group has been quiet for long."""
    following = next_partition(closed)
    quiet_since = start_of(following) - timedelta(days=domain.quiet_days)
    if any(lake.has_rows(source.name, Window(domain.partition_of(quiet_since), following)) for source in expected):
        return following
    current = start_of(domain.partition_of(now - domain.closes_after))
    newest = domain.partition_of(current - pd.Timedelta(microseconds=1))
    arriving = [lake.dataset(source.name).files(first=following) for source in expected]
    coming = [files[0].partition for files in arriving if files] + [each for each in waiting if each > closed]
    return max(following, min([newest, *coming]))


def late_closings(
    instance: dg.DagsterInstance, lake: Lake, sources: Sequence[Source], waiting: Collection[str], newest: str | None
) -> Iterator[Closing]:
    """The partitions that were left out as the group was quiet, and of which something has landed since.

    Args:
        instance: Where closed partitions are reported.
        lake: Where accepted rows are.
        sources: Those of the group.
        waiting: Partitions that have files in landing.
        newest: The newest closed partition.
    """
    expected = [source for source in sources if source.daily]
    for partition in sorted(each for each in waiting if newest and each < newest):
        wanted = dg.AssetRecordsFilter(calendar_key(expected[0].domain), asset_partitions=[partition])
        if not instance.fetch_materializations(wanted, limit=1).records:
            silent = tuple(_since(lake, source, partition) for source in expected)
            yield Closing(partition, "it was left out while the group was quiet, and something has landed", silent)


def closing_event(domain: Domain, closing: Closing, newest: str | None = None) -> dg.AssetMaterialization:
    """The report of a closed partition; of one that was left out before, with the newest one."""
    metadata = {"because": closing.because, "silent": ", ".join(closing.silent) or "none"}
    if closing.stuck:
        metadata["waiting in landing"] = ", ".join(closing.stuck)
    return dg.AssetMaterialization(
        calendar_key(domain),
        partition=closing.partition,
        metadata=metadata | ({NEWEST: newest} if newest else {}),
    )


def closings_at_the_end(lake: Lake, sources: Sequence[Source], after: str | None) -> Iterator[Closing]:
    """The rest of what a recorded group has been sent: for a driver that knows that nothing more comes.

    Args:
        lake: Where accepted rows are.
        sources: Those of the group.
        after: The newest closed partition.
    """
    expected = [source for source in sources if source.daily and source.domain.last_day]
    if not expected:
        return
    now = pd.Timestamp.now("UTC")
    partition = _following(lake, expected[0].domain, expected, (), after, now) if after else _first(lake, expected, ())
    while partition and any(lake.has_rows(source.name, Window(partition)) for source in expected):
        silent = [each for each in expected if not _has_reported(lake, each, partition)]
        yield Closing(partition, "nothing more is fed", tuple(_since(lake, each, partition) for each in silent))
        partition = _following(lake, expected[0].domain, expected, (), partition, now)


def _reason(
    lake: Lake,
    domain: Domain,
    expected: Sequence[Source],
    silent: Sequence[Source],
    waiting: Collection[str],
    partition: str,
    now: pd.Timestamp,
) -> str | None:
    later = [lake.has_rows(source.name, Window(next_partition(partition))) for source in expected]
    if domain.last_day:
        if not silent:
            return "every source has reported"
        return "a source has sent something later" if any(later) or any(w > partition for w in waiting) else None
    if all(later):
        return "every source has sent something later"
    return (
        f"{domain.closes_after} have passed since its end" if end_of(partition) + domain.closes_after <= now else None
    )


def _first(lake: Lake, sources: Sequence[Source], waiting: Collection[str]) -> str | None:
    """The first partition that anything has been sent for."""
    arrived = [files[0].partition for source in sources if (files := lake.dataset(source.name).files())]
    return min([*arrived, *waiting], default=None)


def _has_reported(lake: Lake, source: Source, partition: str) -> bool:
    """Whether a source has sent something that was accepted, and nothing that was not."""
    return bool(lake.dataset(source.name).partition(partition)) and not open_rejections(lake, source, partition)


def _since(lake: Lake, source: Source, partition: str) -> str:
    before = lake.dataset(source.name).files(last=partition)
    return f"{source.name} (last: {before[-1].partition})" if before else f"{source.name} (never)"
