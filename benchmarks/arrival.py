"""Claim: the 3,000th day of a small model costs what its 30th costs: CPU, bytes read and memory, at every stage.

A model of 48 rows a day, without Dagster around it. Histories of each length are made once, by the platform's own
writes. One process each then takes turns with the others in working off one more day, so that a slow spell of the
machine hits all alike. Figures are medians over the days.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from benchmarks._claim import Claim, Figure, publish, table

if TYPE_CHECKING:
    from benchmarks._small_model import Plant

TRAINED, FIRST_DAYS = 14, 30
GOAL_RATIO, GOAL_CPU = 1.2, 0.4
SMALLEST = 0.003
"""CPU seconds below which two figures of a stage are the same."""
MEGABYTE = 1e6


@dataclass(frozen=True)
class Cost:
    """What a stage of a day cost: CPU seconds and bytes read."""

    cpu: float
    read: int


def bytes_read() -> int:
    """What this process has read so far, from the disk or its cache."""
    return int(Path("/proc/self/io").read_text().split()[1])


def resident() -> int:
    """Memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def measured(costs: dict[str, Cost], stage: str) -> Iterator[None]:
    """Note what a stage costs."""
    cpu, read = time.process_time(), bytes_read()
    yield
    costs[stage] = Cost(time.process_time() - cpu, bytes_read() - read)


@contextmanager
def unmeasured(stage: str) -> Iterator[None]:  # noqa: ARG001  the signature of a measure
    """A stage that nobody measures."""
    yield


def begin(home: Path) -> "Plant":
    """A model whose first days went through the platform, with a champion."""
    from benchmarks._small_model import Plant, partition, run_day

    plant = Plant(home)
    for number in range(FIRST_DAYS):
        run_day(plant, number, unmeasured)
        if number + 1 == TRAINED:
            plant.train(partition(number))
    return plant


def work(home: Path, day: int, asked: Connection) -> None:
    """Work off one day after the other as asked, and answer with what each cost and the memory in use."""
    from benchmarks._small_model import Plant, run_day
    from ct_assets.demo.driving import quiet

    quiet()
    plant = Plant(home)
    while asked.recv():
        costs: dict[str, Cost] = {}
        run_day(plant, day, partial(measured, costs))
        day += 1
        asked.send((costs, resident()))


def measure(lengths: Sequence[int], days: int) -> tuple[Claim, list[Table]]:
    """Compare a day's costs after histories of these lengths, over so many days."""
    from ct_assets.demo.driving import quiet

    quiet()
    context = get_context("spawn")
    costs: dict[int, list[dict[str, Cost]]] = defaultdict(list)
    memory: dict[int, list[int]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="ct-bench-", ignore_cleanup_errors=True) as folder:
        # The champion's artifact stays where it was made.
        made = Path(folder, "made")
        made.mkdir()
        plant, made_days = begin(made), FIRST_DAYS
        workers = {}
        for length in sorted(lengths):
            plant.fabricate(FIRST_DAYS - 1, made_days, length)
            made_days = length
            home = Path(folder, str(length))
            shutil.copytree(made, home)
            workers[length], theirs = context.Pipe()
            context.Process(target=work, args=(home, length, theirs), daemon=True).start()
        for number in range(days + 2):
            for length, asked in workers.items():
                asked.send(True)
                found, resident_bytes = asked.recv()
                # The first days also import and open what the others use.
                if number > 1:
                    costs[length].append(found)
                    memory[length].append(resident_bytes)
        for asked in workers.values():
            asked.send(False)
    return _claim(costs, memory)


def _claim(costs: dict[int, list[dict[str, Cost]]], memory: dict[int, list[int]]) -> tuple[Claim, list[Table]]:
    lengths = sorted(costs)
    first, last = lengths[0], lengths[-1]
    stages = list(costs[first][0])
    cpu = {n: {s: statistics.median(day[s].cpu for day in costs[n]) for s in stages} for n in lengths}
    read = {n: {s: statistics.median(day[s].read for day in costs[n]) for s in stages} for n in lengths}
    for figures_of in (cpu, read):
        for each in figures_of.values():
            each["all"] = sum(each.values())
    resident_of = {n: statistics.median(memory[n]) for n in lengths}
    grown = [s for s in cpu[first] if cpu[last][s] > GOAL_RATIO * cpu[first][s] + SMALLEST]
    ratios = {
        "cpu_ratio": cpu[last]["all"] / cpu[first]["all"],
        "read_ratio": read[last]["all"] / max(read[first]["all"], 1),
        "memory_ratio": resident_of[last] / resident_of[first],
    }
    figures: dict[str, Figure] = {
        "days": last,
        "repetitions": len(costs[first]),
        "cpu_seconds": round(cpu[last]["all"], 3),
        "read_mb": round(read[last]["all"] / MEGABYTE, 3),
        "memory_mb": round(resident_of[last] / MEGABYTE),
        **{name: round(ratio, 2) for name, ratio in ratios.items()},
        "grown_stages": ", ".join(grown),
    }
    times = table(
        "CPU seconds of one more day after so many",
        ("stage", *map(str, lengths), "ratio"),
        [(s, *(cpu[n][s] for n in lengths), cpu[last][s] / cpu[first][s]) for s in cpu[first]],
    )
    reads = table(
        "Megabytes read",
        ("stage", *map(str, lengths)),
        [(s, *(read[n][s] / MEGABYTE for n in lengths)) for s in read[first]]
        + [("memory in use", *(resident_of[n] / MEGABYTE for n in lengths))],
    )
    goal = f"every stage, bytes read and memory <= {GOAL_RATIO:g} times day {first}; <= {GOAL_CPU:g} CPU seconds in all"
    ok = not grown and max(ratios.values()) <= GOAL_RATIO and cpu[last]["all"] <= GOAL_CPU
    return Claim("arrival", figures, goal, ok), [times, reads]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[30, 300, 1000, 3000], help="days of history")
    parser.add_argument("--days", type=int, default=15, help="how many more days to measure")
    chosen = parser.parse_args()
    publish(*measure(chosen.lengths, chosen.days))
