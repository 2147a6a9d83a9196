"""Homes that real processes drive, and what can be said of a home when it rests."""

import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from small_days import files_of, resent, with_another_climate, without_column

from ct_assets.core.ledger import Ledger
from ct_assets.feeds import Delivery
from ct_assets.feeds.nycflights import NycFlights

HERE = Path(__file__).parent
MODEL = "flight_delay"
WALL_CLOCK = {"code_version", "artifact", "recorded_at", "prev", "hash"}
"""What tells when and by which checkout something was written, and so differs between two runs."""


def four_days() -> list[list[list[Delivery]]]:
    """Three days until the first champion; on the fourth the weather comes broken, then as never seen before."""
    feed = NycFlights()
    days = [[files_of(feed, number)] for number in range(3)]
    fourth = files_of(feed, 3)
    return [*days, [without_column(fourth, "weather", "temp"), resent(with_another_climate(fourth), "weather")]]


@dataclass
class Driven:
    """A home that rests, and its state at that moment."""

    home: Path
    state: dict[str, Any]


@dataclass
class Life:
    """One process that drives a home."""

    pid: int
    outcome: Path

    def kill(self, after: float) -> bool:
        """`kill -9` after some seconds; False when the process had ended by itself."""
        deadline = time.monotonic() + after
        while time.monotonic() < deadline and not self.outcome.exists():
            time.sleep(0.01)
        if self.outcome.exists():
            return False
        os.kill(self.pid, signal.SIGKILL)
        return self.dies()

    def dies(self, within: float = 900) -> bool:
        """Wait until the process is gone; False when it had done its work before."""
        deadline = time.monotonic() + within
        while _lives(self.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not _lives(self.pid), f"process {self.pid} did not end within {within} s"
        return not self.outcome.exists()

    def end(self, within: float = 900) -> None:
        """Wait until the process has done its work."""
        deadline = time.monotonic() + within
        while not self.outcome.exists() or not (text := self.outcome.read_text()):
            if time.monotonic() > deadline or not _lives(self.pid):
                raise AssertionError(f"process {self.pid} did not end its work within {within} s")
            time.sleep(0.05)
        assert text == "done", text


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@dataclass
class Zygote:
    """The process that forks the others."""

    folder: Path
    days: Path
    process: subprocess.Popen = field(init=False)
    started: int = 0

    def __post_init__(self) -> None:
        self.days.write_bytes(pickle.dumps(four_days()))
        environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.folder / "zygote.log").open("w"),
            text=True,
            env=environment,
            start_new_session=True,
        )

    def start(self, home: Path, dies_at: int | None = None, days: Path | None = None) -> Life:
        """Start a process that drives `home` through all days, or until its n-th write; through others if given."""
        self.started += 1
        outcome = self.folder / f"outcome-{self.started}"
        task = {"home": str(home), "days": str(days or self.days), "outcome": str(outcome), "dies_at": dies_at}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, (self.folder / "zygote.log").read_text()
        return Life(int(answer), outcome)

    def stop(self) -> None:
        """End it and whatever it has started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def decisions(home: Path) -> list[dict[str, Any]]:
    """The ledger without wall-clock things, in order."""
    ledger = Ledger(home / "ledger" / "decisions.jsonl")
    ledger.verify()
    return [_plain(vars(record)) for record in ledger.records()]


def state(home: Path) -> dict[str, Any]:
    """All that outlives a run: decisions, data, features online, models, verdicts, releases, alias."""
    client = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")
    versions = client.search_model_versions(f"name='{MODEL}'")
    aliases = client.get_registered_model(MODEL).aliases
    online = sqlite3.connect(home / "feast" / "online.db")
    query = "SELECT view, hex(entity_key), event_us, created_us, hex(features) FROM entity_rows ORDER BY 1, 2"
    return {
        "decisions": decisions(home),
        "manifests": {_name(home, p): json.loads(p.read_text()) for p in (home / "lake").rglob("manifest.json")},
        "versions": {str(v.version): (v.tags["artifact_digest"], v.tags["training_set"]) for v in versions},
        "aliases": {alias: str(version) for alias, version in aliases.items()},
        "verdicts": {_name(home, p): json.loads(p.read_text())["digest"] for p in (home / "verdicts").rglob("*.json")},
        "releases": {_name(home, p): _plain(json.loads(p.read_text())) for p in (home / "releases").rglob("*.json")},
        "reports": {_name(home, p): json.loads(p.read_text()) for p in (home / "monitoring").rglob("*.json")},
        "files": sorted(
            _name(home, p) for k in ("landing", "archive", "quarantine") for p in (home / k).rglob("*") if p.is_file()
        ),
        "training sets": sorted(p.name for p in (home / "training_sets").iterdir()),
        "online": online.execute(query).fetchall(),
    }


def decided(decisions: list[dict[str, Any]]) -> list[str]:
    """The same decisions as text, in an order that does not depend on which of two sources came first."""
    return sorted(json.dumps({k: v for k, v in d.items() if k != "seq"}, sort_keys=True) for d in decisions)


def champion(home: Path) -> str | None:
    """Version that the registry's alias points to."""
    aliases = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db").get_registered_model(MODEL).aliases
    return str(aliases["champion"]) if "champion" in aliases else None


def _name(home: Path, path: Path) -> str:
    return str(path.relative_to(home))


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {k: _plain(v) for k, v in content.items() if k not in WALL_CLOCK}
    return [_plain(v) for v in content] if isinstance(content, list) else content
