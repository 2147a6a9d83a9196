"""When an arrival partition is closed, and by which times it is decided."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
import pandera.pandas as pa
import pyarrow
import pytest
from labelled_world import model

from ct_assets.core.ledger import REQUEST, RETRAIN, SKIP, Ledger
from ct_assets.core.policy import Evidence, RetrainPolicy, decide
from ct_assets.core.segments import Line
from ct_assets.lake.contract import Domain, Source
from ct_assets.lake.lake import Lake
from ct_assets.lake.periods import start_of
from ct_assets.lake.releases import Releases
from ct_assets.lib.closing import (
    Closing,
    closed_through,
    closing_event,
    closings,
    closings_at_the_end,
    late_closings,
)
from ct_assets.lib.decision_times import build_decision_schedule, build_decision_sensor
from ct_assets.lib.decisions import gather_evidence, open_request, record_decision, retrain_due
from ct_assets.lib.monitoring_reports import save_report
from ct_assets.lib.partitions import arrival_partitions, decision_partitions, decision_time
from ct_assets.lib.silence import silent_sources
from ct_assets.resources.lake import LakeResource

RECORDED = Domain("shop", date(2020, 3, 1), date(2020, 3, 31))
LIVE = Domain("shop", date(2020, 3, 1))
NOW = pd.Timestamp("2026-01-01", tz="UTC")


def sources(domain: Domain) -> list[Source]:
    schema = pa.DataFrameSchema({"id": pa.Column(object), "known_at": pa.Column("datetime64[us, UTC]")})
    return [Source(name, schema, ("id",), "d", "team:shop", domain) for name in ("orders", "visits")]


def arrive(lake: Lake, name: str, *partitions: str) -> None:
    for partition in partitions:
        moments = pyarrow.array([start_of(partition) + pd.Timedelta(minutes=30)], pyarrow.timestamp("us", "UTC"))
        lake.dataset(name).write(partition, pyarrow.table({"id": [partition], "known_at": moments}))


def closed(lake: Lake, domain: Domain, after: str | None = None, now: pd.Timestamp = NOW, waiting=()) -> list[Closing]:
    return list(closings(lake, sources(domain), waiting, after, now))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def test_a_recorded_partition_is_closed_once_every_source_has_reported(lake: Lake) -> None:
    assert closed(lake, RECORDED) == []
    arrive(lake, "orders", "2020-03-02")
    assert closed(lake, RECORDED) == []
    arrive(lake, "visits", "2020-03-02")
    assert closed(lake, RECORDED) == [Closing("2020-03-02", "every source has reported", ())]
    assert closed(lake, RECORDED, after="2020-03-02") == []


def test_a_recorded_partition_without_a_silent_source_is_closed_by_a_later_one(lake: Lake) -> None:
    arrive(lake, "orders", "2020-03-02", "2020-03-03", "2020-03-05")
    arrive(lake, "visits", "2020-03-02")
    found = closed(lake, RECORDED)
    assert [closing.partition for closing in found] == ["2020-03-02", "2020-03-03", "2020-03-04"]
    assert found[1] == Closing("2020-03-03", "a source has sent something later", ("visits (last: 2020-03-02)",))
    assert found[2].silent == ("orders (last: 2020-03-03)", "visits (last: 2020-03-02)")
    assert [c.partition for c in closings_at_the_end(lake, sources(RECORDED), "2020-03-04")] == ["2020-03-05"]


def test_files_in_landing_are_taken_in_before_their_partition_is_closed(lake: Lake) -> None:
    for name in ("orders", "visits"):
        arrive(lake, name, "2020-03-02", "2020-03-03")
    assert [c.partition for c in closed(lake, RECORDED, waiting={"2020-03-03"})] == ["2020-03-02"]


@pytest.mark.parametrize("domain", [RECORDED, LIVE])
def test_a_file_that_nothing_takes_in_holds_its_partition_back_for_a_while_only(lake: Lake, domain: Domain) -> None:
    arrive(lake, "orders", "2020-03-02")
    held = {"2020-03-02": ["visits/2020-03-02/torn.parquet"]}
    over = pd.Timestamp("2020-03-03T01:00Z")
    assert list(closings(lake, sources(domain), held, None, over)) == []
    (closing,) = closings(lake, sources(domain), held, None, over, stuck=held)
    assert closing.stuck == ("visits/2020-03-02/torn.parquet",)
    assert closing.silent == ("visits (never)",)
    assert closing_event(domain, closing).metadata["waiting in landing"].value == "visits/2020-03-02/torn.parquet"


def test_a_live_partition_is_closed_by_the_clock_or_by_what_came_later(lake: Lake) -> None:
    for name in ("orders", "visits"):
        arrive(lake, name, "2020-03-02")
    over = pd.Timestamp("2020-03-03T00:00Z")
    assert closed(lake, LIVE, now=over + pd.Timedelta(minutes=59)) == []
    (closing,) = closed(lake, LIVE, now=over + pd.Timedelta(hours=1))
    assert (closing.partition, closing.silent) == ("2020-03-02", ())
    for name in ("orders", "visits"):
        arrive(lake, name, "2020-03-03")
    (closing,) = closed(lake, LIVE, now=over + pd.Timedelta(minutes=5))
    assert closing == Closing("2020-03-02", "every source has sent something later", ())


def test_a_silent_live_group_goes_on_closing_partitions(lake: Lake) -> None:
    arrive(lake, "orders", "2020-03-02")
    found = closed(lake, replace(LIVE, closes_after=timedelta(hours=6)), now=pd.Timestamp("2020-03-06T05:59Z"))
    assert [c.partition for c in found] == ["2020-03-02", "2020-03-03", "2020-03-04"]
    assert {c.silent[-1] for c in found} == {"visits (never)"}


def days_of_march(*days: int) -> list[str]:
    return [f"2020-03-{day:02d}" for day in days]


def test_a_live_group_that_was_quiet_is_closed_at_the_next_arrival_and_now(lake: Lake) -> None:
    domain = replace(LIVE, quiet_days=3)
    arrive(lake, "orders", "2020-03-02", "2020-03-20")
    found = closed(lake, domain, now=pd.Timestamp("2020-04-30T12:00Z"))
    assert [c.partition for c in found] == [*days_of_march(2, 3, 4, 5, 20, 21, 22, 23), "2020-04-29"]
    # On the day after, with what was closed so far, and with a file that has landed for a day in between.
    tomorrow = pd.Timestamp("2020-05-01T12:00Z")
    assert [c.partition for c in closed(lake, domain, after="2020-04-29", now=tomorrow)] == ["2020-04-30"]
    assert closed(lake, domain, after="2020-03-23", now=tomorrow, waiting={"2020-04-03"}) == []


def test_a_recorded_group_that_was_quiet_is_closed_at_the_next_arrival(lake: Lake) -> None:
    domain = replace(RECORDED, quiet_days=3)
    arrive(lake, "orders", "2020-03-02", "2020-03-20")
    assert [c.partition for c in closed(lake, domain)] == days_of_march(2, 3, 4, 5)
    last = closings_at_the_end(lake, sources(domain), "2020-03-05")
    assert [c.partition for c in last] == ["2020-03-20"]


def test_what_lands_for_a_partition_that_was_left_out_closes_it(lake: Lake) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for partition in ("2020-03-02", "2020-03-20"):
            instance.report_runless_asset_event(closing_event(LIVE, Closing(partition, "", ())))
        waiting = {"2020-03-02", "2020-03-11", "2020-03-21"}
        (late,) = late_closings(instance, lake, sources(LIVE), waiting, closed_through(instance, LIVE))
        assert late.partition == "2020-03-11"
        instance.report_runless_asset_event(closing_event(LIVE, late, newest="2020-03-20"))
        assert closed_through(instance, LIVE) == "2020-03-20"
        assert list(late_closings(instance, lake, sources(LIVE), waiting, "2020-03-20")) == []


@pytest.mark.parametrize(
    ("cadence", "first", "then"),
    [("hourly", "2020-03-02-23:00", "2020-03-03-00:00"), ("weekly", "2020-03-02-week", "2020-03-09-week")],
)
def test_hours_and_weeks_are_closed_as_days_are(lake: Lake, cadence, first: str, then: str) -> None:
    domain = replace(RECORDED, cadence=cadence)
    arrive(lake, "orders", first, then)
    assert [c.partition for c in closed(lake, domain)] == [first]
    keys = arrival_partitions(domain).get_partition_keys()
    assert keys.index(then) == keys.index(first) + 1


def test_a_source_is_silent_when_its_newest_row_is_too_old(lake: Lake) -> None:
    arrive(lake, "orders", "2020-03-02", "2020-03-07")
    limits = {"orders": timedelta(days=2), "visits": timedelta(days=2)}
    orders = "orders is silent since 2020-03-02T00:30:00+00:00: 2.98 days, expected within 2"
    assert silent_sources(lake, limits, pd.Timestamp("2020-03-05", tz="UTC")) == (orders, "visits has never sent a row")
    assert silent_sources(lake, {"orders": limits["orders"]}, pd.Timestamp("2020-03-08", tz="UTC")) == ()


def test_a_silent_source_is_named_in_the_decision() -> None:
    evidence = Evidence(as_of=datetime(2020, 3, 5, tzinfo=UTC), known_labels=0, silent=("orders is silent",))
    assert decide(RetrainPolicy(), evidence).reasons["silence"] == "orders is silent"


# -- Times of decisions

MONDAYS = RetrainPolicy(decide_at="0 6 * * MON", decide_timezone="Europe/Berlin")


def test_a_decision_on_mondays_is_as_of_that_hour_in_berlin_also_when_the_clock_changes() -> None:
    keys = decision_partitions(MONDAYS, RECORDED).get_partition_keys()
    assert keys[:2] == ["2020-02-24-06:00", "2020-03-02-06:00"]
    times = [decision_time(MONDAYS, RECORDED, key) for key in keys]
    expected = ["2020-03-02T05:00Z", "2020-03-09T05:00Z", "2020-03-16T05:00Z", "2020-03-23T05:00Z", "2020-03-30T04:00Z"]
    assert times == [pd.Timestamp(time) for time in expected]


def report(instance: dg.DagsterInstance, *partitions: str) -> None:
    """Close partitions, and note them as scored."""
    for partition in partitions:
        instance.report_runless_asset_event(closing_event(RECORDED, Closing(partition, "", ())))
        instance.report_runless_asset_event(dg.AssetMaterialization(["m", "scored"], partition=partition))


def due(
    instance: dg.DagsterInstance,
    home: Path,
    policy: RetrainPolicy,
    cursor: str | None = None,
    domain: Domain = RECORDED,
) -> tuple:
    spec = model("delay").model_copy(update={"policy": policy})
    sensor = build_decision_sensor(spec, domain, 10)
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"lake": LakeResource(home=str(home))}
    ) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    for event in result.asset_events:
        instance.report_runless_asset_event(event)
    return [event.partition for event in result.asset_events], result.cursor


def test_a_weekly_decision_is_due_once_all_that_had_arrived_by_then_is_closed(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert due(instance, tmp_path, MONDAYS)[0] == []
        report(instance, *(f"2020-03-{day:02d}" for day in range(4, 8)))
        assert due(instance, tmp_path, MONDAYS)[0] == []
        report(instance, "2020-03-08")
        assert due(instance, tmp_path, MONDAYS)[0] == ["2020-03-02-06:00"]
        assert due(instance, tmp_path, MONDAYS)[0] == []


def test_a_weekly_decision_is_due_again_when_its_labels_come_late(tmp_path: Path) -> None:
    labels = dg.AssetKey(model("delay").label.source)
    with dg.DagsterInstance.ephemeral() as instance:
        report(instance, *(f"2020-03-{day:02d}" for day in range(4, 16)))
        partitions, cursor = due(instance, tmp_path, MONDAYS)
        assert partitions == ["2020-03-02-06:00", "2020-03-09-06:00"]
        assert due(instance, tmp_path, MONDAYS, cursor)[0] == []
        # The 8th ends at midnight, before the decision of Monday the 9th at six; the 16th is of a decision to come.
        for partition in ("2020-03-08", "2020-03-16"):
            instance.report_runless_asset_event(dg.AssetMaterialization(labels, partition=partition))
        partitions, cursor = due(instance, tmp_path, MONDAYS, cursor)
        assert partitions == ["2020-03-02-06:00"]
        # An older one that was reported again is not taken for the newest.
        assert due(instance, tmp_path, MONDAYS, cursor)[0] == []


def test_the_weekly_decisions_of_a_quiet_time_are_left_out_but_for_the_newest(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        report(instance, *(f"2020-03-{day:02d}" for day in range(4, 9)), "2020-03-30")
        quick = replace(RECORDED, quiet_days=10)
        # The Mondays are 7, 14 and 21 days after the end of the 8th.
        partitions, cursor = due(instance, tmp_path, MONDAYS, domain=quick)
        assert partitions == ["2020-03-02-06:00", "2020-03-09-06:00", "2020-03-23-06:00"]
        assert due(instance, tmp_path, MONDAYS, cursor, quick)[0] == []


def schedule_of(policy: RetrainPolicy, instance: dg.DagsterInstance, home: Path, domain: Domain, time: str):
    spec = model("delay").model_copy(update={"policy": policy})
    schedule = build_decision_schedule(spec, domain)
    assert (schedule.cron_schedule, schedule.execution_timezone) == (policy.decide_at, policy.decide_timezone)
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    moment = datetime.fromisoformat(time)
    with dg.build_schedule_context(
        instance=instance, scheduled_execution_time=moment, resources={"lake": LakeResource(home=str(home))}
    ) as context:
        return schedule(context)


def test_the_schedule_decides_although_nothing_has_arrived(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance:
        request = schedule_of(MONDAYS, instance, tmp_path, LIVE, "2026-11-23T06:00:00+01:00")
        assert (request.partition_key, request.run_key) == ("2026-11-16-06:00", "m/2026-11-16-06:00")


def test_the_schedule_leaves_a_decision_to_the_closing_of_what_it_waits_for(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance:
        report(instance, "2026-11-21")
        skipped = schedule_of(RetrainPolicy(), instance, tmp_path, LIVE, "2026-11-23T00:00:00+00:00")
        assert "arrivals of 2026-11-22 are waited for" in skipped.skip_message
        report(instance, "2026-11-22")
        request = schedule_of(RetrainPolicy(), instance, tmp_path, LIVE, "2026-11-23T00:00:00+00:00")
        assert request.partition_key == "2026-11-22"


# -- Requests by hand


def test_a_request_makes_the_newest_decision_due_at_once_and_is_answered_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    spec, lake = model("delay"), Lake(home)
    ledger = LakeResource(home=str(home)).ledger()
    releases, time = Releases(home, Line("m"), ledger), pd.Timestamp("2020-03-05", tz="UTC")
    save_report(lake, spec, "performance", time, {"labels_known": 50, "now": None, "reference": None, "rows": 0})

    def decided():
        evidence = gather_evidence(lake, releases, spec, time)
        return record_decision(releases, evidence, decide(RetrainPolicy(schedule_days=None), evidence))

    with dg.DagsterInstance.ephemeral() as instance:
        first = decided()
        assert (first.kind, due(instance, home, spec.policy)[0]) == (SKIP, [])
        request = ledger.append(REQUEST, "m", time, {"reason": "labels were mended"})
        partitions, cursor = due(instance, home, spec.policy, "0")
        assert (partitions, json.loads(cursor)["asked"]) == (["2020-03-04"], request.seq)
        assert due(instance, home, spec.policy, cursor) == ([], cursor)
        assert open_request(releases) == request


def test_a_request_after_a_judged_model_is_due_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "decisions.jsonl")
    releases, time = Releases(tmp_path, Line("m"), ledger), pd.Timestamp("2020-03-05", tz="UTC")
    asked = {"manual_request": True, "manual_reason": "labels", "manual_number": 7}
    before, after = (Evidence(as_of=time, known_labels=9000, **more) for more in ({}, asked))
    first = record_decision(releases, before, decide(RetrainPolicy(), before))
    assert first.kind == RETRAIN
    ledger.append("verdict", "m", time, {"version": "1", "passed": False})
    assert retrain_due(releases) is None
    second = record_decision(releases, after, decide(RetrainPolicy(), after))
    assert retrain_due(releases) == second
    assert record_decision(releases, after, decide(RetrainPolicy(), after)) == second
