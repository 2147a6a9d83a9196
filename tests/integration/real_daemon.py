"""The real daemon on a home, with a process for each run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from mlflow import MlflowClient
from small_location import RETRIES

from ct_assets.core.ledger import Ledger
from ct_assets.lib.instance import write_dagster_home
from ct_assets.lib.recovery import _Look

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
MODEL = "flight_delay"
_KINDS = {"impatient_daemon.py": "daemon", "api grpc": "code server", "spawn_main": "run worker"}
"""What a process is called by a part of its command."""
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


@dataclass
class Process:
    """One of the daemon's processes.

    Attributes:
        pid: Its number.
        kind: `daemon`, `code server` or `run worker`.
    """

    pid: int
    kind: str


@dataclass
class Daemon:
    """A home, its Dagster instance, and the daemon that works on them."""

    home: Path
    instance: dg.DagsterInstance
    process: subprocess.Popen
    log: Path
    ledger: Ledger = field(init=False)
    sessions: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sessions.append(self.process.pid)
        self.ledger = Ledger(self.home / "ledger" / "decisions.jsonl")

    def wait(self, what: str, happened: Callable[[], Any], within: float = 900) -> None:
        """Look until something has happened."""
        deadline = time.monotonic() + within
        while not happened():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{what} did not happen within {within} s; {self.story()}")
            time.sleep(0.25)

    def restart(self) -> None:
        """Start another daemon after this one was killed."""
        self.process.wait()
        self.process = _start(self.home, self.home / "dagster")
        self.sessions.append(self.process.pid)

    def processes(self) -> list[Process]:
        """The daemon and what it and the ones before it have started."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
                command = (folder / "cmdline").read_text().replace("\0", " ")
                kind = next((kind for part, kind in _KINDS.items() if part in command), None)
                if session in self.sessions and kind:
                    found.append(Process(int(folder.name), kind))
        return found

    def kill(self) -> None:
        """Kill it and what it has started."""
        for session in self.sessions:
            with suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)
        self.process.wait()

    def runs(self, **tags: str) -> list[dg.DagsterRun]:
        """Runs with these tags, oldest first."""
        return self.instance.get_runs(dg.RunsFilter(tags={k.replace("__", "/"): v for k, v in tags.items()}))[::-1]

    def rests(self) -> bool:
        """No run is waiting or under way."""
        return not self.instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))

    def waits_for_nothing(self) -> bool:
        """No failed run is to be made again."""
        return not _Look(self.instance, RETRIES, None)._waiting

    def story(self) -> str:
        """What there is to see when something went wrong."""
        runs = [(r.status.value, r.tags.get("dagster/partition"), made_by(r)) for r in self.runs()]
        return f"runs: {runs}\n{self.log.read_text()[-4000:]}"

    def ticks(self, sensor: str) -> int:
        """How often a sensor was looked at."""
        (state,) = (s for s in self.instance.all_instigator_state() if s.instigator_name == sensor)
        return len(self.instance.get_ticks(state.instigator_origin_id, state.selector_id))

    def champion(self) -> str | None:
        """The version that the alias points to."""
        return alias_of(self.home, "champion")


def alias_of(home: Path, alias: str) -> str | None:
    if not (home / "mlflow" / "mlflow.db").exists():
        return None
    model = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db").search_registered_models(f"name='{MODEL}'")
    return str(model[0].aliases[alias]) if model and alias in model[0].aliases else None


def made_by(run: dg.DagsterRun) -> list[str]:
    return sorted(key.to_user_string() for key in run.asset_selection or ())


def _dagster_home(home: Path) -> Path:
    """The DAGSTER_HOME that `ct dev` makes, with a queue and a monitor that do not wait."""
    folder = write_dagster_home(home)
    settings = yaml.safe_load((folder / "dagster.yaml").read_text())
    settings["run_queue"] = {"dequeue_interval_seconds": 1}
    settings["run_monitoring"] |= {"poll_interval_seconds": 5}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return folder


@contextmanager
def running(home: Path) -> Iterator[Daemon]:
    """Start the daemon, and kill it and all that it started in the end."""
    dagster_home = _dagster_home(home)
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        daemon = Daemon(home, instance, _start(home, dagster_home), home / "daemon.log")
        try:
            yield daemon
        finally:
            daemon.kill()


def _start(home: Path, dagster_home: Path) -> subprocess.Popen:
    environment = {
        **os.environ,
        "CT_HOME": str(home),
        "DAGSTER_HOME": str(dagster_home),
        "FRESHNESS_DAEMON_INTERVAL_SECONDS": "5",
        # A busy machine takes longer than Dagster's minute to start a process.
        "DAGSTER_GRPC_TIMEOUT_SECONDS": "600",
        "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "600",
        "PYTHONWARNINGS": "ignore",
    }
    arguments = [str(HERE / "impatient_daemon.py"), "run", "-f", str(HERE / "small_location.py"), "-d", str(CHECKOUT)]
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=(home / "daemon.log").open("a"),
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=CHECKOUT,
        start_new_session=True,
    )
