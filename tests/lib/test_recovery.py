"""What failed is asked for again: when, how often, and what is left alone."""

import json
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.definitions.asset_checks.asset_check_spec import AssetCheckKey

from ct_assets.lib.automation import LANE, SENSOR_TAG
from ct_assets.lib.liveness import _lock, in_process_alive
from ct_assets.lib.recovery import (
    ATTEMPT,
    FAILS_OFTEN,
    LAUNCH,
    NOTHING_GIVEN_UP,
    RECOVERY,
    REQUESTED_BY,
    RUNS,
    Retries,
    _Look,
    build_recovery,
)

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-01-05")
DAY = "2013-01-02"


class UnreadableNumbersError(ValueError):
    """A kind of bad input."""


class World:
    """Two assets of a day, of which the first raises `error`, and the recovery sensor that looks after them."""

    def __init__(self, retries: Retries) -> None:
        self.error: Exception | None = None
        self.green = True

        @dg.asset(
            partitions_def=DAYS,
            check_specs=[dg.AssetCheckSpec("contract", asset="rows", blocking=True, partitions_def=DAYS)],
        )
        def rows() -> dg.MaterializeResult:
            if self.error:
                raise self.error
            return dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="contract", passed=self.green)])

        @dg.asset(partitions_def=DAYS, deps=[rows])
        def scored() -> None:
            """Nothing to do."""

        self.instance = dg.DagsterInstance.ephemeral()
        recovery = build_recovery("team:data", retries)
        self.defs = dg.Definitions.merge(dg.Definitions(assets=[rows, scored], executor=in_process_alive), recovery)
        (self.sensor,) = recovery.sensors or ()
        self.cursor: str | None = None

    def run(self, *names: str, error: Exception | None = None, tags: dict[str, str] | None = None) -> dg.DagsterRun:
        self.error = error
        keys = [dg.AssetKey(name) for name in names or ("rows", "scored")]
        job = self.defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(keys))
        done = job.execute_in_process(
            instance=self.instance,
            asset_selection=keys,
            partition_key=DAY,
            raise_on_error=False,
            tags={SENSOR_TAG: "data_automation", LANE: "data"} if tags is None else tags,
        )
        return done.dagster_run

    def tick(self) -> list[dg.RunRequest]:
        """Look once, as the daemon does."""
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, definitions=self.defs, sensor_name=RECOVERY
        ) as context:
            tick = self.sensor.evaluate_tick(context)
        self.cursor = tick.cursor
        for event in tick.asset_events:
            self.instance.report_runless_asset_event(event)
        return list(tick.run_requests or ())

    def again(self, request: dg.RunRequest, error: Exception | None = None) -> dg.DagsterRun:
        """Execute what was asked for."""
        names = [key.to_user_string() for key in request.asset_selection or ()]
        return self.run(*names, error=error, tags={**request.tags, SENSOR_TAG: RECOVERY})

    def check(self) -> str | None:
        key = AssetCheckKey(RUNS, NOTHING_GIVEN_UP)
        found = self.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
        return found[key].status.value if key in found else None

    def severity(self) -> dg.AssetCheckSeverity:
        key = AssetCheckKey(RUNS, NOTHING_GIVEN_UP)
        evaluation = self.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key].evaluation
        assert evaluation is not None
        return evaluation.severity


@pytest.fixture
def world() -> Iterator[World]:
    world = World(Retries(attempts=3, seconds=0))
    with world.instance:
        yield world


def names(request: dg.RunRequest) -> set[str]:
    return {key.to_user_string() for key in request.asset_selection or ()}


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), ConnectionError("registry"), RuntimeError("locked"), KeyError("column")],
    ids=lambda error: type(error).__name__,
)
def test_what_failed_for_another_reason_than_data_is_asked_for_again(world: World, error: Exception) -> None:
    failed = world.run(error=error)
    (request,) = world.tick()
    assert names(request) == {"rows", "scored"}
    assert request.partition_key == DAY
    assert request.run_key == failed.run_id
    assert {k: request.tags[k] for k in (ATTEMPT, REQUESTED_BY, LANE)} == {
        ATTEMPT: "2",
        REQUESTED_BY: "data_automation",
        LANE: "data",
    }
    assert world.again(request).is_success
    assert world.tick() == []


@pytest.mark.parametrize("error", [pa.ArrowInvalid("file is cut off"), json.JSONDecodeError("no JSON", "<html>", 0)])
def test_a_torn_file_and_a_garbled_answer_are_no_bad_data(world: World, error: Exception) -> None:
    world.run(error=error)
    (request,) = world.tick()
    assert names(request) == {"rows", "scored"}


@pytest.mark.parametrize("error", [ValueError("bad"), UnreadableNumbersError("bad")])
def test_bad_data_is_not_asked_for_again(world: World, error: Exception) -> None:
    world.run(error=error)
    assert world.tick() == []


def test_a_failed_contract_is_not_asked_for_again(world: World) -> None:
    world.green = False
    assert world.run().status is dg.DagsterRunStatus.FAILURE
    assert world.tick() == []


def test_a_person_s_run_is_not_asked_for_again(world: World) -> None:
    world.run(error=OSError("disk"), tags={})
    assert world.tick() == []


def test_what_another_run_has_done_since_is_not_asked_for(world: World) -> None:
    world.run(error=OSError("disk"))
    world.run("scored")
    (request,) = world.tick()
    assert names(request) == {"rows"}
    world.run("rows", tags={})
    assert world.tick() == []


def test_what_a_person_tried_in_vain_is_still_asked_for(world: World) -> None:
    world.run(error=OSError("disk"))
    world.run("rows", error=OSError("disk"), tags={})
    (request,) = world.tick()
    assert names(request) == {"rows", "scored"}


def test_what_is_left_of_a_run_waits_for_what_another_run_is_to_make_of_it(world: World) -> None:
    """A condition asks for `rows` once more by itself; `scored` alone would be made without them."""
    world.run(error=OSError("disk"))
    again = world.run("rows", error=OSError("disk"))
    (request,) = world.tick()
    assert (request.run_key, names(request)) == (again.run_id, {"rows"})
    assert world.again(request).is_success
    (request,) = world.tick()
    assert names(request) == {"scored"}


def test_what_is_left_of_a_run_waits_for_a_run_under_way(world: World) -> None:
    world.run(error=OSError("disk"))
    under_way = world.instance.create_run_for_job(
        world.defs.resolve_implicit_global_asset_job_def(),
        tags={SENSOR_TAG: "data_automation", "dagster/partition": DAY},
        asset_selection=frozenset({dg.AssetKey("rows")}),
        status=dg.DagsterRunStatus.STARTING,
    )
    assert world.tick() == []
    world.instance.report_run_canceled(under_way)
    (request,) = world.tick()
    assert names(request) == {"scored"}


def test_after_the_last_attempt_it_stays_failed_and_a_check_is_red(world: World) -> None:
    world.run(error=OSError("disk"))
    for _ in range(2):
        (request,) = world.tick()
        world.again(request, OSError("disk"))
    assert world.check() is None
    assert world.tick() == []
    assert world.check() == "FAILED"
    assert world.tick() == []
    world.run("rows", "scored", tags={})
    world.tick()
    assert world.check() == "SUCCEEDED"


def test_what_fails_often_is_a_warning_until_it_is_done() -> None:
    world = World(Retries(attempts=20, seconds=0))
    with world.instance:
        world.run(error=OSError("disk"))
        for _ in range(FAILS_OFTEN - 1):
            (request,) = world.tick()
            assert world.check() is None
            world.again(request, OSError("disk"))
        (request,) = world.tick()
        assert world.check() == "FAILED"
        assert world.severity() is dg.AssetCheckSeverity.WARN
        assert world.again(request).is_success
        world.tick()
        assert world.check() == "SUCCEEDED"


def test_a_sensor_that_lost_its_cursor_comes_to_the_same(world: World) -> None:
    world.run(error=OSError("disk"))
    for _ in range(2):
        (request,) = world.tick()
        world.again(request, OSError("disk"))
    world.cursor = None
    assert world.tick() == []
    assert world.check() == "FAILED"


def test_it_waits_longer_after_each_failure() -> None:
    assert [Retries(seconds=30).wait(attempt) for attempt in (1, 2, 3, 4)] == [30, 60, 120, 240]
    assert Retries(seconds=30).wait(19) == 3600
    assert 10 * 3600 < sum(map(Retries().wait, range(1, Retries().attempts))) < 14 * 3600
    world = World(Retries(attempts=3, seconds=3600))
    with world.instance:
        failed = world.run(error=OSError("disk"))
        assert world.tick() == []
        assert json.loads(world.cursor or "")["waiting"] == [failed.run_id]


def test_a_run_whose_process_died_is_reported_and_asked_for_again(world: World) -> None:
    run = world.instance.create_run_for_job(
        world.defs.resolve_implicit_global_asset_job_def(),
        tags={SENSOR_TAG: "data_automation", "dagster/partition": DAY},
        asset_selection=frozenset({dg.AssetKey("rows")}),
        status=dg.DagsterRunStatus.STARTED,
    )
    process = _lock(world.instance, run.run_id)
    assert world.tick() == []
    process.close()  # as the system does for a dead process
    (request,) = world.tick()
    assert names(request) == {"rows"}
    assert world.instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE


def test_a_run_that_died_before_its_mark_is_noticed_after_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = world.instance.create_run_for_job(
        world.defs.resolve_implicit_global_asset_job_def(),
        tags={SENSOR_TAG: "data_automation", "dagster/partition": DAY},
        asset_selection=frozenset({dg.AssetKey("rows")}),
        status=dg.DagsterRunStatus.NOT_STARTED,
    )
    world.instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name=run.job_name), run.run_id
    )
    assert world.tick() == []
    monkeypatch.setattr("ct_assets.lib.recovery.UNMARKED_SECONDS", -1.0)
    time.sleep(0.01)
    assert [names(request) for request in world.tick()] == [{"rows"}]


def never_started(world: World, tags: Mapping[str, str]) -> None:
    """The code server was down, or did not answer in time."""
    run = world.instance.create_run_for_job(
        world.defs.resolve_implicit_global_asset_job_def(),
        tags={**tags, SENSOR_TAG: RECOVERY},
        asset_selection=frozenset({dg.AssetKey("rows")}),
        status=dg.DagsterRunStatus.STARTING,
    )
    world.instance.report_run_failed(run, "the launcher did not answer")


def test_a_run_that_never_started_is_never_given_up(world: World) -> None:
    tags = {"dagster/partition": DAY, ATTEMPT: "3", REQUESTED_BY: "data_automation"}
    never_started(world, tags)
    (request,) = world.tick()
    assert request.tags[ATTEMPT] == "3"
    assert world.check() is None
    world.again(request, OSError("disk"))
    assert world.tick() == []
    assert world.check() == "FAILED"


def test_what_never_started_uses_up_no_attempt(world: World) -> None:
    never_started(world, {"dagster/partition": DAY})
    for launches in range(2, 8):
        (request,) = world.tick()
        assert (request.tags[ATTEMPT], request.tags[LAUNCH]) == ("1", str(launches))
        never_started(world, request.tags)
    assert world.severity() is dg.AssetCheckSeverity.WARN
    (request,) = world.tick()
    world.again(request, OSError("disk"))
    (request,) = world.tick()
    assert (request.tags[ATTEMPT], request.tags[LAUNCH]) == ("2", "1")


def test_the_check_by_hand_knows_what_was_given_up_long_ago(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    never_again = world.run(error=OSError("disk"), tags={ATTEMPT: "3", SENSOR_TAG: "data_automation"})
    monkeypatch.setattr("ct_assets.lib.recovery._OVERLAP", timedelta(0))
    retries = Retries(attempts=3, seconds=0)
    assert _Look(world.instance, retries, None, timedelta(0)).given_up == set()
    assert _Look(world.instance, retries, None, None).given_up == {never_again.run_id}
    check = next(iter(build_recovery("team:t", retries).asset_checks or ()))
    assert isinstance(check, dg.AssetChecksDefinition)
    result = check(dg.build_asset_check_context(instance=world.instance))
    assert isinstance(result, dg.AssetCheckResult)
    assert not result.passed
