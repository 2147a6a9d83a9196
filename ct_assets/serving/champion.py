"""The holder of the live models: follows the registry's alias, and swaps a release in only when it may serve."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog

from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.lake.releases import Releases
from ct_assets.resources.feast import feature_store
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import CHAMPION, RegistryResource, Version
from ct_assets.serving.live import Live, Serving, load_release
from ct_assets.serving.metrics import Metrics

if TYPE_CHECKING:
    from feast import FeatureStore

T = TypeVar("T")
log = structlog.get_logger(__name__)

#: A refused release is tried again after this, then after twice as long each time, up to the longest pause.
FIRST_PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 300.0
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Refusal:
    """A release that the alias named and that was not loaded.

    Attributes:
        version: Its version.
        reason: Why, in words.
        at: When, UTC.
        files: State of its files then; another state is worth another attempt at once.
        pause: Seconds until the next attempt.
        retry_at: When that is, on the monotonic clock.
    """

    version: str
    reason: str
    at: datetime
    files: tuple[object, ...]
    pause: float
    retry_at: float


@dataclass
class _Slot:
    """State of one line of champions. Requests read `live` once each; only the polling thread writes.

    `expected` says whether there is a champion to load, as far as is known.
    """

    live: Live | None = None
    waiting_for: str | None = "the server is starting: the model registry and the feature store are being opened"
    refusal: Refusal | None = None
    expected: bool = True


class Champions:
    """Keeps the champion of every model in memory, and current.

    A request reads one reference and never waits for a load: the alias is polled and releases are loaded by a thread
    of this object. What is refused changes nothing but the status.

    Args:
        specs: The models by name.
        home: `$CT_HOME`.
        poll_seconds: Pause between looks at the alias.
        metrics: Counts swaps and refusals.
    """

    def __init__(self, specs: Mapping[str, ModelSpec], home: Path, poll_seconds: float, metrics: Metrics) -> None:
        self.specs = dict(specs)
        self.home = home
        self.poll_seconds = poll_seconds
        self.metrics = metrics
        lake = LakeResource(home=str(home))
        self._registry = RegistryResource(lake=lake)
        self._ledger = lake.ledger()
        self._slots = {Line(name): _Slot() for name in self.specs}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow the alias; returns at once."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._follow, name="champions", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following, and give a load under way a moment to finish."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def serving(self, name: str) -> Serving | None:
        """What serves a model and its segments; None when nothing does yet."""
        own = self._slots[Line(name)].live
        return Serving(own, self._segments(name, lambda slot: slot.live)) if own else None

    def waiting_for(self, name: str) -> str | None:
        """Why nothing serves a model; None when something does."""
        slot = self._slots[Line(name)]
        return None if slot.live else slot.waiting_for

    def ready(self) -> bool:
        """Whether something serves, and every model that has a champion is loaded."""
        slots = [self._slots[Line(name)] for name in self.specs]
        return any(slot.live for slot in slots) and all(slot.live or not slot.expected for slot in slots)

    def refusal(self, name: str) -> Refusal | None:
        """The last release of a model that was refused."""
        return self._slots[Line(name)].refusal

    def segment_refusals(self, name: str) -> dict[str, Refusal]:
        """The last releases of its segments that were refused."""
        return self._segments(name, lambda slot: slot.refusal)

    def _segments(self, name: str, what: Callable[[_Slot], T | None]) -> dict[str, T]:
        if self.specs[name].segment_by is None:
            return {}
        found = {line.segment: what(slot) for line, slot in list(self._slots.items()) if line.model == name}
        return {segment: value for segment, value in found.items() if segment is not None and value is not None}

    def _follow(self) -> None:
        store: FeatureStore | None = None
        while not self._stop.is_set():
            pause = self.poll_seconds
            try:
                store = store or feature_store(self.home, apply=False)
                for name, spec in self.specs.items():
                    self._poll(store, Line(name), self._registry.get(name, CHAMPION))
                    if spec.segment_by is not None:
                        self._poll_segments(store, name)
            except Exception as error:
                # Whatever is down, what serves goes on serving, and the next look may find it up again.
                log.warning("champions_not_polled", error=_words(error), exc_info=True)
                for slot in self._slots.values():
                    slot.waiting_for = f"the model registry or the feature store cannot be read: {_words(error)}"
                pause = max(pause, FIRST_PAUSE_SECONDS)
            self._stop.wait(pause)

    def _poll_segments(self, store: "FeatureStore", name: str) -> None:
        """Look at the aliases of all segments at once; one that lost its champion is served by the model's own."""
        prefix = Line(name, "").registered
        aliased = self._registry.aliased(prefix, CHAMPION)
        serving = {line.registered for line in list(self._slots) if line.model == name and line.segment is not None}
        for registered in sorted({*aliased, *serving}):
            line = Line.of(name, registered.removeprefix(prefix))
            slot, number = self._slots.setdefault(line, _Slot()), aliased.get(registered)
            if number is None:
                slot.live = slot.refusal = None
                self.metrics.gone(line.name)
            elif slot.live is None or slot.live.release.version != number:
                self._poll(store, line, self._registry.get(registered, CHAMPION))

    def _poll(self, store: "FeatureStore", line: Line, version: Version | None) -> None:
        name, slot = line.name, self._slots[line]
        slot.expected = version is not None
        if version is None:
            slot.waiting_for = f"model {name} has no champion yet: no version in the registry has alias {CHAMPION!r}"
            return
        serving = slot.live.release if slot.live else None
        if serving is not None and serving.version == version.version:
            return
        files = self._files(line, version)
        if not _is_due(slot.refusal, version.version, files):
            return
        try:
            live = load_release(store, self._releases(line), self.specs[line.model], version.version)
        except Exception as error:
            self._refuse(slot, line, version, files, error)
            return
        slot.live = live
        self.metrics.served(live.release)
        log.info("champion_loaded", model=name, version=version.version, replaced=serving.version if serving else None)

    def _refuse(self, slot: _Slot, line: Line, version: Version, files: tuple[object, ...], error: Exception) -> None:
        before = slot.refusal
        again = before is not None and (before.version, before.files) == (version.version, files)
        pause = min(before.pause * 2, LONGEST_PAUSE_SECONDS) if again and before else FIRST_PAUSE_SECONDS
        reason = _words(error)
        slot.refusal = Refusal(version.version, reason, datetime.now(UTC), files, pause, time.monotonic() + pause)
        slot.waiting_for = f"version {version.version} was refused: {reason}"
        self.metrics.refusals.labels(line.model).inc()
        serving = slot.live.release.version if slot.live else None
        log.error("champion_refused", model=line.name, version=version.version, reason=reason, serving=serving)

    def _releases(self, line: Line) -> Releases:
        return Releases(self.home, line, self._ledger)

    def _files(self, line: Line, version: Version) -> tuple[object, ...]:
        """What a release's files look like from outside: cheap, and different once one was replaced or mended."""
        return tuple(map(_state, self._releases(line).files(version.version)))


def _is_due(refusal: Refusal | None, version: str, files: tuple[object, ...]) -> bool:
    """Whether a version is worth an attempt: not refused before, its files changed, or the pause is over."""
    if refusal is None or (refusal.version, refusal.files) != (version, files):
        return True
    return time.monotonic() >= refusal.retry_at


def _words(error: Exception) -> str:
    """What to tell of an error; those that were not raised to be read need their type to be understood."""
    return str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)
