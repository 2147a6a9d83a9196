"""Claim: with 200 segments, definitions load in under three seconds and an idle automation tick takes under two.

The deployment's own segmented model on a Dagster instance of its own, in which every segment has been decided about,
trained, judged and promoted, as the daemon would find it. A tick is Dagster's own evaluation of all of the model's
conditions; the first one of a process also reads the state of the instance, the others find nothing to do.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from rich.table import Table

from benchmarks._claim import Claim, Figure, publish, table
from benchmarks.load_time import _load
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.verdict import CHECK_NAMES
from ct_assets.definitions import defs
from ct_assets.defs.models import load_specs
from ct_assets.lib.instance import open_instance
from ct_assets.lib.model_assets import RETRAIN_DUE, lines_of, model_key

GOAL_LOAD, GOAL_TICK = 3.0, 2.0
DAYS = 60


def measure(segments: int, repetitions: int) -> tuple[Claim, list[Table]]:
    """Fill an instance with segments, and time ticks and loads.

    Args:
        segments: How many.
        repetitions: Idle ticks, and loads in fresh processes, of which the medians count.
    """
    spec = next(spec for spec in load_specs().values() if spec.segment_by)
    with tempfile.TemporaryDirectory(prefix="ct-bench-") as home:
        first, idle = _ticks(Path(home), spec, segments, repetitions)
    load = statistics.median(_load()[0] for _ in range(repetitions))
    tick = statistics.median(idle)
    figures: dict[str, Figure] = {
        "segments": segments,
        "load_seconds": round(load, 3),
        "idle_tick_seconds": round(tick, 3),
        "first_tick_seconds": round(first, 3),
    }
    goal = f"load_seconds < {GOAL_LOAD:g} and idle_tick_seconds < {GOAL_TICK:g}"
    claim = Claim("segments", figures, goal, load < GOAL_LOAD and tick < GOAL_TICK)
    return claim, [table(f"{spec.name} with {segments} segments", ("figure", "value"), list(figures.items()))]


def _ticks(home: Path, spec: ModelSpec, segments: int, repetitions: int) -> tuple[float, list[float]]:
    deployed, seconds, cursor = defs(), [], None
    with open_instance(home) as instance:
        _fill(instance, deployed, spec, segments)
        for _ in range(repetitions + 1):
            started = time.perf_counter()
            selection = dg.AssetSelection.groups(spec.name)
            result = dg.evaluate_automation_conditions(deployed, instance, selection, cursor=cursor)
            seconds.append(time.perf_counter() - started)
            cursor = result.cursor
        if result.total_requested:
            raise AssertionError(f"an idle tick asked for {result.total_requested} partitions")
    return seconds[0], seconds[1:]


def _fill(instance: dg.DagsterInstance, deployed: dg.Definitions, spec: ModelSpec, segments: int) -> None:
    """Report what would have happened: days of decisions, and a promotion in each segment."""
    lines = [Line(spec.name), *(Line(spec.name, f"segment {number:03}") for number in range(segments))]
    instance.add_dynamic_partitions(str(lines_of(spec).name), [line.partition for line in lines])
    graph = deployed.resolve_asset_graph()
    scored = model_key(spec, "scored")
    days = graph.get(scored).partitions_def
    assert days is not None
    daily = [*graph.get(scored).parent_keys, *_of(spec, "scored", "performance", "drift_report", "retrain_decision")]
    for day in days.get_partition_keys()[:DAYS]:
        for key in daily:
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day))
    for line in lines:
        for key in _of(spec, RETRAIN_DUE, "training_set", "challenger", "evaluation"):
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=line.partition))
        for check in CHECK_NAMES:
            (evaluation,) = _of(spec, "evaluation")
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    check_name=check, asset_key=evaluation, passed=True, metadata={}, partition=line.partition
                )
            )
        for key in _of(spec, "champion"):
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=line.partition))


def _of(spec: ModelSpec, *assets: str) -> Iterator[dg.AssetKey]:
    return (model_key(spec, asset) for asset in assets)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    publish(*measure(arguments.segments, arguments.repetitions))
