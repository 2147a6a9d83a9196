"""Scenarios of every automation condition: which events ask for what, and which do not."""

import inspect
from collections.abc import Callable
from functools import cache

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._utils.caching_instance_queryer import CachingInstanceQueryer
from scenario import (
    CALENDAR,
    DAILY,
    DYNAMIC,
    KINDS,
    SEGMENTS,
    Scenario,
    arrivals,
    closing,
    own_cycle,
    segment_training,
    training,
)

from ct_assets.core.verdict import CHECK_NAMES
from ct_assets.definitions import defs
from ct_assets.lib import conditions
from ct_assets.lib.conditions import (
    gate_passed,
    on_accepted_data,
    on_arrival,
    on_closed_partition,
    on_decision_time,
    on_new_input,
    retrain_is_due,
    segment_retrain_is_due,
)
from ct_assets.lib.evaluation import MAY_BE_PROMOTED

CONDITIONS: dict[str, Callable[[], dg.AutomationCondition]] = {
    "on_arrival": on_arrival,
    "on_accepted_data": on_accepted_data,
    "on_closed_partition": lambda: on_closed_partition(
        CALENDAR, *([dg.AssetKey(name)] for name in ("rows", "made", "table"))
    ),
    "on_decision_time": lambda: on_decision_time(dg.AssetKey("due")),
    "retrain_is_due": lambda: retrain_is_due(dg.AssetKey("decision")),
    "segment_retrain_is_due": segment_retrain_is_due,
    "on_new_input": on_new_input,
    "gate_passed": gate_passed,
}
each_kind = pytest.mark.parametrize("kind", KINDS)
two_kinds = pytest.mark.parametrize("kind", ["unpartitioned", "daily"])


def started(build: Callable[[dg.PartitionsDefinition | None], object], kind: str) -> tuple[Scenario, list]:
    """A scenario whose first tick, in which latches only begin to remember, is over."""
    definition, partitions = KINDS[kind]
    world = Scenario(build(definition))  # type: ignore[arg-type]
    assert world.tick() == {}
    return world, partitions


# -- Form


def test_every_function_of_the_module_is_in_these_scenarios() -> None:
    public = {n for n, f in inspect.getmembers(conditions, inspect.isfunction) if not n.startswith("_")}
    assert public == set(CONDITIONS)


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_can_be_evaluated_by_the_daemon_and_has_a_name_people_read(name: str) -> None:
    condition = CONDITIONS[name]()
    assert condition.is_serializable
    assert condition.get_label()


def test_no_condition_filters_the_checks_it_looks_at() -> None:
    for name, build in {**CONDITIONS, "with reference": lambda: on_accepted_data([dg.AssetKey("table")])}.items():
        for condition in operands(build()):
            if any("check" in type(operand).__name__.lower() for operand in operands(condition)):
                assert not getattr(condition, "allow_selection", None), name
                assert not getattr(condition, "ignore_selection", None), name


def operands(condition: dg.AutomationCondition) -> list[dg.AutomationCondition]:
    return [condition, *(deeper for child in condition.children for deeper in operands(child))]


# -- on_arrival


@each_kind
def test_a_landed_batch_is_asked_for_once_and_for_its_partition_only(kind: str) -> None:
    world, (first, *_) = started(arrivals, kind)
    world.land("landing", first)
    asked = world.tick()
    assert asked == {"batch": {first}, "rows": {first}, "totals": {first}}
    world.run_all(asked)
    assert [world.tick() for _ in range(3)] == [{}, {}, {}]


@two_kinds
def test_a_second_identical_landing_is_asked_for_again(kind: str) -> None:
    world, (first, *_) = started(arrivals, kind)
    for _ in range(3):
        world.land("landing", first)
        asked = world.tick()
        assert asked["batch"] == {first}
        world.run_all(asked)


@two_kinds
def test_a_batch_that_lands_between_the_request_and_the_next_tick_is_not_lost(kind: str) -> None:
    world, (first, *_) = started(arrivals, kind)
    world.land("landing", first)
    assert world.tick()["batch"] == {first}
    world.land("landing", first)
    assert world.tick()["batch"] == {first}


@pytest.mark.parametrize("kind", ["daily", "unpartitioned"])
@pytest.mark.parametrize("tick_between", [True, False])
def test_a_batch_that_lands_during_the_run_is_asked_for_once_the_run_is_over(kind: str, tick_between: bool) -> None:
    world, (first, *_) = started(arrivals, kind)
    world.land("landing", first)
    asked = world.tick()
    midway = []
    world.during["batch"] = lambda: (world.land("landing", first), tick_between and midway.append(world.tick()))
    world.run_all(asked)
    assert midway == [{}] * tick_between
    assert world.tick()["batch"] == {first}
    assert "batch" not in world.tick()


@each_kind
def test_a_backlog_is_taken_in_at_the_first_look(kind: str) -> None:
    definition, partitions = KINDS[kind]
    world = Scenario(arrivals(definition))
    for partition in partitions:
        world.land("landing", partition)
    asked = world.tick()
    assert asked == {"batch": set(partitions), "rows": set(partitions), "totals": set(partitions)}
    world.run_all(asked)
    assert world.tick() == {}


def test_a_backlog_that_was_taken_in_by_hand_is_not_asked_for() -> None:
    world = Scenario(arrivals(DAILY))
    world.land("landing", "2013-01-01")
    assert world.run("batch", "rows", "totals", partition="2013-01-01")
    assert world.tick() == {}


def test_nothing_is_asked_for_before_anything_lands() -> None:
    world = Scenario(arrivals(DAILY))
    assert [world.tick(), world.tick()] == [{}, {}]


def test_a_later_look_does_not_search_the_days_that_nothing_landed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Scenario(arrivals(dg.DailyPartitionsDefinition("2010-01-01", end_date="2013-01-01")))
    world.tick()
    looked, look = [], CachingInstanceQueryer.asset_partition_has_materialization_or_observation
    monkeypatch.setattr(
        CachingInstanceQueryer,
        "asset_partition_has_materialization_or_observation",
        lambda *given, **named: looked.append(given) or look(*given, **named),
    )
    world.land("landing", "2010-01-01")
    assert world.tick()["batch"] == {"2010-01-01"}
    assert len(looked) < 10


def test_a_segment_that_is_added_later_starts_with_its_first_batch() -> None:
    world = Scenario(arrivals(DYNAMIC), segments=["s1"])
    world.tick()
    world.instance.add_dynamic_partitions("segments", ["new"])
    assert world.tick() == {}
    world.land("landing", "new")
    assert world.tick()["batch"] == {"new"}


# -- on_accepted_data


@each_kind
def test_a_failed_contract_holds_its_partition_back_until_it_is_green_again(kind: str) -> None:
    world, (first, *_) = started(arrivals, kind)
    world.land("landing", first)
    world.green["contract"] = False
    asked = world.tick()
    assert not world.run(*asked, partition=first)
    assert [world.tick() for _ in range(3)] == [{}, {}, {}]
    world.green["contract"] = True
    assert world.run("batch", partition=first)
    asked = world.tick()
    assert asked == {"rows": {first}, "totals": {first}}
    world.run_all(asked)
    assert world.tick() == {}


@pytest.mark.parametrize("kind", ["daily", "dynamic"])
def test_a_failed_contract_holds_no_other_partition_back(kind: str) -> None:
    world, (first, second) = started(arrivals, kind)
    world.green["contract"] = False
    world.land("landing", first)
    world.run_all(world.tick())
    world.green["contract"] = True
    world.land("landing", second)
    asked = world.tick()
    assert asked == {"batch": {second}, "rows": {second}, "totals": {second}}
    world.run_all(asked)
    assert world.tick() == {}


@two_kinds
def test_a_contract_that_fails_after_it_had_passed_holds_back_too(kind: str) -> None:
    world, (first, *_) = started(arrivals, kind)
    world.land("landing", first)
    world.run_all(world.tick())
    world.green["contract"] = False
    assert not world.run("batch", partition=first)
    assert [world.tick(), world.tick()] == [{}, {}]
    world.land("landing", first)
    world.green["contract"] = True
    asked = world.tick()
    assert asked["batch"] == {first}
    world.run("batch", partition=first)
    assert world.tick().get("rows") == {first}


@two_kinds
def test_what_is_upstream_made_by_hand_is_followed_once(kind: str) -> None:
    world, (first, *_) = started(arrivals, kind)
    world.land("landing", first)
    world.run_all(world.tick())
    assert world.run("batch", partition=first)
    asked = world.tick()
    assert asked == {"rows": {first}, "totals": {first}}
    world.run_all(asked)
    assert world.tick() == {}


def test_all_of_it_made_by_hand_in_one_run_is_not_made_again() -> None:
    world, (first, *_) = started(arrivals, "daily")
    world.land("landing", first)
    world.run_all(world.tick())
    assert world.run("batch", "rows", "totals", partition=first)
    assert [world.tick(), world.tick()] == [{}, {}]


@two_kinds
def test_nothing_is_asked_for_while_it_or_its_upstream_is_in_progress(kind: str) -> None:
    world, (first, *_) = started(arrivals, kind)
    world.land("landing", first)
    asked = world.tick()
    seen = []
    for name in ("batch", "rows", "totals"):
        world.during[name] = lambda: seen.append(world.tick())
    world.run_all(asked)
    assert seen == [{}, {}, {}]


def test_a_broken_step_is_not_asked_for_without_end() -> None:
    world, (first, *_) = started(arrivals, "daily")
    world.land("landing", first)
    world.broken.add("rows")
    requests = []
    for _ in range(5):
        requests.append(world.tick())
        world.run_all(requests[-1])
    assert requests[-2:] == [{}, {}]


# -- on_closed_partition

FIRST, SECOND = "2013-01-01", "2013-01-02"


@pytest.fixture
def closed() -> Scenario:
    """Two sources and a table, of which the table has landed."""
    world = Scenario(closing)
    assert world.tick() == {}
    world.land("landing/table")
    world.run_all(world.tick())
    return world


def arrive(world: Scenario, *sources: str, partition: str = FIRST) -> None:
    for source in sources:
        world.land(f"landing/{source}", partition)
    asked = world.tick()
    assert asked == {name: {partition} for source in sources for name in (source, f"{source}_rows")}
    world.run_all(asked)


def test_nothing_is_scored_before_the_partition_is_closed_and_all_of_it_once_then(closed: Scenario) -> None:
    arrive(closed, "orders", "weather")
    assert closed.tick() == {}
    closed.land("calendar", FIRST)
    asked = closed.tick()
    assert asked == {"scored": {FIRST}, "performance": {FIRST}}
    closed.run_all(asked)
    assert [closed.tick(), closed.tick()] == [{}, {}]


@pytest.mark.parametrize("silent", ["orders", "weather"])
def test_a_silent_source_holds_nothing_back_and_asks_again_when_it_comes(closed: Scenario, silent: str) -> None:
    (other,) = {"orders", "weather"} - {silent}
    arrive(closed, other)
    closed.land("calendar", FIRST)
    asked = closed.tick()
    assert asked == {"scored": {FIRST}, "performance": {FIRST}}
    closed.run_all(asked)
    closed.land(f"landing/{silent}", FIRST)
    late: dict[str, set[str | None]] = {}
    while found := closed.tick():
        closed.run_all(found)
        late |= found
    assert late == {silent: {FIRST}, f"{silent}_rows": {FIRST}, **asked}


def test_a_partition_without_a_single_row_is_decided_about(closed: Scenario) -> None:
    arrive(closed, "orders", "weather")
    for partition in (FIRST, SECOND):
        closed.land("calendar", partition)
    assert closed.tick() == {"scored": {FIRST, SECOND}, "performance": {FIRST, SECOND}}


def test_what_is_on_its_way_is_waited_for_after_the_closing(closed: Scenario) -> None:
    arrive(closed, "orders")
    closed.land("landing/weather", FIRST)
    assert closed.tick() == {"weather": {FIRST}, "weather_rows": {FIRST}}
    closed.run("weather", partition=FIRST)
    closed.land("calendar", FIRST)
    assert "scored" not in closed.tick()
    closed.run("weather_rows", partition=FIRST)
    assert closed.tick() == {"scored": {FIRST}, "performance": {FIRST}}


def test_a_batch_whose_run_was_killed_before_its_check_is_waited_for(closed: Scenario) -> None:
    arrive(closed, "orders")
    closed.land("landing/weather", FIRST)
    assert closed.tick() == {"weather": {FIRST}, "weather_rows": {FIRST}}
    # All that the killed run has left; its check has no outcome.
    closed.land("weather", FIRST)
    closed.land("calendar", FIRST)
    assert "scored" not in closed.tick()
    closed.run("weather", "weather_rows", partition=FIRST)
    assert closed.tick() == {"scored": {FIRST}, "performance": {FIRST}}


def test_a_rejected_batch_does_not_hold_back_a_closed_partition(closed: Scenario) -> None:
    arrive(closed, "orders")
    closed.green["contract"] = False
    closed.land("landing/weather", FIRST)
    closed.run_all(closed.tick())
    assert closed.tick() == {}
    closed.land("calendar", FIRST)
    assert closed.tick() == {"scored": {FIRST}, "performance": {FIRST}}


def test_scoring_waits_for_a_reference_table(closed: Scenario) -> None:
    world = Scenario(closing)
    world.tick()
    arrive(world, "orders", "weather")
    world.land("calendar", FIRST)
    assert world.tick() == {}
    world.land("landing/table")
    world.run_all({name: {None} for name in ("table", "table_rows")})
    assert world.tick() == {"table": {None}, "table_rows": {None}} | {"scored": {FIRST}, "performance": {FIRST}}


# -- on_decision_time


def test_a_decision_in_its_own_cycle_follows_its_report_and_no_arrival() -> None:
    world = Scenario(own_cycle)
    assert world.tick() == {}
    world.land("scored", FIRST)
    assert world.tick() == {}
    for _ in range(2):
        world.land("due", "2013-01-06")
        asked = world.tick()
        assert asked == {"decision": {"2013-01-06"}}
        world.run_all(asked)
        assert [world.tick(), world.tick()] == [{}, {}]


# -- retrain_is_due


def decide(world: Scenario, due: bool, partition: str | None) -> None:
    world.green["current"] = not due
    assert world.run("decision", partition=partition)


CHAIN = ("data", "model", "verdict")


@each_kind
def test_a_due_retrain_asks_for_the_chain_once_and_the_champion_waits_for_the_verdict(kind: str) -> None:
    world, (first, *_) = started(training, kind)
    decide(world, True, first)
    asked = world.tick()
    assert asked == {name: {first} for name in CHAIN}
    world.run_all(asked)
    assert world.tick() == {"champion": {first}}
    world.run("champion", partition=first)
    assert [world.tick() for _ in range(3)] == [{}, {}, {}]


@two_kinds
def test_a_model_that_is_current_is_left_alone(kind: str) -> None:
    world, (first, *_) = started(training, kind)
    for _ in range(2):
        decide(world, False, first)
        assert world.tick() == {}


@two_kinds
def test_drift_that_persists_asks_again_at_each_decision_and_not_at_each_tick(kind: str) -> None:
    world, (first, *_) = started(training, kind)
    for _ in range(3):
        decide(world, True, first)
        asked = world.tick()
        assert set(asked) >= set(CHAIN)
        world.run_all({name: asked[name] for name in CHAIN})
        world.run_all(world.tick())
        assert [world.tick(), world.tick()] == [{}, {}]


def test_drift_that_persists_asks_again_when_no_tick_came_between() -> None:
    world, _ = started(training, "unpartitioned")
    for _ in range(3):
        decide(world, True, None)
        asked = world.tick()
        assert set(asked) >= set(CHAIN)
        world.run_all({name: asked[name] for name in CHAIN})


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_only_the_drifting_segment_is_trained(kind: str) -> None:
    world, (first, second) = started(training, kind)
    decide(world, True, first)
    decide(world, False, second)
    asked = world.tick()
    assert asked == {name: {first} for name in CHAIN}


def report_and_check_apart(world: Scenario) -> list[object]:
    """A decision whose check runs on its own, so that a tick can land between the two."""

    @dg.asset
    def decision() -> None: ...

    @dg.asset_check(asset=decision, name="current")
    def current() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=world.green.get("current", True))

    return [decision, current, world.asset("data", retrain_is_due(dg.AssetKey("decision")), ["decision"])]


def test_a_segment_that_is_reported_as_due_is_trained_and_promoted_alone() -> None:
    world = Scenario(segment_training)
    assert world.tick() == {}
    world.land("due", "s2")
    asked = world.tick()
    assert asked == {"data": {"s2"}, "model": {"s2"}, "verdict": {"s2"}}
    world.run_all(asked)
    assert world.tick() == {"champion": {"s2"}}
    world.run("champion", partition="s2")
    assert [world.tick() for _ in range(3)] == [{}, {}, {}]


def test_a_segment_that_is_new_and_due_at_once_is_trained() -> None:
    world = Scenario(segment_training)
    assert world.tick() == {}
    world.instance.add_dynamic_partitions(SEGMENTS, ["s3"])
    world.land("due", "s3")
    assert world.tick() == {"data": {"s3"}, "model": {"s3"}, "verdict": {"s3"}}


def test_a_segment_that_is_due_again_while_it_trains_waits_for_its_next_decision() -> None:
    world = Scenario(segment_training)
    world.tick()
    world.land("due", "s1")
    asked = world.tick()
    midway = []
    world.during["data"] = lambda: (world.land("due", "s1"), midway.append(world.tick()))
    world.run_all(asked)
    assert midway == [{}]
    assert "data" not in world.tick()
    world.land("due", "s1")
    assert world.tick()["data"] == {"s1"}


def test_a_tick_between_a_report_and_its_check_does_not_lose_the_retrain() -> None:
    world = Scenario(report_and_check_apart)
    world.tick()
    check = dg.AssetCheckKey(dg.AssetKey("decision"), "current")
    job = world.defs.resolve_implicit_global_asset_job_def()
    job.get_subset(asset_selection={dg.AssetKey("decision")}, asset_check_selection=set()).execute_in_process(
        instance=world.instance
    )
    assert world.tick() == {}
    world.green["current"] = False
    job.get_subset(asset_selection=set(), asset_check_selection={check}).execute_in_process(instance=world.instance)
    assert world.tick() == {"data": {None}}
    world.run("data")
    assert [world.tick(), world.tick()] == [{}, {}]


@two_kinds
def test_a_decision_made_before_a_training_set_was_finished_is_handled_by_it(kind: str) -> None:
    world, (first, *_) = started(training, kind)
    decide(world, True, first)
    asked = world.tick()
    seen = []
    world.during["data"] = lambda: (decide(world, True, first), seen.append(world.tick()))
    world.run_all(asked)
    assert seen == [{}]
    assert world.tick() == {"champion": {first}}


# -- on_new_input


@two_kinds
def test_a_training_set_made_by_hand_is_followed_by_its_model(kind: str) -> None:
    world, (first, *_) = started(training, kind)
    world.run("data", partition=first)
    asked = world.tick()
    assert asked == {"model": {first}, "verdict": {first}}
    world.run_all(asked)
    assert world.tick() == {"champion": {first}}


@two_kinds
def test_a_model_that_is_missing_waits_for_its_training(kind: str) -> None:
    definition, (first, *_) = KINDS[kind]
    world = Scenario(training(definition))
    assert world.run("data", partition=first)
    assert [world.tick(), world.tick()] == [{}, {}]


# -- gate_passed


@two_kinds
@pytest.mark.parametrize("failing", [("better",), ("better", "calibrated")])
def test_a_rejected_challenger_is_not_promoted_and_the_next_one_that_passes_is(kind: str, failing: tuple) -> None:
    world, (first, *_) = started(training, kind)
    world.green |= dict.fromkeys(failing, False)
    decide(world, True, first)
    world.run_all(world.tick())
    assert [world.tick(), world.tick()] == [{}, {}]
    world.green |= dict.fromkeys(failing, True)
    decide(world, True, first)
    world.run_all(world.tick())
    assert world.tick() == {"champion": {first}}
    world.run("champion", partition=first)
    assert [world.tick(), world.tick()] == [{}, {}]


@pytest.mark.parametrize("kind", ["unpartitioned", "static", "dynamic"])
def test_a_verdict_that_passed_while_another_process_looked_is_promoted_at_the_first_look(kind: str) -> None:
    """As when `ct run` died between verdict and promotion and the daemon goes on, or a cursor was lost."""
    definition, partitions = KINDS[kind]
    world, first = Scenario(training(definition)), (partitions or [None])[0]
    world.run("verdict", partition=first)
    assert world.tick() == {"champion": {first}}
    world.run("champion", partition=first)
    assert [world.tick(), world.tick()] == [{}, {}]


def test_a_verdict_that_rejected_while_another_process_looked_asks_for_nothing() -> None:
    world = Scenario(training(None))
    world.green["better"] = False
    world.run("verdict")
    assert [world.tick(), world.tick()] == [{}, {}]


@two_kinds
def test_a_champion_stays_when_a_later_challenger_is_rejected(kind: str) -> None:
    world, (first, *_) = started(training, kind)
    decide(world, True, first)
    world.run_all(world.tick())
    world.run_all(world.tick())
    world.green["better"] = False
    decide(world, True, first)
    world.run_all(world.tick())
    assert [world.tick(), world.tick()] == [{}, {}]


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_one_segment_s_rejection_does_not_stop_another_s_promotion(kind: str) -> None:
    world, (first, second) = started(training, kind)
    world.green["better"] = False
    world.run("verdict", partition=first)
    world.green["better"] = True
    world.run("verdict", partition=second)
    assert world.tick() == {"champion": {second}}


def test_a_verdict_judged_again_and_passed_is_promoted() -> None:
    world, _ = started(training, "unpartitioned")
    world.green["better"] = False
    world.run("verdict")
    assert world.tick() == {}
    world.green["better"] = True
    world.run("verdict")
    assert world.tick() == {"champion": {None}}


def test_a_verdict_that_comes_between_the_request_and_the_next_tick_is_promoted_too() -> None:
    world, _ = started(training, "unpartitioned")
    world.run("verdict")
    assert world.tick() == {"champion": {None}}
    world.run("champion")
    world.run("verdict")
    assert world.tick() == {"champion": {None}}


def test_the_champion_waits_while_a_verdict_is_in_progress() -> None:
    world, _ = started(training, "unpartitioned")
    world.run("verdict")
    seen = []
    world.during["verdict"] = lambda: seen.append(world.tick())
    world.run("verdict")
    assert seen == [{}]
    assert world.tick() == {"champion": {None}}


# -- The real graph

DAY = "2013-01-05"
OUTCOMES = {
    "flight_outcomes",
    *(f"features/{p}_delays" for p in ("origin", "carrier", "destination", "route", "tail", "network")),
}
SCHEDULE = {"flights", "features/route_info", "features/origin_load"}
OBSERVED = {"weather", "features/weather"}
PLANES = {"planes", "features/plane"}
CLOSED = "calendar/flights"
MONITORING = {f"flight_delay/{name}" for name in ("performance", "drift_report", "retrain_decision")}
SCORED = {"flight_delay/scored"}
CHALLENGE = {f"flight_delay/{name}" for name in ("training_set", "challenger", "evaluation")}


@cache
def real_definitions() -> dg.Definitions:
    return defs()


class Graph:
    """The deployment's own definitions of the flights, with events reported and nothing executed."""

    def __init__(self) -> None:
        self.defs = real_definitions()
        self.instance = dg.DagsterInstance.ephemeral()
        self.graph = self.defs.resolve_asset_graph()
        others = dg.AssetSelection.assets("household_power/champion", "repurchase/champion").upstream().downstream()
        self.selection = dg.AssetSelection.all() - others
        self.cursor = None

    def tick(self) -> set[str]:
        result = dg.evaluate_automation_conditions(
            self.defs, self.instance, asset_selection=self.selection, cursor=self.cursor
        )
        self.cursor = result.cursor
        partitions = {p for key in self._keys() for p in result.get_requested_partitions(key)}
        assert partitions <= {DAY, None}
        asked = {key.to_user_string() for key in self._keys() if result.get_requested_partitions(key)}
        return asked

    def land(self, *sources: str) -> None:
        self.report(*(f"landing/{source}" for source in sources))

    def report(self, *names: str, failed: tuple[str, ...] = ()) -> None:
        """Note assets as made, with the result of their checks; those in `failed` fail."""
        # Sources before what is made of them.
        for name in sorted(names, key=lambda name: "/" in name):
            key = dg.AssetKey.from_user_string(name)
            partition = DAY if self.graph.get(key).partitions_def else None
            self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))
            event = self.instance.fetch_materializations(key, limit=1).records[0]
            target = AssetCheckEvaluationTargetMaterializationData(
                storage_id=event.storage_id, run_id=event.run_id, timestamp=event.timestamp
            )
            for check in self.graph.get_check_keys_for_assets({key}):
                spec = self.graph.get_check_spec(check)
                if spec.partitions_def and not spec.blocking:
                    # Dagster takes no second result of a partition without a run, and no condition looks at these.
                    continue
                evaluation = dg.AssetCheckEvaluation(
                    asset_key=key,
                    check_name=check.name,
                    passed=check.name not in failed,
                    metadata={},
                    blocking=spec.blocking,
                    target_materialization_data=target,
                    partition=partition if spec.partitions_def else None,
                )
                self.instance.report_runless_asset_event(evaluation)

    def _keys(self) -> list[dg.AssetKey]:
        return sorted(self.selection.resolve(self.graph))


@pytest.fixture
def graph() -> Graph:
    graph = Graph()
    assert graph.tick() == set()
    return graph


@pytest.mark.parametrize(
    ("landed", "asked"),
    [
        (("flights",), SCHEDULE),
        (("weather",), OBSERVED),
        (("planes",), PLANES),
        (("airports",), {"airports"}),
        (("flight_outcomes",), OUTCOMES),
    ],
)
def test_an_arrival_asks_for_its_own_rows_and_features_only(graph: Graph, landed: tuple, asked: set) -> None:
    graph.land(*landed)
    assert graph.tick() == asked


def test_a_whole_day_asks_for_everything_up_to_the_decision_once_it_is_closed(graph: Graph) -> None:
    graph.land("flights", "weather", "flight_outcomes", "planes", "airports")
    assert graph.tick() == SCHEDULE | OBSERVED | OUTCOMES | PLANES | {"airports"}
    graph.report(*SCHEDULE, *OBSERVED, *OUTCOMES, *PLANES)
    assert graph.tick() == set()
    graph.report(CLOSED)
    assert graph.tick() == SCORED | MONITORING


@pytest.mark.parametrize("last", [SCHEDULE, PLANES, OBSERVED], ids=lambda names: min(names, key=len))
def test_scoring_waits_for_the_last_of_its_features_that_is_on_its_way(graph: Graph, last: set[str]) -> None:
    graph.report(*((SCHEDULE | PLANES | OUTCOMES | OBSERVED) - last), CLOSED)
    graph.report(*(name for name in last if "/" not in name))
    assert not graph.tick() & (SCORED | MONITORING)
    graph.report(*(name for name in last if "/" in name))
    assert graph.tick() >= SCORED | MONITORING


@pytest.mark.parametrize("silent", [SCHEDULE, OBSERVED, OUTCOMES], ids=lambda names: min(names, key=len))
def test_a_closed_day_is_decided_about_without_a_silent_source(graph: Graph, silent: set[str]) -> None:
    graph.report(*((SCHEDULE | PLANES | OUTCOMES | OBSERVED) - silent), CLOSED)
    assert graph.tick() == SCORED | MONITORING


def test_a_reference_table_that_lands_again_scores_no_past_day_anew(graph: Graph) -> None:
    graph.report(*SCHEDULE, *OBSERVED, *OUTCOMES, *PLANES, CLOSED)
    assert graph.tick() == SCORED | MONITORING
    graph.report(*SCORED, *MONITORING)
    assert graph.tick() == set()
    graph.land("planes")
    assert graph.tick() == PLANES
    graph.report(*PLANES)
    assert [graph.tick(), graph.tick()] == [set(), set()]
    graph.report("features/route_info")
    assert graph.tick() == SCORED | MONITORING


def made(graph: Graph, *names: str, failed: tuple[str, ...] = ()) -> set[str]:
    graph.report(*names, failed=failed)
    return graph.tick()


@pytest.mark.parametrize(
    ("made_now", "failed", "asked"),
    [
        (("flight_delay/retrain_decision",), (), set()),
        (("flight_delay/retrain_decision",), ("model_is_current",), CHALLENGE),
        (("flight_delay/drift_report",), ("no_drift",), set()),
        (("flight_delay/training_set",), (), {"flight_delay/challenger", "flight_delay/evaluation"}),
        (("flight_delay/evaluation",), (), {"flight_delay/champion"}),
        (("flight_delay/champion",), (), set()),
    ],
)
def test_what_a_model_s_own_events_ask_for(graph: Graph, made_now: tuple, failed: tuple, asked: set) -> None:
    assert made(graph, *made_now, failed=failed) == asked
    assert graph.tick() == set()


def test_any_failed_check_of_the_gate_stops_the_promotion() -> None:
    key = dg.AssetKey.from_user_string("flight_delay/evaluation")
    graph = Graph()
    graph.tick()
    names = (*CHECK_NAMES, MAY_BE_PROMOTED)
    assert {c.name for c in graph.graph.get_check_keys_for_assets({key})} == set(names)
    for name in names:
        assert made(graph, "flight_delay/evaluation", failed=(name,)) == set(), name
    assert made(graph, "flight_delay/evaluation") == {"flight_delay/champion"}
