"""Claim: the platform costs at most three times what a bare script of the same stages costs.

The peer is `_bare_loop.py`: the same features, scoring, drift, trainings and gate on the same days, called one after
the other, told by the demo's ledger when to train. The demo runs without its last stage, the comparison with a static
and a monthly model. Each side is a process of its own with a fresh home; times include its start. The demo works in two
processes, so the ratio of CPU times is the one to go by where a machine has one core only; both have to hold.

Only equal results count: the same models byte by byte, the same verdicts, the same scored rows.
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from rich.table import Table

from benchmarks._claim import CHECKOUT, Claim, Figure, alternating, publish, table

GOAL_RATIO = 3.0
DEMO, BARE = "demo", "bare"
PLAN = "plan.json"
OWN_IMPORTS = "own_imports.json"


def run_demo_loop(home: Path, days: int) -> None:
    """The demo up to, and without, its comparison stage."""
    from io import StringIO

    from rich.console import Console

    from ct_assets.demo.driving import quiet
    from ct_assets.demo.examples import DEFAULT, example_of
    from ct_assets.demo.run import Loop, recorded_days

    quiet()
    example = example_of(DEFAULT)
    Loop(home, example, recorded_days(example, days), faults=True, console=Console(file=StringIO())).run("")


def run_bare_loop(home: Path, days: int) -> None:
    """The script. What Dagster's import costs is noted, since a script that is not part of this package has none."""
    from ct_assets.demo.driving import quiet
    from ct_assets.demo.examples import DEFAULT, example_of
    from ct_assets.demo.run import recorded_days

    quiet()
    # Imported for the time that it takes: every script of these stages pays for it.
    import duckdb  # noqa: F401
    import feast  # noqa: F401
    import pandera.pandas  # noqa: F401
    import sklearn  # noqa: F401

    wall, cpu = time.perf_counter(), time.process_time()
    import dagster  # noqa: F401, ICN001

    own = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    (home / OWN_IMPORTS).write_text(json.dumps(own))
    from benchmarks._bare_loop import BareLoop, read_plan

    loop = BareLoop(home, read_plan(home / PLAN))
    for day in recorded_days(example_of(DEFAULT), days):
        loop.day(day)


ARMS: dict[str, Callable[[Path, int], None]] = {DEMO: run_demo_loop, BARE: run_bare_loop}


def measure(days: int, repetitions: int) -> tuple[Claim, list[Table]]:
    """Run both sides `repetitions` times, turn by turn, and compare times and results."""
    from benchmarks._bare_loop import write_plan
    from ct_assets.demo.driving import quiet

    quiet()
    wall: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    results: list[dict[str, list[str]]] = []
    with tempfile.TemporaryDirectory(prefix="ct-bench-", ignore_cleanup_errors=True) as folder:
        plan = Path(folder, PLAN)
        for i, arm in enumerate(alternating([DEMO, BARE], repetitions)):
            home = Path(folder, f"{i}-{arm}")
            home.mkdir()
            if arm == BARE:
                (home / PLAN).write_bytes(plan.read_bytes())
            seconds = _timed(arm, home, days)
            wall[arm].append(seconds[0])
            cpu[arm].append(seconds[1])
            if not plan.exists():
                write_plan(home, plan)
            results.append(outcome(home))
    return _claim(days, wall, cpu, results)


def _timed(arm: str, home: Path, days: int) -> tuple[float, float]:
    """Wall and CPU seconds of one side, with all processes that it starts."""
    command = [sys.executable, "-m", "benchmarks.loop", "--arm", arm, "--home", str(home), "--days", str(days)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode:
        raise RuntimeError(f"the {arm} side of the loop failed after {wall:.0f} seconds:\n{ran.stderr[-3000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    note = home / OWN_IMPORTS
    own = json.loads(note.read_text()) if note.exists() else {"wall": 0.0, "cpu": 0.0}
    return wall - own["wall"], cpu - own["cpu"]


def outcome(home: Path) -> dict[str, list[str]]:
    """What one side came to: digests of its models, verdicts, champions and scored rows."""
    from ct_assets.core.ledger import Ledger
    from ct_assets.defs.models.flight_delay.spec import SPEC
    from ct_assets.lake.dataset import to_parquet
    from ct_assets.lake.engine import quoted
    from ct_assets.lake.examples import scored_name
    from ct_assets.lake.lake import Lake, Window

    ledger = Ledger(home / "ledger" / "decisions.jsonl")
    name, key = scored_name(SPEC), quoted(SPEC.events.id_column)
    scored = Lake(home).query(
        f'SELECT * FROM "{name}" ORDER BY event_timestamp, {key}',
        {name: Window()},
        pd.Timestamp("2200-01-01", tz="UTC"),
    )
    return {
        "trainings": [r.evidence["artifact_digest"] for r in ledger.records("training", SPEC.name)],
        "verdicts": [r.evidence["verdict"] for r in ledger.records("verdict", SPEC.name)],
        "champions": [f"{r.as_of} {r.evidence['version']}" for r in ledger.records("promotion", SPEC.name)],
        "predictions": [hashlib.sha256(to_parquet(scored)).hexdigest(), f"{scored.num_rows} rows"],
    }


def _claim(
    days: int, wall: dict[str, list[float]], cpu: dict[str, list[float]], results: list[dict[str, list[str]]]
) -> tuple[Claim, list[Table]]:
    walls, cpus = ({arm: statistics.median(seconds[arm]) for arm in ARMS} for seconds in (wall, cpu))
    ratios = {"wall": walls[DEMO] / walls[BARE], "cpu": cpus[DEMO] / cpus[BARE]}
    same = {what: all(result[what] == results[0][what] for result in results) for what in results[0]}
    figures: dict[str, Figure] = {
        "days": days,
        "repetitions": len(wall[DEMO]),
        **{f"{arm}_seconds": round(walls[arm], 2) for arm in ARMS},
        **{f"{arm}_cpu_seconds": round(cpus[arm], 2) for arm in ARMS},
        "ratio": round(ratios["wall"], 2),
        "cpu_ratio": round(ratios["cpu"], 2),
        "trainings": len(results[0]["trainings"]),
        **{f"same_{what}": held for what, held in same.items()},
    }
    times = table(
        f"{days} days, medians of {len(wall[DEMO])}, seconds",
        ("", "platform", "bare script", "ratio"),
        [
            ("wall time", walls[DEMO], walls[BARE], ratios["wall"]),
            ("CPU time", cpus[DEMO], cpus[BARE], ratios["cpu"]),
        ],
    )
    equal = table(
        "What came of it",
        ("", "number", "equal"),
        [
            (what, results[0][what][-1] if what == "predictions" else len(results[0][what]), "yes" if held else "NO")
            for what, held in same.items()
        ],
    )
    ok = all(same.values()) and max(ratios.values()) <= GOAL_RATIO
    goal = f"ratio <= {GOAL_RATIO:g} and cpu_ratio <= {GOAL_RATIO:g}, with equal results"
    return Claim("loop", figures, goal, ok), [times, equal]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=60, help="365 for the full year")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--arm", choices=sorted(ARMS), help="run one side only, untimed, under --home")
    parser.add_argument("--home", type=Path)
    chosen = parser.parse_args()
    if chosen.arm:
        # The assets find their home there; without it they would work on the checkout's own state.
        os.environ["CT_HOME"] = str(chosen.home)
        ARMS[chosen.arm](chosen.home, chosen.days)
    else:
        publish(*measure(chosen.days, chosen.repetitions))
