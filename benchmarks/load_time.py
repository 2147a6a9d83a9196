"""Claim: the code location loads in under two seconds.

Dagster loads the definitions in every process that it starts (code server, run worker, daemon), so what is imported
there and not needed is paid for at every start. The tables show which import lines cost most.
"""

import argparse
import re
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

from rich.table import Table

from benchmarks._claim import CHECKOUT, Claim, publish, table

GOAL_SECONDS = 2.0
OURS = ("ct_assets", "feature_repo")
LOAD = "from ct_assets.definitions import defs; defs().get_repository_def()"
SHOWN = 12
_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|( +)(\S+)")


@dataclass
class Import:
    """One module that was imported, and what imported it.

    Attributes:
        name: The module.
        own: Seconds spent in the module itself.
        total: Seconds with everything that it imported first.
        parent: The module that was being imported; None at the top.
    """

    name: str
    own: float
    total: float
    parent: "Import | None" = field(default=None, repr=False)

    @property
    def package(self) -> str:
        """The top-level package."""
        return self.name.partition(".")[0]

    @property
    def ours(self) -> "Import | None":
        """The nearest module of this project that it was imported for."""
        above = self.parent
        while above is not None and above.package not in OURS:
            above = above.parent
        return above


def parse(log: str) -> list[Import]:
    """What `python -X importtime` wrote, outermost imports first.

    The log has a module after everything that it imported, two spaces deeper; read backwards, each comes before them.
    """
    found: list[Import] = []
    path: list[Import] = []
    for own, total, indent, name in reversed(_LINE.findall(log)):
        depth = len(indent) // 2
        del path[depth:]
        found.append(Import(name, int(own) / 1e6, int(total) / 1e6, path[-1] if path else None))
        path.append(found[-1])
    return found


def by_package(imports: list[Import]) -> list[tuple[str, int, float]]:
    """Each top-level package with its number of modules and the seconds spent in them, the most expensive first."""
    seconds: dict[str, list[float]] = {}
    for each in imports:
        seconds.setdefault(each.package, []).append(each.own)
    return sorted(((name, len(own), sum(own)) for name, own in seconds.items()), key=lambda row: -row[2])


def by_line(imports: list[Import]) -> list[tuple[str, str, float]]:
    """Each import line of this project that brought something in, with the seconds, the most expensive first."""
    direct = [i for i in imports if i.package not in OURS and i.parent is not None and i.parent.package in OURS]
    return sorted(((i.parent.name, i.name, i.total) for i in direct if i.parent), key=lambda row: -row[2])


def measure(repetitions: int) -> tuple[Claim, list[Table]]:
    """Load the definitions in fresh processes.

    Args:
        repetitions: How many processes, after one that warms the file cache.
    """
    wall, cpu = zip(*[_load() for _ in range(repetitions + 1)][1:], strict=True)
    bare = statistics.median(_load("pass")[0] for _ in range(repetitions))
    log = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", LOAD], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True, check=True
    ).stderr
    imports = parse(log)
    seconds = statistics.median(wall)
    figures = {
        "load_seconds": round(seconds, 3),
        "fastest_seconds": round(min(wall), 3),
        "cpu_seconds": round(statistics.median(cpu), 3),
        "bare_interpreter_seconds": round(bare, 3),
        "modules": len(imports),
    }
    claim = Claim("load_time", figures, f"load_seconds < {GOAL_SECONDS:g}", seconds < GOAL_SECONDS)
    packages = [(name, count, own) for name, count, own in by_package(imports)[:SHOWN]]
    return claim, [
        table("Loading the definitions, seconds", ("figure", "value"), list(figures.items())),
        table("Where the time goes", ("package", "modules", "own seconds"), packages),
        table("Import lines that cost most", ("in", "import of", "seconds"), by_line(imports)[:SHOWN]),
    ]


def _load(code: str = LOAD) -> tuple[float, float]:
    """Wall and CPU seconds of a fresh process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    publish(*measure(parser.parse_args().repetitions))
