"""Which runs have a living process, and which one died.

A run whose process was killed stays STARTED in Dagster's storage: what it was making would count as in progress for
ever, and no condition would ask for it again. The default run launcher cannot look after its processes, and the code
server that started them may have been killed too.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import dagster as dg
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor

FOLDER = "processes"
"""Folder of the instance with one file for each run under way: the process keeps it locked, and the system unlocks it
however the process ends. A process number would not do: in a container that starts again, the next process has it."""

_held: list[IO[str]] = []
"""Locks of this process that end with it."""


@contextmanager
def alive(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Mark a run as under way in this process until the block ends."""
    with _lock(instance, run_id):
        yield
        (_folder(instance) / run_id).unlink(missing_ok=True)


def dead_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Unfinished runs whose process has died, oldest first. Files of finished runs are removed."""
    records = []
    for path in sorted(_folder(instance).glob("[!.]*")):
        # Only an unlocked file's run is looked up: what it wrote last is there by then.
        if not _is_unlocked(path):
            continue
        record = instance.get_run_record_by_id(path.name)
        if record is None or record.dagster_run.is_finished:
            path.unlink(missing_ok=True)
        else:
            records.append(record)
    return [record.dagster_run for record in sorted(records, key=lambda record: record.storage_id)]


def is_marked(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a process has marked a run as under way."""
    return (_folder(instance) / run_id).exists()


def fail(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Report the run of a dead process as failed."""
    instance.report_run_failed(run, "The process of this run died; what it was making is requested again.")


class _AliveExecutor(InProcessExecutor):
    """Dagster's executor of all steps in the run's process, which marks the run as under way."""

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        # Until the process ends and not until the last step: the run's own end is written later.
        _held.append(_lock(plan_context.instance, plan_context.run_id))
        yield from super().execute(plan_context, execution_plan)


@dg.executor(name="in_process_alive")
def in_process_alive(_context: dg.InitExecutorContext) -> _AliveExecutor:
    """Executes all steps in the run's process, whose death is noticed."""
    return _AliveExecutor(retries=RetryMode.ENABLED)


def _folder(instance: dg.DagsterInstance) -> Path:
    return Path(instance.root_directory) / FOLDER


def _lock(instance: dg.DagsterInstance, run_id: str) -> IO[str]:
    folder = _folder(instance)
    folder.mkdir(parents=True, exist_ok=True)
    unlocked = folder / f".{run_id}"
    file = unlocked.open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    # Nobody sees the file before it is locked.
    unlocked.replace(folder / run_id)
    return file


def _is_unlocked(path: Path) -> bool:
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True
