"""The data half of the demo, in a process of its own: files land, and the data sensors and assets take them in.

It runs ahead of the models' half. That changes no decision, since every computation sees only what was known at its
moment of event time.
"""

import json
import os
from dataclasses import dataclass, field
from datetime import date
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from ct_assets.demo.examples import Example
from ct_assets.lake.paths import write_atomically


@dataclass
class DayDone:
    """What the data half reports after each day.

    Attributes:
        day: UTC day of arrival.
        seconds: Time spent since the last report, by stage.
        failed: Failed runs: partition and errors.
        error: What went wrong, if the process cannot go on.
    """

    day: str
    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""


def run_data_plane(home: str, example: Example, days: list[str], faults: bool, done: "Queue[DayDone]") -> None:
    """Feed day after day and let the data sensors take it in; the entry point of the child process.

    Args:
        home: `$CT_HOME`.
        example: What to feed.
        days: UTC days to feed.
        faults: Whether the upstream system makes its planted mistakes.
        done: Takes one report a day.
    """
    from ct_assets.demo.driving import be_a_child

    be_a_child()
    try:
        _run(Path(home), example, days, faults, done)
    except Exception as error:
        done.put(DayDone("", error=f"{type(error).__name__}: {error}"))
    done.close()
    done.join_thread()
    # Threads of Dagster's would hold the process for good.
    os._exit(0)


def _run(home: Path, example: Example, days: list[str], faults: bool, done: "Queue[DayDone]") -> None:
    from ct_assets.defs.models import load_specs, sources_of
    from ct_assets.demo.driving import load_driver, settle_memory
    from ct_assets.feeds import feed_wave
    from ct_assets.feeds.recordings import open_recording
    from ct_assets.lib.driver import Run

    report = DayDone("")

    def on_run(run: Run) -> None:
        report.seconds["data"] = report.seconds.get("data", 0.0) + run.seconds
        if not run.success:
            report.failed.append({"partition": run.partition, "errors": list(run.errors)})

    domain = sources_of(load_specs()[example.model])[0].domain.name
    state = example.folder(home)
    driver = load_driver(home, state / "cursors-data", (f"{domain}_arrivals", f"{domain}_ingestion"), on_run)
    feed = open_recording(example.model)
    settle_memory()
    driver.settle()
    for day in days:
        report.day = day
        for wave in feed.waves(date.fromisoformat(day), faults):
            feed_wave(wave, str(home))
            driver.settle()
        driver.save()
        write_atomically(state / "data_plane.json", json.dumps({"day": day}).encode())
        report.seconds |= {f"data_{stage}": seconds for stage, seconds in driver.seconds.items()}
        driver.seconds.clear()
        done.put(report)
        report = DayDone("")
