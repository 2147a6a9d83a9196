"""The in-process driver against Dagster's own tester, across restarts, and on a condition that never rests."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from scenario import DAILY, Scenario, arrivals, segment_training, training

from ct_assets.definitions import defs
from ct_assets.feeds import feed_wave
from ct_assets.feeds.nycflights import NycFlights
from ct_assets.feeds.nycflights_faults import deliveries
from ct_assets.lib import driver as module
from ct_assets.lib.driver import Driver, Run

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
    assert names(second.settle()) == [("2013-01-01", ("batch", "rows", "scored"))]


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
    assert names(driven(world, tmp_path / "new").settle()) == [("2013-01-02", ("batch", "rows", "scored"))]


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
