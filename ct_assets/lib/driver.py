"""Dagster's daemon in one process: the same sensors, conditions and assets, with no wait between ticks.

The demo, the tests and the benchmarks use it to move event time faster than the wall clock. What is requested is
decided by the definitions alone.
"""

import asyncio
import dataclasses
import json
import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.declarative_automation.automation_condition_evaluator import AutomationConditionEvaluator
from dagster._core.definitions.declarative_automation.operands import WillBeRequestedCondition
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.job_definition import JobDefinition
from dagster._core.events import RunFailureReason
from dagster._core.execution.execute_in_process import core_execute_in_process, merge_run_tags
from dagster._core.utils import make_new_run_id
from dagster._serdes import deserialize_value, serialize_value

from ct_assets.lake.paths import write_atomically
from ct_assets.lib.automation import DAEMON_ONLY, SENSOR_TAG
from ct_assets.lib.liveness import alive, dead_runs, fail
from ct_assets.lib.recovery import Retries, are_about_data, requested_by
from ct_assets.stores.dagster_sqlite import PooledSqliteEventLogStorage

OWED = "owed.json"
"""File of the state folder that names what was asked for and not made: it waits, or a killed process was making it."""

MAX_LOOKS = 200
"""How often in a row one settling looks at what changes all the time, such as a file that is being written."""

MAX_REQUESTS = 20
"""How often one settling may ask for the same assets and partition while it asks for nothing else that is new."""

RETRIES = Retries(attempts=3, seconds=0.5)
"""Somebody waits for the end, and the next process tries again."""

SAVE_SECONDS = 10.0
"""Seconds between two savings of a long settling: what a kill makes this process do again."""


@dataclass(frozen=True)
class Request:
    """What an automation sensor asks for."""

    sensor: str
    assets: tuple[dg.AssetKey, ...]
    partition: str | None


@dataclass(frozen=True)
class Run:
    """One run that was requested and executed.

    Attributes:
        sensor: The automation sensor that requested it; None for a run by hand.
        assets: What it materialized.
        partition: Its partition; None when unpartitioned.
        success: Whether it succeeded.
        seconds: Duration by the wall clock.
        errors: What failed, one message a step.
        interrupted: Whether the process was asked to end while it ran.
        retryable: Whether it failed for another reason than bad data.
    """

    sensor: str | None
    assets: tuple[dg.AssetKey, ...]
    partition: str | None
    success: bool
    seconds: float
    errors: tuple[str, ...] = ()
    interrupted: bool = False
    retryable: bool = False


class Driver:
    """Ticks sensors and executes what they request, until nothing is requested any more.

    Args:
        defs: All definitions.
        instance: Dagster instance whose storage takes runs and events.
        state: Folder in which cursors are kept, so that a later process goes on where this one stopped. Runs that a
            killed process left unfinished are reported as failed.
        on_run: Called after every run.
        only: Names of the sensors to tick; all when None.
        retries: How often and when to make again what failed for other reasons than bad data. What fails the last time
            is made by the driver of the next process.
    """

    def __init__(
        self,
        defs: dg.Definitions,
        instance: dg.DagsterInstance,
        state: Path,
        on_run: Callable[[Run], None] | None = None,
        only: Collection[str] | None = None,
        retries: Retries = RETRIES,
    ) -> None:
        self.defs = defs
        self.instance = instance
        self.state = state
        self.on_run = on_run
        self.retries = retries
        self.seconds: dict[str, float] = defaultdict(float)
        self._stopping = False
        self._owed: list[Request] = []
        self._failed: list[Request] = []
        self._saved_at = float("-inf")
        self._loop = asyncio.new_event_loop()
        weakref.finalize(self, self._loop.close)
        self._exit = ExitStack()
        weakref.finalize(self, self._exit.close)
        repository = defs.get_repository_def()
        self._graph: AssetGraph = repository.asset_graph
        self._job = defs.resolve_implicit_global_asset_job_def()
        self._jobs: dict[tuple[dg.AssetKey, ...], JobDefinition] = {}
        sensors = [s for s in repository.sensor_defs if only is None or s.name in only]
        self._automation = [s for s in sensors if isinstance(s, dg.AutomationConditionSensorDefinition)]
        # What failed is asked for again here without a wait between ticks.
        others = [s for s in sensors if s not in self._automation and not DAEMON_ONLY.items() <= s.tags.items()]
        self._reporting = [s for s in others if s.sensor_type.value == "STANDARD"]
        self._resources = self._opened({key for sensor in self._reporting for key in sensor.required_resource_keys})
        self._targets = {s.name: self._conditioned(s) for s in self._automation}
        # Conditions that look at what else is requested in the same tick; others wait until something is made.
        self._same_tick = {
            key
            for keys in self._targets.values()
            for key in keys
            if _looks_at_same_tick(self._graph.get(key).automation_condition)
        }
        self._cursors: dict[str, AssetDaemonCursor] = {}
        self._sensor_cursors: dict[str, str | None] = {}
        # What has to be looked at; everything once, since conditions remember from their first evaluation on.
        self._dirty: set[dg.AssetKey] = {key for keys in self._targets.values() for key in keys}
        self._load()
        # A run can die between an asset and its check, and then no condition would ask for what comes after. Noted
        # before the runs are reported as failed: this process may die too before it has made up for them.
        dead = [run for run in dead_runs(instance) if requested_by(run) in {None, *self._targets}]
        self._owe(self._noted())
        self._owe(self._requests_of(dead))
        self._note_owed()
        for run in dead:
            fail(instance, run)

    def settle(self, until: str | None = None) -> list[Run]:
        """Tick everything until nothing is requested; return the runs in the order of their execution.

        A backlog is worked off day by day: what a day brings about, such as a training, comes before the next day.

        Args:
            until: Last partition to execute; what is asked for later ones is owed. All when None.

        Raises:
            RuntimeError: The same assets are requested without end.
            KeyboardInterrupt: `stop` was called, or a run was interrupted; what it was making is owed.
        """
        runs: list[Run] = []
        asked: Counter[Request] = Counter()
        made: set[Request] = set()
        failures: Counter[Request] = Counter()
        looks = 0
        while True:
            news, reported = self._report()
            looks = looks + 1 if news else 0
            requested = self._tick()
            if reported:
                asked.clear()
            asked.update(requested)
            self._owe(requested)
            if asked and max(asked.values()) > MAX_REQUESTS:
                names = ", ".join(key.to_user_string() for key in asked.most_common(1)[0][0].assets)
                raise RuntimeError(f"automation asks without end for {names}: a condition is a status and not an event")
            if time.monotonic() - self._saved_at > SAVE_SECONDS:
                # Where it cannot be written, a kill costs more; the work itself goes on or says what is wrong.
                with suppress(OSError):
                    self.save()
            if self._stopping:
                raise KeyboardInterrupt
            if self._owed and (until is None or self._day(self._owed[0]) <= until):
                request = self._owed[0]
                runs.append(self.execute(request.assets, request.partition, request.sensor))
                if runs[-1].interrupted:
                    raise KeyboardInterrupt
                if runs[-1].retryable:
                    failures[request] += 1
                    if failures[request] < self.retries.attempts:
                        time.sleep(self.retries.wait(failures[request]))
                        continue
                    self._failed.append(request)
                del self._owed[0]
                if request not in made:
                    # Progress, such as another day: only what goes round in a circle is without end.
                    made.add(request)
                    asked.clear()
            elif not news or looks > MAX_LOOKS:
                return runs

    def stop(self) -> None:
        """Let `settle` end before its next run; for handlers of signals."""
        self._stopping = True

    def _owe(self, requested: Sequence[Request]) -> None:
        """Note what is asked for, but for what a run that waits will make anyway."""
        waiting: dict[str | None, set[dg.AssetKey]] = defaultdict(set)
        for request in self._owed:
            waiting[request.partition].update(request.assets)
        self._owed += [r for r in requested if not waiting[r.partition].issuperset(r.assets)]
        self._owed.sort(key=self._day)

    def _day(self, request: Request) -> str:
        """The day that a request is for; empty for what has no partition or one of a segment, which is due at once."""
        dated = isinstance(self._graph.get(request.assets[0]).partitions_def, dg.TimeWindowPartitionsDefinition)
        return request.partition if dated and request.partition else ""

    def owes(self, partition: str) -> bool:
        """Whether something was asked for `partition` and waits for its turn."""
        return any(request.partition == partition for request in self._owed)

    def look_again(self) -> None:
        """Consider at the next tick what depends on other sensors' assets: another process may have made some."""
        for keys in self._targets.values():
            self._touch({parent for key in keys for parent in self._graph.get(key).parent_keys if parent not in keys})

    def report(self, events: Sequence[dg.AssetMaterialization]) -> int:
        """Report what happened outside, as a sensor does.

        Returns:
            The number of events.
        """
        for event in events:
            self.instance.report_runless_asset_event(event)
            self._touch({event.asset_key})
        return len(events)

    def execute(
        self,
        keys: Iterable[dg.AssetKey],
        partition: str | None,
        sensor: str | None = None,
        run_config: dict | None = None,
    ) -> Run:
        """Execute one run now, as a person would by 'Materialize'."""
        started = time.perf_counter()
        run = Run(sensor, tuple(sorted(keys)), partition, False, 0.0)
        try:
            run = self._execute(run, run_config)
        except Exception as error:
            # Steps raise nothing here: this is Dagster's storage, or the disk.
            run = dataclasses.replace(run, errors=(f"{type(error).__name__}: {error}",), retryable=True)
        run = dataclasses.replace(run, seconds=time.perf_counter() - started)
        if self.on_run:
            self.on_run(run)
        return run

    def _execute(self, run: Run, run_config: dict | None) -> Run:
        # Not `JobDefinition.execute_in_process`: it builds the job and its snapshot again for each run.
        if run.assets not in self._jobs:
            self._jobs[run.assets] = self._job.as_ephemeral_job({}, {}, asset_selection=run.assets)
        job, run_id, config = self._jobs[run.assets], make_new_run_id(), run_config or {}
        tags = merge_run_tags(
            job_def=job,
            partition_key=run.partition,
            tags={SENSOR_TAG: run.sensor} if run.sensor else {},
            asset_selection=run.assets,
            instance=self.instance,
            run_config=config,
        )
        with alive(self.instance, run_id), self._holding_back(run_id):
            result = core_execute_in_process(
                run_config=config,
                job=InMemoryJob(job),
                instance=self.instance,
                output_capturing_enabled=False,
                raise_on_error=False,
                run_tags=tags,
                run_id=run_id,
                asset_selection=frozenset(run.assets),
            )
        touched = {e.asset_key for e in result.get_asset_materialization_events() if e.asset_key}
        self._touch(touched, touched)
        failed = result.filter_events(lambda e: e.is_step_failure)
        return dataclasses.replace(
            run,
            success=result.success,
            errors=tuple(map(_error, failed)),
            interrupted=_interrupted(result),
            retryable=not result.success and not are_about_data(failed),
        )

    def _holding_back(self, run_id: str) -> AbstractContextManager[None]:
        log = self.instance.event_log_storage
        return log.holding_back(run_id) if isinstance(log, PooledSqliteEventLogStorage) else nullcontext()

    def save(self) -> None:
        """Note the cursors and what is owed; what happens after is done again, to the same end, after a crash."""
        started = time.perf_counter()
        # First: what is owed and asked for again is made once.
        self._note_owed()
        for name, cursor in self._cursors.items():
            write_atomically(self.state / f"{name}.cursor", serialize_value(cursor).encode())
        for name, text in self._sensor_cursors.items():
            write_atomically(self.state / f"{name}.cursor", (text or "").encode())
        self._saved_at = time.monotonic()
        self.seconds["save"] += time.perf_counter() - started

    def _load(self) -> None:
        for name in self._targets:
            path = self.state / f"{name}.cursor"
            if path.exists():
                self._cursors[name] = deserialize_value(path.read_text(), AssetDaemonCursor)
        for sensor in self._reporting:
            path = self.state / f"{sensor.name}.cursor"
            if path.exists():
                self._sensor_cursors[sensor.name] = path.read_text() or None

    def _noted(self) -> list[Request]:
        path = self.state / OWED
        found = json.loads(path.read_text()) if path.exists() else []
        return [Request(sensor, tuple(map(dg.AssetKey, assets)), partition) for sensor, assets, partition in found]

    def _note_owed(self) -> None:
        owed = [*self._owed, *self._failed]
        notes = [(r.sensor, [list(key.path) for key in r.assets], r.partition) for r in owed]
        write_atomically(self.state / OWED, json.dumps(notes).encode())

    def _requests_of(self, runs: Iterable[dg.DagsterRun]) -> list[Request]:
        """What this driver's sensors had asked for in runs that died."""
        return [
            Request(sensor, tuple(sorted(run.asset_selection)), run.tags.get("dagster/partition"))
            for run in runs
            if (sensor := requested_by(run)) and run.asset_selection
        ]

    def _conditioned(self, sensor: dg.AutomationConditionSensorDefinition) -> set[dg.AssetKey]:
        keys = sensor.asset_selection.resolve(self._graph)
        return {key for key in keys if self._graph.get(key).automation_condition is not None}

    def _touch(self, keys: set[dg.AssetKey], run: set[dg.AssetKey] | None = None) -> None:
        """Mark what may be due after `keys` were made: everything downstream that `run` did not make itself."""
        todo = [child for key in keys for child in self._graph.get(key).child_keys if child not in (run or set())]
        while todo:
            key = todo.pop()
            if key not in self._dirty:
                self._dirty.add(key)
                todo.extend(child for child in self._graph.get(key).child_keys if child in self._same_tick)

    def _opened(self, keys: set[str]) -> dict[str, dg.ResourceDefinition]:
        """What the sensors ask for, set up once and not at each tick, which would take longer than the tick."""
        resources = {key: resource for key, resource in (self.defs.resources or {}).items() if key in keys}
        opened = self._exit.enter_context(dg.build_resources(resources, instance=self.instance))
        return {key: dg.ResourceDefinition.hardcoded_resource(getattr(opened, key)) for key in keys}

    def _report(self) -> tuple[bool, int]:
        """Evaluate the sensors that report what happened outside: whether one saw a change, and how many events."""
        changed, reported = False, 0
        started = time.perf_counter()
        for sensor in self._reporting:
            with dg.build_sensor_context(
                instance=self.instance,
                cursor=self._sensor_cursors.get(sensor.name),
                resources={key: self._resources[key] for key in sensor.required_resource_keys},
                definitions=self.defs,
            ) as context:
                tick = sensor.evaluate_tick(context)
            changed |= tick.cursor != self._sensor_cursors.get(sensor.name) or bool(tick.asset_events)
            self._sensor_cursors[sensor.name] = tick.cursor
            for event in tick.asset_events:
                self.instance.report_runless_asset_event(event)
                self._touch({event.asset_key})
            reported += len(tick.asset_events)
        self.seconds["sensors"] += time.perf_counter() - started
        return changed, reported

    def _tick(self) -> list[Request]:
        """Evaluate the conditions that something has happened for; none of them depends on the clock."""
        started = time.perf_counter()
        requested: list[Request] = []
        for sensor in self._automation:
            due = self._targets[sensor.name] & self._dirty
            self._dirty -= due
            # What a condition has seen is noted by ranges of partitions, for which Dagster looks up the dynamic ones.
            with dg.partition_loading_context(dynamic_partitions_store=self.instance):
                if due and (requested := self._evaluate(sensor.name, due)):
                    break
        self.seconds["ticks"] += time.perf_counter() - started
        return requested

    def _evaluate(self, name: str, keys: set[dg.AssetKey]) -> list[Request]:
        cursor = self._cursors.get(name, AssetDaemonCursor.empty())
        evaluator = AutomationConditionEvaluator(
            asset_graph=self._graph,
            instance=self.instance,
            entity_keys=keys,
            cursor=cursor,
            emit_backfills=False,
            evaluation_id=cursor.evaluation_id,
        )
        # Not `evaluate()`: its `asyncio.run` puts a signal handler in place each time, for a fifth of a tick.
        results, subsets = self._loop.run_until_complete(evaluator.async_evaluate())
        evaluated = {c.key: c for r in results if (c := r.get_new_cursor())}
        kept = [c for c in cursor.previous_condition_cursors or [] if c.key not in evaluated]
        self._cursors[name] = dataclasses.replace(
            cursor, evaluation_id=cursor.evaluation_id + 1, previous_condition_cursors=[*kept, *evaluated.values()]
        )
        groups: dict[str | None, list[dg.AssetKey]] = defaultdict(list)
        for subset in subsets:
            if not isinstance(subset.key, dg.AssetKey) or subset.is_empty:
                continue
            partitions = sorted(subset.expensively_compute_partition_keys()) if subset.is_partitioned else [None]
            for partition in partitions:
                groups[partition].append(subset.key)
        return [Request(name, tuple(sorted(assets)), partition) for partition, assets in groups.items()]


def _looks_at_same_tick(condition: dg.AutomationCondition | None) -> bool:
    if condition is None:
        return False
    return isinstance(condition, WillBeRequestedCondition) or any(map(_looks_at_same_tick, condition.children))


def _interrupted(result: dg.ExecuteInProcessResult) -> bool:
    failures = result.filter_events(lambda e: e.event_type is dg.DagsterEventType.RUN_FAILURE)
    return any(e.job_failure_data.failure_reason is RunFailureReason.UNEXPECTED_TERMINATION for e in failures)


def _error(event: dg.DagsterEvent) -> str:
    error = event.step_failure_data.error
    cause = (error.cause or error) if error else None
    return f"{event.step_key}: {cause.message.strip() if cause else 'failed'}"
