"""Samples what is served into the log, off the path of requests: none waits for it, and none fails because of it."""

import queue
import random
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from ct_assets.lake.served_log import ServedLog, ServedRow, plain
from ct_assets.resources.feast import versions_digest
from ct_assets.serving.features import Features
from ct_assets.serving.live import Live
from ct_assets.serving.schemas import Columns

log = structlog.get_logger(__name__)

EVERY_SECONDS = 10.0
"""Mean time between two logged predictions of a model."""
NOW = timedelta(minutes=1)
"""How far `at` may be from the present: the online store cannot say what it had at another time."""
_WAITING = 1000
"""Rows that wait to be written; more are dropped."""
_STOP_SECONDS = 10.0


class Sampler:
    """Keeps a random sample of what is served, in a thread of its own.

    Args:
        home: `$CT_HOME`.
        every_seconds: Mean time between two logged predictions of a model; 0 logs one of each request.
    """

    def __init__(self, home: Path, every_seconds: float = EVERY_SECONDS) -> None:
        self.home = home
        self.every_seconds = every_seconds
        self._next: dict[str, float] = {}
        self._waiting: queue.Queue[tuple[Live, Columns, Features, datetime, int] | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._write, name="served_log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(_STOP_SECONDS)

    def offer(self, live: Live, given: Columns, features: Features, at: datetime, now: datetime) -> None:
        """Log one instance of a request, if it is time for one.

        Args:
            live: What answered.
            given: Entity keys and request values.
            features: What was read for them.
            at: Timestamp that freshness was judged against.
            now: When the features were read.
        """
        clock = time.monotonic()
        if clock < self._next.get(live.spec.name, 0.0) or abs(at - now) > NOW:
            return
        # A random time ahead, or the sample would keep step with what is published at full minutes.
        pause = random.expovariate(1 / self.every_seconds) if self.every_seconds else 0.0
        self._next[live.spec.name] = clock + pause
        try:
            self._waiting.put_nowait((live, given, features, at, random.randrange(len(features.times))))
        except queue.Full:
            log.warning("served_rows_dropped", model=live.spec.name)

    def _write(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                ServedLog(self.home, item[0].spec.name).append([_row(*item)])
            except Exception as error:
                log.warning("served_rows_not_logged", model=item[0].spec.name, error=f"{type(error).__name__}: {error}")


def _row(live: Live, given: Columns, features: Features, at: datetime, instance: int) -> ServedRow:
    return ServedRow(
        at=plain(at),
        version=live.release.version,
        definitions=versions_digest(live.release.feature_versions),
        given={name: plain(values[instance]) for name, values in given.items()},
        features={name: plain(features.columns[name][instance]) for name in live.features.columns},
    )
