"""The demo's main loop: the models' half, the progress display, and what comes of it."""

import fcntl
import json
import os
import queue
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ct_assets.core.ledger import PROMOTION, RETRAIN, VERDICT
from ct_assets.core.segments import Line
from ct_assets.demo.data_plane import DayDone, run_data_plane
from ct_assets.demo.driving import load_driver, quiet, settle_memory
from ct_assets.demo.examples import Example
from ct_assets.lake.paths import write_atomically
from ct_assets.lake.releases import Releases

SAVE_EVERY_DAYS = 5


def run_demo(home: Path, example: Example, days: int, console: Console, faults: bool = True) -> dict[str, Any]:
    """Let `days` days of an example's feed arrive and the platform do the rest.

    A demo that was killed goes on where it stopped; one that was finished only tells its result again.

    Args:
        home: `$CT_HOME`.
        example: What arrives, and for which model.
        days: Number of days from the first one that was recorded.
        console: Where progress is shown.
        faults: Whether the planted mistakes happen.

    Returns:
        The summary, also written to `summary.json` in the example's folder.

    Raises:
        ValueError: Fewer days were recorded, or the home has come further than that.
    """
    started = time.perf_counter()
    quiet()
    # Resources and the data half's process find their home by it.
    os.environ["CT_HOME"] = str(home)
    state, calendar = example.folder(home), recorded_days(example, days)
    with _alone(home):
        progress, finished = _read(state / "progress.json"), _read(state / "summary.json")
        reached = progress.get("day", "")
        if finished.get("until", "") >= calendar[-1]:
            if finished["until"] > calendar[-1]:
                told = f"{home} has been taken to {finished['until']} before; this is what came of that."
                console.print(escape(told))
            return finished
        if reached > calendar[-1]:
            raise ValueError(
                f"{home} has come to {reached}, which is beyond {days} days; ask for more days, or use another CT_HOME"
            )
        loop = Loop(home, example, calendar, faults, console)
        loop.seconds.update(progress.get("seconds", {}))
        loop.run(reached)
        return _conclude(loop, started)


def recorded_days(example: Example, days: int) -> list[str]:
    """The first `days` days of arrival of an example's domain.

    Raises:
        ValueError: It has fewer.
    """
    from ct_assets.defs.models import load_specs, sources_of

    domain = sources_of(load_specs()[example.model])[0].domain
    calendar = [domain.first_day + timedelta(days=n) for n in range(days)]
    if domain.last_day and calendar[-1] > domain.last_day:
        recorded = (domain.last_day - domain.first_day).days + 1
        raise ValueError(f"{days} days of {example.model} were asked for, {recorded} are recorded; ask for fewer")
    return [day.isoformat() for day in calendar]


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Two demos on one home would decide over each other; the lock goes with the process, also when it is killed."""
    (home / "demo").mkdir(parents=True, exist_ok=True)
    with (home / "demo" / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"a demo is running on {home}; wait for it, or use another CT_HOME") from None
        yield


class Loop:
    """The models' half of the demo.

    Args:
        home: `$CT_HOME`.
        example: What arrives, and for which model.
        calendar: UTC days in order.
        faults: Whether the planted mistakes happen.
        console: Where progress is shown.
    """

    def __init__(self, home: Path, example: Example, calendar: list[str], faults: bool, console: Console) -> None:
        from ct_assets.defs.models import load_specs
        from ct_assets.demo.compare import Comparison

        self.home = home
        self.example = example
        self.folder = example.folder(home)
        self.calendar = calendar
        self.faults = faults
        self.console = console
        self.spec = load_specs()[example.model]
        start, end = pd.Timestamp(calendar[0], tz="UTC"), pd.Timestamp(calendar[-1], tz="UTC") + timedelta(days=1)
        self.comparison = Comparison(home, self.spec, start, end, example.every, example.arm)
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def run(self, last: str) -> None:
        """Work off every day after `last`, the last one that was saved."""
        data_done = _read(self.folder / "data_plane.json").get("day", "")
        todo = [day for day in self.calendar if day > last]
        if not todo:
            return
        context = get_context("spawn")
        done = context.Queue()
        feeding = [day for day in self.calendar if day > data_done]
        arguments = (str(self.home), self.example, feeding, self.faults, done)
        child = context.Process(target=run_data_plane, args=arguments, daemon=True)
        child.start()
        cursors = self.folder / "cursors-models"
        sensors = [f"{self.spec.name}_{kind}" for kind in ("automation", "decisions")]
        self._driver = load_driver(self.home, cursors, sensors, self._on_run)
        _warm_up(self.home)
        settle_memory()
        try:
            self._days(todo, data_done, done, child)
        finally:
            # Dagster puts a handler in the way of a polite end; the data half stands a kill at any moment.
            child.kill()
            child.join()

    def _days(self, todo: list[str], data_done: str, done: Any, child: Any) -> None:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
        ) as bar:
            task = bar.add_task("arrival days", total=len(self.calendar), completed=len(self.calendar) - len(todo))
            for day in todo:
                while data_done < day or not done.empty():
                    data_done = self._note(_next(done, child))
                if not self._driver.owes(day):
                    self._driver.look_again()
                self._driver.settle(until=day)
                bar.update(task, advance=1, description=f"{day}, champion {self._champion()}")
                if day == todo[-1] or pd.Timestamp(day).dayofyear % SAVE_EVERY_DAYS == 0:
                    self._save(day)
                if not child.is_alive():
                    # The data half's core is free.
                    self.comparison.advance(pd.Timestamp(day, tz="UTC") + timedelta(days=1))

    def _champion(self) -> str:
        from ct_assets.resources.lake import open_ledger

        moves = Releases(self.home, Line(self.spec.name), open_ledger(self.home)).moves()
        return f"v{moves[-1]['version']}" if moves else "none yet"

    def _note(self, report: DayDone) -> str:
        if report.error:
            raise RuntimeError(f"the data half of the demo stopped: {report.error}")
        for stage, seconds in report.seconds.items():
            self.seconds[stage] += seconds
        for failure in report.failed:
            stopped = any("blocking" in error for error in failure["errors"])
            what = "a batch was stopped; see `ct status`" if stopped else escape("; ".join(failure["errors"]))
            self.console.print(f"  [yellow]{failure['partition'] or 'a reference table'}[/]: {what}")
        return report.day

    def _on_run(self, run: Any) -> None:
        names = {key.path[-1] for key in run.assets}
        stage = "score_and_watch" if "scored" in names else "promote" if names == {"champion"} else "train_and_judge"
        self.seconds[stage] += run.seconds
        if not run.success:
            raise RuntimeError(f"{', '.join(sorted(names))} of {run.partition} failed: {'; '.join(run.errors)}")
        if run.sensor is not None and stage == "train_and_judge":
            self._tell(self._line(run))
        elif stage == "promote" and self._line(run).segment is None:
            self._sabotage()

    def _line(self, run: Any) -> Line:
        """The line that a training or promotion was about."""
        return Line.of(self.spec.name, run.partition) if self.spec.segment_by else Line(self.spec.name)

    def _tell(self, line: Line) -> None:
        from ct_assets.resources.lake import open_ledger

        retrain, verdict = (open_ledger(self.home).newest([kind], line.name) for kind in (RETRAIN, VERDICT))
        if retrain and verdict:
            outcome = "[green]passed[/]" if verdict.evidence["passed"] else "[red]rejected[/]"
            triggers = ", ".join(retrain.evidence["decision"]["triggers"])
            segment = f"{escape(line.segment)}: " if line.segment else ""
            self.console.print(
                f"  {retrain.as_of[:10]}: {segment}retrain ({triggers}), v{verdict.evidence['version']} {outcome}"
            )

    def _sabotage(self) -> None:
        """Train once on shuffled labels, as a person would from the launchpad."""
        from ct_assets.resources.lake import open_ledger

        promotions = open_ledger(self.home).records(PROMOTION, self.spec.name)
        first = pd.Timestamp(self.example.sabotage_from, tz="UTC")
        late = [r for r in promotions if pd.Timestamp(r.as_of) >= first]
        # A demo that goes on after a kill may promote the same challenger again, and is to plant this once.
        if not late or promotions[-1] != late[0]:
            return
        params = self.spec.estimator.model_dump(mode="json") | {"quantiles": list(self.spec.quantiles)}
        challenger = {"estimator": "ct_assets.demo.sabotage.ShuffledLabels", "params": params}
        model = self.spec.name
        self._driver.execute(
            [_key(model, name) for name in ("training_set", "challenger", "evaluation")],
            Line(model).partition if self.spec.segment_by else None,
            run_config={
                "ops": {
                    f"{model}__training_set": {"config": {"as_of": late[0].as_of}},
                    f"{model}__challenger": {"config": challenger},
                }
            },
        )

    def _save(self, day: str) -> None:
        self._driver.save()
        for stage, seconds in self._driver.seconds.items():
            self.seconds[f"model_{stage}"] += seconds
        self._driver.seconds.clear()
        progress = {"day": day, "seconds": dict(self.seconds)}
        write_atomically(self.folder / "progress.json", json.dumps(progress).encode())


def _conclude(loop: Loop, started: float) -> dict[str, Any]:
    from ct_assets.defs.models import sources_of
    from ct_assets.lake.summary import summarize
    from ct_assets.resources.lake import open_ledger

    begun = time.perf_counter()
    with loop.console.status("comparing with a model trained once and one retrained by the calendar"):
        figures = loop.comparison.finish()
    loop.seconds["compare"] += time.perf_counter() - begun
    loop.seconds["total"] += time.perf_counter() - started
    home = loop.home
    summary = summarize(home, open_ledger(home), [s.name for s in sources_of(loop.spec)], loop.spec.name)
    summary |= (
        figures | {"until": loop.calendar[-1]} | {"seconds": {k: round(v, 2) for k, v in sorted(loop.seconds.items())}}
    )
    write_atomically(loop.folder / "summary.json", json.dumps(summary, indent=2).encode())
    return summary


def _warm_up(home: Path) -> None:
    """Load what the first training needs while the data half takes in its first day."""
    for module in ("skops.io", "sklearn.ensemble", "ct_assets.lib.report"):
        import_module(module)
    from ct_assets.resources.feast import feature_store
    from ct_assets.resources.registry import RegistryResource

    RegistryResource(home=str(home)).client()
    feature_store(home)


def _next(done: Any, child: Any) -> DayDone:
    while True:
        alive = child.is_alive()
        try:
            report: DayDone = done.get(timeout=1)
        except queue.Empty:
            if not alive:
                raise RuntimeError("the data half of the demo was killed; start the demo again to go on") from None
        else:
            return report


def _key(model: str, name: str) -> Any:
    import dagster as dg

    return dg.AssetKey([model, name])


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}
