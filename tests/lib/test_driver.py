"""The in-process driver against Dagster's own tester, across restarts, and on a condition that never rests."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from scenario import DAILY, Scenario, arrivals, segment_training, training

from ct_assets.definitions import defs
from ct_assets.feeds import feed_wave
from ct_assets.feeds.nycflights import NycFlights
from ct_assets.feeds.nycflights_faults import deliveries
from ct_assets.lake.lake import Lake
from ct_assets.lib import driver as module
from ct_assets.lib.conditions import on_accepted_data, retrain_is_due
from ct_assets.lib.driver import Driver, Run
from ct_assets.lib.recovery import Retries

Asked = list[tuple[str | None, tuple[str, ...]]]


def with_sensor(world: Scenario) -> dg.Definitions:
    """A scenario's assets under one automation sensor."""
    sensor = dg.AutomationConditionSensorDefinition("automation", target=dg.AssetSelection.all(), emit_backfills=False)
    return dg.Definitions.merge(world.defs, dg.Definitions(sensors=[sensor]))


def driven(world: Scenario, state: Path, ran: list[Run] | None = None) -> Driver:
    return Driver(with_sensor(world), world.instance, state, on_run=(ran if ran is not None else []).append)


def names(runs: list[Run]) -> Asked:
    return [(run.partition, tuple(sorted(k.to_user_string() for k in run.assets))) for run in runs]


def report(driver: Driver, name: str, partition: str | None) -> None:
    """Report a landing as a sensor of the driver would."""
    key = dg.AssetKey(name)
    driver.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))
    driver._touch({key})


def test_a_segment_does_not_wait_for_a_day(tmp_path: Path) -> None:
    driver = driven(Scenario(segment_training), tmp_path)
    assert driver.settle(until="2013-01-01") == []
    report(driver, "due", "s1")
    assert [run.partition for run in driver.settle(until="2013-01-01")] == ["s1", "s1"]


def settled_by_the_tester(world: Scenario) -> Asked:
    """What Dagster's own tester asks for, executed until it asks for nothing."""
    runs: Asked = []
    while asked := world.tick():
        for partition in sorted({p for partitions in asked.values() for p in partitions}, key=str):
            assets = tuple(sorted(name for name, partitions in asked.items() if partition in partitions))
            world.run(*assets, partition=partition)
            runs.append((partition, assets))
    return runs


Step = Callable[[Scenario, Callable[[str, str | None], None], Callable[[str, str | None], None]], None]


def _green(world: Scenario, **checks: bool) -> None:
    world.green |= checks


DATA: list[Step] = [
    lambda world, land, run: land("landing", "2013-01-01"),
    lambda world, land, run: (land("landing", "2013-01-02"), land("landing", "2013-01-03")),
    lambda world, land, run: (_green(world, contract=False), land("landing", "2013-01-02")),
    lambda world, land, run: (_green(world, contract=True), land("landing", "2013-01-02")),
    lambda world, land, run: land("landing", "2013-01-02"),
    lambda world, land, run: run("batch", "2013-01-01"),
    lambda world, land, run: run("rows", "2013-01-03"),
    lambda world, land, run: None,
]
MODEL: list[Step] = [
    lambda world, land, run: run("decision", None),
    lambda world, land, run: (_green(world, current=False), run("decision", None)),
    lambda world, land, run: (_green(world, better=False), run("decision", None)),
    lambda world, land, run: (_green(world, better=True), run("decision", None)),
    lambda world, land, run: (_green(world, current=True), run("decision", None)),
    lambda world, land, run: run("verdict", None),
    lambda world, land, run: run("model", None),
    lambda world, land, run: None,
]


@pytest.mark.parametrize(("build", "steps"), [(arrivals(DAILY), DATA), (training(None), MODEL)], ids=["data", "model"])
def test_the_driver_asks_for_what_the_tester_asks_for(build: object, steps: list[Step], tmp_path: Path) -> None:
    tested, world = Scenario(build), Scenario(build)  # type: ignore[arg-type]
    driver = driven(world, tmp_path)
    assert names(driver.settle()) == settled_by_the_tester(tested) == []
    for number, step in enumerate(steps):
        step(tested, tested.land, lambda name, partition: tested.run(name, partition=partition))
        step(
            world,
            lambda name, partition: report(driver, name, partition),
            lambda name, partition: driver.execute([dg.AssetKey(name)], partition),
        )
        assert names(driver.settle()) == settled_by_the_tester(tested), f"step {number}"


def test_a_restarted_driver_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    world = Scenario(arrivals(DAILY))
    first = driven(world, tmp_path)
    first.settle()
    report(first, "landing", "2013-01-01")
    assert len(first.settle()) == 1
    first.save()
    second = driven(world, tmp_path)
    assert second.settle() == []
    report(second, "landing", "2013-01-01")
    assert names(second.settle()) == [("2013-01-01", ("batch", "rows", "totals"))]


def test_what_lands_while_no_driver_runs_is_taken_in_by_the_next(tmp_path: Path) -> None:
    world = Scenario(arrivals(DAILY))
    first = driven(world, tmp_path)
    first.settle()
    report(first, "landing", "2013-01-01")
    first.settle()
    first.save()
    world.land("landing", "2013-01-01")
    world.land("landing", "2013-01-02")
    assert [partition for partition, _ in names(driven(world, tmp_path).settle())] == ["2013-01-01", "2013-01-02"]


def test_a_driver_that_lost_its_cursors_takes_in_the_backlog_only(tmp_path: Path) -> None:
    world = Scenario(arrivals(DAILY))
    first = driven(world, tmp_path / "lost")
    first.settle()
    report(first, "landing", "2013-01-01")
    first.settle()
    world.land("landing", "2013-01-02")
    assert names(driven(world, tmp_path / "new").settle()) == [("2013-01-02", ("batch", "rows", "totals"))]


def test_a_condition_that_never_rests_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REQUESTS", 3)

    def build(world: Scenario) -> list[object]:
        status = dg.AutomationCondition.all_deps_match(~dg.AutomationCondition.missing())
        return [dg.AssetSpec("landing"), world.asset("restless", status, ["landing"]), _echo(world)]

    world = Scenario(build)
    driver = driven(world, tmp_path)
    report(driver, "landing", None)
    monkeypatch.setattr(driver, "_touch", lambda *keys: driver._dirty.update(driver._targets["automation"]))
    with pytest.raises(RuntimeError, match="asks without end for restless.*a status and not an event"):
        driver.settle()


def _echo(world: Scenario) -> dg.AssetsDefinition:
    return world.asset("echo", None, ["restless"])


def test_a_failed_run_is_reported_with_what_failed(tmp_path: Path) -> None:
    world = Scenario(arrivals(DAILY))
    ran: list[Run] = []
    driver = driven(world, tmp_path, ran)
    driver.settle()
    world.broken.add("batch")
    report(driver, "landing", "2013-01-01")
    driver.settle()
    assert not ran[0].success
    assert any("batch is broken" in error for error in ran[0].errors)
    assert ran[0].sensor == "automation"


def test_a_late_day_makes_the_features_of_the_days_after_it_as_if_it_had_come_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, days = NycFlights(), [date(2013, 1, number) for number in (2, 3, 4)]
    made, events = {}, []
    for name, order in (("in time", days), ("late", [days[1], days[2], days[0]])):
        home = tmp_path / name
        monkeypatch.setenv("CT_HOME", str(home))
        with dg.DagsterInstance.ephemeral() as instance:
            driver = Driver(defs(), instance, home / "driver", only=("flights_arrivals", "flights_ingestion"))
            for day in order:
                files = deliveries(feed, day, faults=False)[0]
                feed_wave([each for each in files if each.source == "flight_outcomes"], str(home))
                assert all(run.success for run in driver.settle())
            key = dg.AssetKey(["features", "origin_delays"])
            records = instance.fetch_materializations(key, limit=9).records
            events.append([record.partition_key for record in records])
            # The newest one says what the columns are, also where it is that of a day that was made again.
            newest = records[0].asset_materialization
            assert newest is not None
            assert {"dagster/column_schema", "dagster/column_lineage"} <= newest.metadata.keys()
        rows = Lake(home).dataset("features/origin_delays", "event_timestamp")
        made[name] = {f.partition: pq.read_table(rows.paths([f])[0]) for f in rows.files()}
    assert events[0][::-1] == [day.isoformat() for day in days]
    # The late day itself, and once more the day after it, the only one whose windows over an origin reach back to it.
    assert sorted(events[1]) == sorted([*events[0], days[1].isoformat()])
    assert made["late"] == made["in time"]
    assert made["late"]["2013-01-04"].num_rows > 0


def test_a_rejected_file_and_its_resent_one_both_reach_the_real_assets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path))
    driver, feed = Driver(defs(), dg.DagsterInstance.ephemeral(), tmp_path / "driver"), NycFlights()
    driver.settle()
    outcome = []
    for wave in deliveries(feed, date(2013, 1, 27)):
        feed_wave([each for each in wave if each.source == "flight_outcomes"], str(tmp_path))
        outcome.append([(run.partition, run.success) for run in driver.settle()])
    assert outcome == [[("2013-01-27", False)], [("2013-01-27", True)]]
    assert (tmp_path / "lake" / "features" / "origin_delays" / "manifest.json").exists()


def test_a_long_backlog_that_retrains_every_day_is_no_endless_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same training is asked for on each of many days; each day is new."""
    monkeypatch.setattr(module, "MAX_REQUESTS", 3)
    days = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-01-13")

    def build(world: Scenario) -> list[object]:
        return [
            *arrivals(days)(world),
            world.asset("training", retrain_is_due(dg.AssetKey("decision")), ["decision"]),
            world.asset("decision", on_accepted_data(), ["totals"], days, ("current",)),
        ]

    world = Scenario(build)
    world.green["current"] = False
    driver = driven(world, tmp_path)
    driver.settle()
    for day in days.get_partition_keys():
        report(driver, "landing", day)
    counted = Counter(key.to_user_string() for run in driver.settle() for key in run.assets)
    assert counted["totals"] == 12
    assert counted["training"] >= 12


def test_an_error_loses_no_passed_verdict(tmp_path: Path) -> None:
    """What ended a first settling comes after the verdict and before its promotion."""
    world = Scenario(training(None))
    world.green["current"] = False

    def end(run: Run) -> None:
        if dg.AssetKey("verdict") in run.assets:
            raise RuntimeError("the power went")

    first = Driver(with_sensor(world), world.instance, tmp_path, on_run=end)
    first._touch({dg.AssetKey("decision")})
    first._tick()
    world.run("decision")
    first._touch({dg.AssetKey("decision")})
    with pytest.raises(RuntimeError, match="the power went"):
        first.settle()
    second = driven(world, tmp_path)
    made = [key.to_user_string() for run in second.settle() for key in run.assets]
    assert made[-1] == "champion"
    assert second.settle() == []


def test_a_driver_that_is_asked_to_stop_owes_the_rest(tmp_path: Path) -> None:
    world = Scenario(arrivals(DAILY))
    driver = driven(world, tmp_path)
    driver.settle()
    report(driver, "landing", "2013-01-01")
    report(driver, "landing", "2013-01-02")
    world.during["batch"] = driver.stop
    with pytest.raises(KeyboardInterrupt):
        driver.settle()
    driver.save()
    assert [partition for partition, _ in names(driven(world, tmp_path).settle())] == ["2013-01-02"]


def test_a_run_that_is_interrupted_is_made_again_by_the_next_driver(tmp_path: Path) -> None:
    world = Scenario(arrivals(DAILY))
    driver = driven(world, tmp_path)
    driver.settle()
    report(driver, "landing", "2013-01-01")
    world.during["rows"] = lambda: os.kill(os.getpid(), signal.SIGINT)
    # A shell starts what it puts into the background with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            driver.settle()
    finally:
        signal.signal(signal.SIGINT, before)
    driver.save()
    assert names(driven(world, tmp_path).settle()) == [("2013-01-01", ("batch", "rows", "totals"))]


def test_what_fails_for_a_moment_is_made_again_at_once(tmp_path: Path) -> None:
    world = Scenario(arrivals(DAILY))
    driver = Driver(with_sensor(world), world.instance, tmp_path, retries=Retries(attempts=3, seconds=0))
    driver.settle()
    report(driver, "landing", "2013-01-01")
    world.broken.add("rows")
    ran: list[Run] = []
    driver.on_run = lambda run: (ran.append(run), world.broken.clear())
    driver.settle()
    assert [run.success for run in ran] == [False, True]


def test_what_failed_to_the_last_is_made_by_the_next_driver(tmp_path: Path) -> None:
    world = Scenario(arrivals(DAILY))
    world.broken.add("batch")
    driver = Driver(with_sensor(world), world.instance, tmp_path, retries=Retries(attempts=2, seconds=0))
    driver.settle()
    report(driver, "landing", "2013-01-01")
    assert [run.success for run in driver.settle()] == [False, False]
    assert driver.settle() == []
    driver.save()
    world.broken.clear()
    assert names(driven(world, tmp_path).settle()) == [("2013-01-01", ("batch", "rows", "totals"))]
