"""Claim: pooled SQLite storages and no output capture make small runs and automation ticks at least twice as fast.

The peer is what `dagster dev` uses when nothing is configured: SqliteRunStorage, SqliteEventLogStorage (one file a
run) and LocalComputeLogManager (processes that follow each captured stream). Ours is the demo's instance. A third
instance, the stock storages without capture, tells how much of it is due to which.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from rich.table import Table

from benchmarks._claim import Claim, Figure, alternating, publish, table
from ct_assets.demo.driving import quiet
from ct_assets.lib.instance import open_instance

GOAL_RATIO = 2.0
STOCK, UNCAPTURED, POOLED = "stock", "uncaptured", "pooled"
NO_CAPTURE = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
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
    """Let `days` days arrive on every instance, turn by turn; one more day before warms them up."""
    quiet()
    partitions = DAYS.get_partition_keys()
    with tempfile.TemporaryDirectory(prefix="ct-bench-", ignore_cleanup_errors=True) as folder:
        arms = {
            STOCK: Arm(_stock(Path(folder, STOCK))),
            UNCAPTURED: Arm(_stock(Path(folder, UNCAPTURED), compute_logs=NO_CAPTURE)),
            POOLED: Arm(open_instance(Path(folder, POOLED))),
        }
        requested: dict[str, list[int]] = {name: [] for name in arms}
        for i, name in enumerate(alternating(list(arms), days + 1)):
            requested[name].append(arms[name].day(partitions[i // len(arms)]))
        for arm in arms.values():
            arm.instance.dispose()
    for arm in arms.values():
        for seconds in arm.seconds.values():
            del seconds[0]
    return _claim(arms, all(counts == requested[STOCK] for counts in requested.values()), days)


def _stock(folder: Path, **overrides: Any) -> dg.DagsterInstance:
    folder.mkdir()
    return dg.DagsterInstance.from_ref(
        InstanceRef.from_dir(str(folder), overrides={"telemetry": {"enabled": False}} | overrides)
    )


def _claim(arms: dict[str, Arm], same_requests: bool, days: int) -> tuple[Claim, list[Table]]:
    median = {name: {what: arm.median(what) for what in ("run", "tick")} for name, arm in arms.items()}
    for both in median.values():
        both["run and tick"] = both["run"] + both["tick"]
    ratios = {what: seconds / median[POOLED][what] for what, seconds in median[STOCK].items()}
    storage = {what: seconds / median[POOLED][what] for what, seconds in median[UNCAPTURED].items()}
    figures: dict[str, Figure] = {
        "days": days,
        **{f"{name}_{what}_seconds": round(arms[name].median(what), 4) for name in arms for what in ("run", "tick")},
        "run_ratio": round(ratios["run"], 2),
        "tick_ratio": round(ratios["tick"], 2),
        "ratio": round(ratios["run and tick"], 2),
        "ratio_without_capture": round(storage["run and tick"], 2),
        "same_requests": same_requests,
    }
    ok = same_requests and ratios["run and tick"] >= GOAL_RATIO
    rows = [(what, *(median[name][what] for name in arms), ratios[what], storage[what]) for what in ratios]
    columns = ("", "Dagster's stock", "stock, no capture", "ours", "ratio", "of the storages alone")
    shown = table(f"Medians over {days} days, seconds", columns, rows)
    return Claim("dagster_storage", figures, f"ratio >= {GOAL_RATIO:g}, with the same requests", ok), [shown]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=40)
    publish(*measure(parser.parse_args().days))
