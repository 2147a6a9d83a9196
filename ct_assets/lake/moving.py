"""Moving the champion: one at a time, and dated when it is done."""

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from ct_assets.core.ledger import DECISIONS, Ledger
from ct_assets.core.segments import Line

LIVE_WITHIN = timedelta(hours=36)
"""A deployment that decides about a day within this after its end lives by the wall clock; a replay is years behind."""


@dataclass
class _Lock:
    mutex: Any = field(default_factory=threading.RLock)
    depth: int = 0


@cache
def _lock_of(_home: Path) -> _Lock:
    return _Lock()


@contextmanager
def moving(home: Path) -> Iterator[None]:
    """Hold the lock under which the champions of a home are moved, against other threads and processes.

    Whoever holds it may take it again; a crash releases it.
    """
    lock = _lock_of(home.resolve())
    with lock.mutex:
        path = home / "ledger" / "moves.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if lock.depth == 0:
                fcntl.flock(file, fcntl.LOCK_EX)
            lock.depth += 1
            try:
                yield
            finally:
                lock.depth -= 1


def event_time(ledger: Ledger, line: Line) -> datetime:
    """The present of a model in event time.

    The wall clock where its newest decision was made soon after the moment that it is about; in a replay of the past,
    the newest moment that anything was recorded for.
    """
    models = [Line(line.model).name, line.name]
    found = [record for model in models if (record := ledger.newest(DECISIONS, model)) is not None]
    newest = max((ledger.newest_moment(model) for model in models), default=datetime.fromtimestamp(0, UTC))
    live = any(
        datetime.fromisoformat(record.recorded_at) - datetime.fromisoformat(record.as_of) <= LIVE_WITHIN
        for record in found
    )
    return max(newest, datetime.now(UTC)) if live else newest
