"""A tiny graph with a clock that ticks when told to: what is requested after which event."""

from collections.abc import Callable, Mapping, Sequence

import dagster as dg

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

DAILY = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-01-04")
STATIC = dg.StaticPartitionsDefinition(["a", "b", "c"])
SEGMENTS = "segments"
DYNAMIC = dg.DynamicPartitionsDefinition(name=SEGMENTS)

KINDS: dict[str, tuple[dg.PartitionsDefinition | None, list[str | None]]] = {
    "unpartitioned": (None, [None]),
    "daily": (DAILY, ["2013-01-01", "2013-01-02"]),
    "static": (STATIC, ["a", "b"]),
    "dynamic": (DYNAMIC, ["s1", "s2"]),
}

Requests = dict[str, set[str | None]]


class Scenario:
    """Definitions on an instance in memory.

    Attributes:
        green: Check name to whether it passes in the next run; those not named pass.
        during: Called in the body of the asset of that name.
        broken: Assets whose next run raises.
    """

    def __init__(self, build: Callable[["Scenario"], list[object]], segments: list[str] | None = None) -> None:
        self.green: dict[str, bool] = {}
        self.during: dict[str, Callable[[], object]] = {}
        self.broken: set[str] = set()
        self.instance = dg.DagsterInstance.ephemeral()
        self.instance.add_dynamic_partitions(SEGMENTS, segments if segments is not None else ["s1", "s2"])
        self.defs = dg.Definitions(assets=build(self))  # type: ignore[arg-type]
        self._job = self.defs.resolve_implicit_global_asset_job_def()
        self._cursor = None

    def tick(self) -> Requests:
        """Evaluate every condition once."""
        result = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self._cursor)
        self._cursor = result.cursor
        keys = self.defs.resolve_asset_graph().get_all_asset_keys()
        found = {key.to_user_string(): set(result.get_requested_partitions(key)) for key in keys}
        return {name: partitions for name, partitions in found.items() if partitions}

    def land(self, name: str, partition: str | None = None) -> None:
        """Report something as the arrival sensor does."""
        key = dg.AssetKey.from_user_string(name)
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))

    def run(self, *names: str, partition: str | None = None) -> bool:
        """Execute one run of these assets; tell whether it succeeded."""
        job = self._job.get_subset(asset_selection={dg.AssetKey(name) for name in names})
        return job.execute_in_process(instance=self.instance, partition_key=partition, raise_on_error=False).success

    def run_all(self, requests: Mapping[str, set[str | None]]) -> None:
        """Execute what a tick requested, one run for each partition."""
        for partition in sorted({p for partitions in requests.values() for p in partitions}, key=str):
            self.run(*(name for name, partitions in requests.items() if partition in partitions), partition=partition)

    def asset(
        self,
        name: str,
        condition: dg.AutomationCondition | None,
        deps: Sequence[str | dg.AssetKey],
        partitions: dg.PartitionsDefinition | None = None,
        checks: tuple[str, ...] = (),
        blocking: bool = False,
    ) -> dg.AssetsDefinition:
        """An asset that does nothing but yield its checks."""
        specs = [dg.AssetCheckSpec(check, asset=name, blocking=blocking, partitions_def=partitions) for check in checks]

        @dg.asset(
            name=name, deps=deps, partitions_def=partitions, automation_condition=condition, check_specs=specs or None
        )
        def body() -> dg.MaterializeResult:
            if action := self.during.pop(name, None):
                action()
            if name in self.broken:
                raise RuntimeError(f"{name} is broken")
            results = [dg.AssetCheckResult(check_name=c, passed=self.green.get(c, True)) for c in checks]
            return dg.MaterializeResult(check_results=results)

        return body


def arrivals(partitions: dg.PartitionsDefinition | None) -> Callable[[Scenario], list[object]]:
    """landing -> batch (blocking contract) -> rows -> totals."""

    def build(world: Scenario) -> list[object]:
        return [
            dg.AssetSpec("landing", partitions_def=partitions),
            world.asset("batch", on_arrival(), ["landing"], partitions, ("contract",), blocking=True),
            world.asset("rows", on_accepted_data(), ["batch"], partitions),
            world.asset("totals", on_accepted_data(), ["rows"], partitions),
        ]

    return build


CALENDAR = dg.AssetKey("calendar")


def closing(world: Scenario) -> list[object]:
    """Two sources and a reference table -> scored -> performance, once the partition is closed."""
    table = dg.AssetKey("table_rows")
    assets: list[object] = [
        dg.AssetSpec("calendar", partitions_def=DAILY),
        dg.AssetSpec(["landing", "table"]),
        world.asset("table", on_arrival(), [dg.AssetKey(["landing", "table"])]),
        world.asset("table_rows", on_accepted_data(), ["table"]),
    ]
    for name in ("orders", "weather"):
        assets += [
            dg.AssetSpec(["landing", name], partitions_def=DAILY),
            world.asset(name, on_arrival(), [dg.AssetKey(["landing", name])], DAILY, ("contract",), blocking=True),
            world.asset(f"{name}_rows", on_accepted_data(), [name], DAILY),
        ]
    inputs = ["orders", "orders_rows", "weather_rows", "table_rows", "calendar"]
    scored = on_closed_partition(CALENDAR, [dg.AssetKey(name) for name in inputs[:3]], reference=[table])
    watched = on_closed_partition(CALENDAR, [dg.AssetKey("weather")], [dg.AssetKey("scored")])
    return [
        *assets,
        world.asset("scored", scored, inputs, DAILY),
        world.asset("performance", watched, ["scored", "weather", "calendar"], DAILY),
    ]


def own_cycle(world: Scenario) -> list[object]:
    """A decision in a cycle of its own, which looks at all of history."""
    weeks = dg.WeeklyPartitionsDefinition("2013-01-06", timezone="Europe/Berlin", end_date="2013-02-03")
    history = dg.AssetDep("scored", partition_mapping=dg.AllPartitionMapping())

    @dg.asset(deps=[history, "due"], partitions_def=weeks, automation_condition=on_decision_time(dg.AssetKey("due")))
    def decision() -> None: ...

    return [dg.AssetSpec("scored", partitions_def=DAILY), dg.AssetSpec("due", partitions_def=weeks), decision]


def training(partitions: dg.PartitionsDefinition | None) -> Callable[[Scenario], list[object]]:
    """decision (its check tells whether a retrain is due) -> data -> model -> verdict (gate) -> champion."""

    def build(world: Scenario) -> list[object]:
        return [
            world.asset("decision", None, [], partitions, ("current",)),
            world.asset("data", retrain_is_due(dg.AssetKey("decision")), ["decision"], partitions),
            world.asset("model", on_new_input(), ["data"], partitions),
            world.asset("verdict", on_new_input(), ["model"], partitions, ("better", "calibrated")),
            world.asset("champion", gate_passed(), ["verdict"], partitions),
        ]

    return build


def segment_training(world: Scenario) -> list[object]:
    """due (reported by segment) -> data -> model -> verdict (gate) -> champion."""
    return [
        dg.AssetSpec("due", partitions_def=DYNAMIC),
        world.asset("data", segment_retrain_is_due(), ["due"], DYNAMIC),
        world.asset("model", on_new_input(), ["data"], DYNAMIC),
        world.asset("verdict", on_new_input(), ["model"], DYNAMIC, ("better", "calibrated")),
        world.asset("champion", gate_passed(), ["verdict"], DYNAMIC),
    ]
