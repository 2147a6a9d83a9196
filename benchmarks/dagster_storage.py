"""Claim: pooled SQLite storages and no output capture make small runs and automation ticks at least twice as fast.

The peer is what `dagster dev` uses when nothing is configured: SqliteRunStorage, SqliteEventLogStorage (one file a
run) and LocalComputeLogManager (a process for each captured stream). Ours is the demo's instance.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from rich.table import Table

from benchmarks._claim import Claim, Figure, alternating, publish, table
from ct_assets.demo.driving import quiet
from ct_assets.lib.driver import open_instance

GOAL_RATIO = 2.0
STOCK, POOLED = "stock", "pooled"
DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2014-01-01")


@dg.asset(partitions_def=DAYS)
def arrived() -> None:
    """What comes from outside."""


@dg.asset(partitions_def=DAYS, deps=[arrived], automation_condition=dg.AutomationCondition.eager())
def prepared() -> None:
    """A step that does nothing."""


@dg.asset(partitions_def=DAYS, deps=[prepared], automation_condition=dg.AutomationCondition.eager())
def judged() -> None:
    """Another step that does nothing."""


class Arm:
    """One instance, on which day after day arrives, is requested and is run.

    Args:
        instance: The Dagster instance whose storage is measured.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.defs = dg.Definitions(assets=[arrived, prepared, judged], executor=dg.in_process_executor)
        self.job = self.defs.resolve_implicit_global_asset_job_def().get_subset(
            asset_selection={prepared.key, judged.key}
        )
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        # Conditions remember from their first evaluation on.
        self.cursor = dg.evaluate_automation_conditions(self.defs, instance).cursor

    def day(self, partition: str) -> int:
        """One arrival, one tick and one run; gives the number of assets that the tick requested."""
        self.instance.report_runless_asset_event(dg.AssetMaterialization(arrived.key, partition=partition))
        started = time.perf_counter()
        tick = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self.cursor)
        self.cursor = tick.cursor
        ticked = time.perf_counter()
        result = self.job.execute_in_process(instance=self.instance, partition_key=partition)
        self.seconds["tick"].append(ticked - started)
        self.seconds["run"].append(time.perf_counter() - ticked)
        assert result.success
        return tick.total_requested

    def median(self, what: str) -> float:
        """Median seconds of a `tick` or a `run`."""
        return statistics.median(self.seconds[what])


def measure(days: int) -> tuple[Claim, list[Table]]:
    """Let `days` days arrive on both instances, turn by turn; one more day before warms both up."""
    quiet()
    partitions = DAYS.get_partition_keys()
    with tempfile.TemporaryDirectory(prefix="ct-bench-", ignore_cleanup_errors=True) as folder:
        stock = InstanceRef.from_dir(folder, overrides={"telemetry": {"enabled": False}})
        arms = {
            STOCK: Arm(dg.DagsterInstance.from_ref(stock)),
            POOLED: Arm(open_instance(Path(folder, POOLED))),
        }
        requested: dict[str, list[int]] = {STOCK: [], POOLED: []}
        for i, name in enumerate(alternating(list(arms), days + 1)):
            requested[name].append(arms[name].day(partitions[i // len(arms)]))
        for arm in arms.values():
            arm.instance.dispose()
    for arm in arms.values():
        for seconds in arm.seconds.values():
            del seconds[0]
    return _claim(arms, requested[STOCK] == requested[POOLED], days)


def _claim(arms: dict[str, Arm], same_requests: bool, days: int) -> tuple[Claim, list[Table]]:
    median = {name: {what: arm.median(what) for what in ("run", "tick")} for name, arm in arms.items()}
    ratios = {what: median[STOCK][what] / median[POOLED][what] for what in ("run", "tick")}
    whole = sum(median[STOCK].values()) / sum(median[POOLED].values())
    figures: dict[str, Figure] = {
        "days": days,
        **{f"{name}_{what}_seconds": round(s, 4) for name, both in median.items() for what, s in both.items()},
        "run_ratio": round(ratios["run"], 2),
        "tick_ratio": round(ratios["tick"], 2),
        "ratio": round(whole, 2),
        "same_requests": same_requests,
    }
    ok = same_requests and whole >= GOAL_RATIO
    rows: list[tuple[object, ...]] = [
        (what, median[STOCK][what], median[POOLED][what], ratios[what]) for what in ratios
    ]
    rows.append(("run and tick", sum(median[STOCK].values()), sum(median[POOLED].values()), whole))
    shown = table(f"Medians over {days} days, seconds", ("", "Dagster's stock", "ours", "ratio"), rows)
    return Claim("dagster_storage", figures, f"ratio >= {GOAL_RATIO:g}, with the same requests", ok), [shown]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=40)
    publish(*measure(parser.parse_args().days))
