"""The holder of the live models: follows the ledger, and swaps a release in only when it may serve."""

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
from ct_assets.resources.feast import feature_registry_file, serving_store
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import RegistryResource
from ct_assets.serving.live import Live, Serving, load_release
from ct_assets.serving.metrics import Metrics
from ct_assets.serving.watch import RegistryWatch, file_of

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
    """A release that the ledger named and that was not loaded.

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

    def __str__(self) -> str:
        return f"version {self.version} was refused: {self.reason}"


@dataclass
class _Slot:
    """State of one line of champions. Requests read `live` once each; only the polling thread writes.

    `expected` says whether there is a champion to load, as far as is known.
    """

    live: Live | None = None
    waiting_for: str | None = "the server is starting: the ledger and the feature store are being opened"
    refusal: Refusal | None = None
    expected: bool = True


class Champions:
    """Keeps the champion of every model in memory, and current.

    What serves is the release that the newest move of the ledger names. The registry's alias follows that move: one
    that was moved by hand serves nothing, and is reported.

    A request reads one reference and never waits for a load: the ledger is polled and releases are loaded by a thread
    of this object. What is refused changes nothing but the status.

    Args:
        specs: The models by name.
        home: `$CT_HOME`.
        poll_seconds: Pause between looks at the ledger.
        metrics: Counts swaps and refusals.
    """

    def __init__(self, specs: Mapping[str, ModelSpec], home: Path, poll_seconds: float, metrics: Metrics) -> None:
        self.specs = dict(specs)
        self.home = home
        self.poll_seconds = poll_seconds
        self.metrics = metrics
        lake = LakeResource(home=str(home))
        self.watch = RegistryWatch(RegistryResource(home=str(home)), feature_registry_file(home), poll_seconds, metrics)
        self._ledger = lake.ledger()
        self._slots = {Line(name): _Slot() for name in self.specs}
        self._moves: dict[Line, str | None] = {}
        self._lost: list[Line] = []
        self._problem: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow the ledger; returns at once."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._follow, name="champions", daemon=True)
        self._thread.start()
        self.watch.start()

    def stop(self) -> None:
        """Stop following, and give a load under way a moment to finish."""
        self._stop.set()
        self.watch.stop()
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

    def features_problem(self) -> str | None:
        """Why the features of what serves cannot be read at the moment; None when they can."""
        for name in self.specs:
            live = self._slots[Line(name)].live
            try:
                if live is not None:
                    live.features.check()
            except Exception as error:
                return _words(error)
        return None

    def refusal(self, name: str) -> Refusal | None:
        """The last release of a model that was refused."""
        return self._slots[Line(name)].refusal

    def segment_refusals(self, name: str) -> dict[str, Refusal]:
        """The last releases of its segments that were refused."""
        return self._segments(name, lambda slot: slot.refusal)

    def common_problems(self) -> list[str]:
        """Why the ledger or a registry cannot be relied on; empty when all can."""
        return [*([self._problem] if self._problem else []), *self.watch.problems()]

    def problems(self, name: str) -> list[str]:
        """What the registries say otherwise than the ledger about a model and its segments, or why they cannot."""
        return [
            *self.common_problems(),
            *(text for line, text in self.watch.mismatches().items() if line.model == name),
        ]

    def _segments(self, name: str, what: Callable[[_Slot], T | None]) -> dict[str, T]:
        if self.specs[name].segment_by is None:
            return {}
        found = {line.segment: what(slot) for line, slot in list(self._slots.items()) if line.model == name}
        return {segment: value for segment, value in found.items() if segment is not None and value is not None}

    def _follow(self) -> None:
        store: FeatureStore | None = None
        registry_file: object = None
        ledger_state: object = None
        while not self._stop.is_set():
            pause = self.poll_seconds
            try:
                if store is None or file_of(feature_registry_file(self.home)) not in (registry_file, None):
                    # What is loaded goes on with the store that it was loaded with.
                    registry_file = file_of(feature_registry_file(self.home))
                    store = serving_store(self.home)
                state = _state(self._ledger.path)
                if state != ledger_state:
                    self._read_moves()
                    ledger_state = state
                for name in self.specs:
                    if Line(name) not in self._moves:
                        self._without_champion(name)
                for line, version in list(self._moves.items()):
                    self._poll(store, line, version)
                self.watch.expect(self._expected())
                self._report(self._what_is_lost())
            except Exception as error:
                # Whatever is down, what serves goes on serving, and the next look may find it up again.
                problem = f"the ledger or the feature store cannot be read: {_words(error)}"
                self._report(problem)
                for slot in self._slots.values():
                    slot.waiting_for = problem
                pause = max(pause, FIRST_PAUSE_SECONDS)
            self._stop.wait(pause)

    def _report(self, problem: str | None) -> None:
        """Note what is wrong; in the log once, and not at every look."""
        if problem and problem != self._problem:
            log.error("champions_not_followed", problem=problem)
        self._problem = problem

    def _what_is_lost(self) -> str | None:
        """Whether the ledger no longer says what it said to this server before."""
        if not self._lost:
            return None
        path = self._ledger.path
        what = f"has no move of {', '.join(line.name for line in self._lost)} any more" if path.exists() else "is gone"
        return f"the ledger {path} {what}; what is loaded goes on serving: restore the ledger from a copy"

    def _read_moves(self) -> None:
        """The version that the newest move of every line names; a line that is gone from the ledger keeps its last."""
        segmented = {name for name, spec in self.specs.items() if spec.segment_by is not None}
        segments = [line for name in self._ledger.models() if (line := Line.named(name)).segment is not None]
        lines = [*map(Line, self.specs), *(line for line in segments if line.model in segmented)]
        found = {line: moves[-1]["version"] for line in lines if (moves := self._releases(line).moves())}
        self._moves |= found
        self._lost = [line for line in self._moves if line not in found]

    def _expected(self) -> dict[Line, tuple[str | None, str | None]]:
        """The version that each line's alias has to name, and the digest of its model where it serves."""
        expected = {}
        for line, version in self._moves.items():
            live = self._slots[line].live
            digest = live.release.artifact_digest if live and live.release.version == version else None
            expected[line] = (version, digest)
        return {**{Line(name): (None, None) for name in self.specs}, **expected}

    def _without_champion(self, name: str) -> None:
        slot = self._slots[Line(name)]
        slot.expected = False
        slot.waiting_for = f"model {name} has no champion yet: the ledger has no promotion of it"

    def _poll(self, store: "FeatureStore", line: Line, version: str | None) -> None:
        slot = self._slots.setdefault(line, _Slot())
        if version is None:
            # A segment that was handed back to the model's own champion.
            slot.live = slot.refusal = None
            self.metrics.gone(line.name)
            return
        slot.expected = True
        serving = slot.live.release if slot.live else None
        if serving is not None and serving.version == version:
            return
        files = self._files(line, version)
        if not _is_due(slot.refusal, version, files):
            slot.waiting_for = str(slot.refusal)
            return
        try:
            live = load_release(store, self._releases(line), self.specs[line.model], version)
        except Exception as error:
            self._refuse(slot, line, version, files, error)
            return
        slot.live = live
        self.metrics.served(live.release)
        log.info("champion_loaded", model=line.name, version=version, replaced=serving.version if serving else None)

    def _refuse(self, slot: _Slot, line: Line, version: str, files: tuple[object, ...], error: Exception) -> None:
        before = slot.refusal
        again = before is not None and (before.version, before.files) == (version, files)
        pause = min(before.pause * 2, LONGEST_PAUSE_SECONDS) if again and before else FIRST_PAUSE_SECONDS
        reason = _words(error)
        slot.refusal = Refusal(version, reason, datetime.now(UTC), files, pause, time.monotonic() + pause)
        slot.waiting_for = str(slot.refusal)
        self.metrics.refusals.labels(line.model).inc()
        serving = slot.live.release.version if slot.live else None
        log.error("champion_refused", model=line.name, version=version, reason=reason, serving=serving)

    def _releases(self, line: Line) -> Releases:
        return Releases(self.home, line, self._ledger)

    def _files(self, line: Line, version: str) -> tuple[object, ...]:
        """What a release's files look like from outside: cheap, and different once one was replaced or fixed."""
        return tuple(map(_state, self._releases(line).files(version)))


def _is_due(refusal: Refusal | None, version: str, files: tuple[object, ...]) -> bool:
    """Whether a version is worth an attempt: not refused before, its files changed, or the pause is over."""
    if refusal is None or (refusal.version, refusal.files) != (version, files):
        return True
    return time.monotonic() >= refusal.retry_at


def _words(error: Exception) -> str:
    """An error in words; those that were not raised to be read need their type to be understood."""
    return str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)
