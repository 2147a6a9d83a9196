"""When it is decided about a model: a schedule by the wall clock, and a sensor for event time and for requests."""

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta

import dagster as dg
import pandas as pd

from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.lake.contract import Domain
from ct_assets.lib.closing import calendar_key, closed_through
from ct_assets.lib.decisions import newest_decision, open_request
from ct_assets.lib.model_assets import model_key, model_tags, releases_of
from ct_assets.lib.partitions import (
    arrival_partitions,
    decides_with_arrivals,
    decision_partitions,
    decision_time,
    end_of,
    next_partition,
)
from ct_assets.resources.lake import LakeResource

_MOST = 10_000
"""Arrivals that one look at most goes through."""
MONITORING = ("performance", "drift_report", "retrain_decision")


def due_key(spec: ModelSpec) -> dg.AssetKey:
    """Key of the external asset whose partitions are the decisions that are due."""
    return model_key(spec, "decision_due")


def decision_due_asset(spec: ModelSpec, domain: Domain) -> dg.AssetSpec:
    """What stands for a decision that is due by its schedule or by a request."""
    return dg.AssetSpec(
        due_key(spec),
        description="Decisions that are due: by `policy.decide_at`, or asked for with `ct retrain`.",
        group_name=spec.name,
        owners=[spec.owner],
        tags=model_tags(spec),
        kinds={"duckdb"},
        partitions_def=decision_partitions(spec.policy, domain),
    )


def build_decision_sensor(spec: ModelSpec, domain: Domain, minimum_interval_seconds: int) -> dg.SensorDefinition:
    """A sensor that reports the decisions of a model that are due.

    Those in a cycle of their own are due when everything that has arrived by then is closed and scored; those at the
    end of each arrival partition follow from its closing, and need no report. A request by `ct retrain` makes the
    newest decision due again, at once.
    """

    @dg.sensor(
        name=f"{spec.name}_decisions",
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports decisions that are due by the policy's schedule, and those asked for by hand.",
    )
    def decisions(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
        seen = _Seen.read(context.cursor)
        own = not decides_with_arrivals(spec.policy, domain)
        due: list[str] = []
        if own:
            arrived, late = _late(context.instance, spec, domain, seen)
            on_time = list(_due(context.instance, spec, domain, seen.reported))
            due += [*late, *_without_quiet(context.instance, spec, domain, on_time)]
            seen = replace(seen, arrived=arrived, reported=on_time[-1] if on_time else seen.reported)
        newest = newest_decision(releases_of(lake, Line(spec.name)))
        asked = _newest_request(lake, spec)
        if newest is not None and asked > seen.asked:
            partitions = decision_partitions(spec.policy, domain)
            moment = pd.Timestamp(newest.as_of).timestamp()
            due.append(partitions.get_partition_key_for_timestamp(moment, end_closed=True))
            seen = replace(seen, asked=asked)
        events = [dg.AssetMaterialization(due_key(spec), partition=partition) for partition in dict.fromkeys(due)]
        return dg.SensorResult(cursor=json.dumps(asdict(seen)), asset_events=events)

    return decisions


@dataclass(frozen=True)
class _Seen:
    """What the sensor has reported: the cursor.

    Attributes:
        asked: Number of the newest request by hand.
        arrived: Event number up to which arrivals were looked at.
        reported: The newest decision in a cycle of its own that was due.
    """

    asked: int = 0
    arrived: int = 0
    reported: str | None = None

    @classmethod
    def read(cls, cursor: str | None) -> "_Seen":
        """From a cursor, or one of before it held more than the first."""
        found = json.loads(cursor or "{}")
        return cls(asked=found) if isinstance(found, int) else cls(**found)


def _late(instance: dg.DagsterInstance, spec: ModelSpec, domain: Domain, seen: _Seen) -> tuple[int, list[str]]:
    """Decisions in a cycle of their own that were reported, and whose labels or predictions came, or changed, since.

    Returns:
        Event number up to which arrivals were looked at, and the decisions, the oldest first.
    """
    sources = {spec.label.source, *([spec.events.source] if spec.label.horizon is not None else [])}
    arrived, late, partitions = seen.arrived, set[str](), decision_partitions(spec.policy, domain)
    for key in (model_key(spec, "scored"), *map(dg.AssetKey, sorted(sources))):
        wanted = dg.AssetRecordsFilter(key, after_storage_id=seen.arrived or None)
        records = instance.fetch_materializations(wanted, limit=_MOST).records
        arrived = max([arrived, *(record.storage_id for record in records)])
        for partition in {record.partition_key for record in records} - {None}:
            moment = end_of(str(partition)).timestamp()
            late.add(partitions.get_partition_key_for_timestamp(moment, end_closed=True))
    # Nothing was decided when the first arrivals came, and what is not due yet is not late.
    reported = "" if seen.reported is None else seen.reported
    return arrived, sorted(partition for partition in late if partition <= reported)


def build_decision_schedule(spec: ModelSpec, domain: Domain) -> dg.ScheduleDefinition:
    """A schedule that decides when the policy says so, whether or not something has arrived."""
    policy = spec.policy

    @dg.schedule(
        name=f"{spec.name}_decision_schedule",
        cron_schedule=policy.decide_at,
        execution_timezone=policy.decide_timezone,
        target=dg.AssetSelection.assets(*(model_key(spec, name) for name in MONITORING)),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Decides whether to retrain, by `policy.decide_at`, whether or not something has arrived.",
    )
    def decision_schedule(context: dg.ScheduleEvaluationContext, lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
        partitions = decision_partitions(policy, domain)
        moment = context.scheduled_execution_time.timestamp()
        partition = partitions.get_partition_key_for_timestamp(moment, end_closed=True)
        if not partitions.has_partition_key(partition):
            return dg.SkipReason(f"{domain.name} is a recording, which has no arrivals of today")
        as_of = decision_time(policy, domain, partition)
        decided = newest_decision(releases_of(lake, Line(spec.name)))
        if decided is not None and pd.Timestamp(decided.as_of) >= as_of:
            return dg.SkipReason(f"decided as of {decided.as_of} already")
        if open_partition := _open_until(context.instance, domain, as_of):
            return dg.SkipReason(
                f"arrivals of {open_partition} are waited for, until {domain.closes_after} after its end at the "
                "latest; it is decided once they are closed"
            )
        return dg.RunRequest(run_key=f"{spec.name}/{partition}", partition_key=partition)

    return decision_schedule


def _due(instance: dg.DagsterInstance, spec: ModelSpec, domain: Domain, newest: str | None) -> Iterator[str]:
    """The decisions in a cycle of their own whose time has passed, and that were not reported yet.

    Args:
        instance: Where they were reported.
        spec: The model.
        domain: Whose arrivals it lives by.
        newest: The newest that was reported; None where only the instance can say.
    """
    closed = closed_through(instance, domain)
    if closed is None or not _scored(instance, spec, closed):
        return
    partitions = decision_partitions(spec.policy, domain)
    reported = [] if newest else instance.fetch_materializations(due_key(spec), limit=1).records
    newest = newest or (str(reported[0].partition_key) if reported else None)
    if newest:
        partition = partitions.get_next_partition_key(newest)
    else:
        first = instance.fetch_materializations(calendar_key(domain), limit=1, ascending=True).records[0]
        moment = end_of(str(first.partition_key)).timestamp()
        partition = partitions.get_partition_key_for_timestamp(moment, end_closed=True)
    while partition and partitions.has_partition_key(partition):
        if _open_until(instance, domain, decision_time(spec.policy, domain, partition)):
            return
        yield partition
        partition = partitions.get_next_partition_key(partition)


def _without_quiet(instance: dg.DagsterInstance, spec: ModelSpec, domain: Domain, due: Sequence[str]) -> Iterator[str]:
    """Leave out the decisions of a time in which the group was quiet, but for the newest.

    Its arrival partitions are left out too (see `closings`).
    """
    if len(due) > 1:
        closed = sorted(instance.get_materialized_partitions(calendar_key(domain)))
        for partition in due[:-1]:
            as_of = decision_time(spec.policy, domain, partition)
            earlier = bisect_left(closed, domain.partition_of(as_of))
            if earlier and as_of - end_of(closed[earlier - 1]) <= timedelta(days=domain.quiet_days):
                yield partition
    yield from due[-1:]


def _open_until(instance: dg.DagsterInstance, domain: Domain, as_of: pd.Timestamp) -> str | None:
    """The first arrival partition that was over by a time and is not closed; None before anything has arrived."""
    closed = closed_through(instance, domain)
    if closed is None:
        return None
    following = next_partition(closed)
    known = arrival_partitions(domain).has_partition_key(following)
    return following if known and end_of(following) <= as_of else None


def _scored(instance: dg.DagsterInstance, spec: ModelSpec, partition: str) -> bool:
    key = model_key(spec, "scored")
    wanted = dg.AssetRecordsFilter(key, asset_partitions=[partition])
    return bool(instance.fetch_materializations(wanted, limit=1).records)


def _newest_request(lake: LakeResource, spec: ModelSpec) -> int:
    """Number of the newest record by which a retrain of one of the model's lines was asked for; 0 without any."""
    ledger = lake.ledger()
    lines = [Line.named(name) for name in ledger.models()]
    found = [open_request(releases_of(lake, line)) for line in lines if line.model == spec.name]
    return max((request.seq for request in found if request is not None), default=0)
