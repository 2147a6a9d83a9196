"""Which process makes a run, and what becomes of its runs when it dies.

A run whose process was killed stays STARTED in Dagster's storage. What it was making would count as in progress for
ever, and no condition would ask for it again.
"""

import fcntl
import uuid
from pathlib import Path

import dagster as dg

TAG = "ct/process"
_SUFFIX = ".alive"


class Liveness:
    """The sign of life of this process: a file that it keeps locked, which the system unlocks however it ends.

    A process number would not do: in a container that starts again, the next process has the same.

    Args:
        folder: Where the processes that share an instance keep their files.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.name = uuid.uuid4().hex
        unlocked = folder / f".{self.name}"
        self._file = unlocked.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        # Nobody sees the file before it is locked.
        unlocked.replace(folder / (self.name + _SUFFIX))

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the runs that this process makes."""
        return {TAG: self.name}

    def orphans(self, instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
        """Unfinished runs of dead processes, oldest first."""
        runs: list[dg.DagsterRun] = []
        for path in self._dead():
            unfinished = dg.RunsFilter(tags={TAG: path.name.removesuffix(_SUFFIX)}, statuses=_UNFINISHED)
            runs += reversed(list(instance.get_runs(unfinished)))
        return runs

    def fail_orphans(self, instance: dg.DagsterInstance) -> None:
        """Report the unfinished runs of dead processes as failed, and forget these processes."""
        for run in self.orphans(instance):
            instance.report_run_failed(run, "The process of this run died; what it was making is requested again.")
        for path in self._dead():
            path.unlink(missing_ok=True)

    def _dead(self) -> list[Path]:
        return [path for path in sorted(self.folder.glob(f"*{_SUFFIX}")) if _is_unlocked(path)]


_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def _is_unlocked(path: Path) -> bool:
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True
