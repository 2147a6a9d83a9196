"""Watches the two registries, and reports what in them differs from the ledger; what serves does not depend on it."""

import threading
from collections.abc import Mapping
from pathlib import Path

import structlog

from ct_assets.core.segments import Line
from ct_assets.resources.registry import CHAMPION, RegistryResource
from ct_assets.serving.metrics import Metrics

log = structlog.get_logger(__name__)

STOP_SECONDS = 5.0
MODELS, FEATURES = "models", "features"

#: The version that a line's alias has to name (None: no alias), and its artifact's digest where that is known.
Expected = Mapping[Line, tuple[str | None, str | None]]


class RegistryWatch:
    """Compares the registry's aliases with the ledger, and looks whether the registries are still there.

    In a thread of its own: a registry that does not answer must not hold up what follows the ledger.

    Args:
        registry: The model registry.
        features: The feature registry's file; None where it is no file.
        poll_seconds: Pause between two looks.
        metrics: Shows what was found.
    """

    def __init__(
        self, registry: RegistryResource, features: Path | None, poll_seconds: float, metrics: Metrics
    ) -> None:
        self._registry = registry
        self._poll_seconds = poll_seconds
        self._metrics = metrics
        self._files = {MODELS: registry.file, FEATURES: features}
        self._first: dict[str, tuple[int, int]] = {}
        self._expected: Expected = {}
        self._problems: dict[str, str] = {}
        self._mismatches: dict[Line, str] = {}
        self._suspected: dict[Line, str] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look; returns at once."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="registries", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def expect(self, expected: Expected) -> None:
        """Note what the aliases have to name."""
        self._expected = expected

    def problems(self) -> list[str]:
        """Why a registry cannot be relied on; empty when both can."""
        return list(self._problems.values())

    def mismatches(self) -> dict[Line, str]:
        """The lines whose alias names something else than the ledger."""
        return self._mismatches

    def _run(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            problems = {name: problem for name in self._files if (problem := self._file_problem(name))}
            if MODELS not in problems:
                try:
                    self._compare(self._expected)
                except Exception as error:
                    problems[MODELS] = f"the model registry cannot be read ({type(error).__name__}: {error})"
            for name in problems.keys() - self._problems.keys():
                log.error("registry_problem", registry=name, problem=problems[name])
            self._problems = problems
            for name in self._files:
                self._metrics.registry_up.labels(name).set(name not in problems)

    def _file_problem(self, name: str) -> str | None:
        """Whether a registry's file is gone, or another one than at the first look; connections outlive their file."""
        path = self._files[name]
        if path is None:
            return None
        file = file_of(path)
        if file is None:
            return f"the registry of {name} is gone: {path} is not there; what is loaded goes on serving: restore it"
        if file != self._first.setdefault(name, file):
            return (
                f"the registry of {name} was replaced: {path} is another file than when this server began to read it; "
                "what is loaded goes on serving: restart the server once the new file is the right one"
            )
        return None

    def _compare(self, expected: Expected) -> None:
        found = {
            line: text for line, (version, digest) in expected.items() if (text := self._differs(line, version, digest))
        }
        # A promotion moves the alias right after the ledger: what differs at one look only is on its way.
        mismatches = {line: text for line, text in found.items() if self._suspected.get(line) == text}
        self._suspected = found
        for line in mismatches.keys() - self._mismatches.keys():
            log.error("alias_differs_from_ledger", model=line.name, problem=mismatches[line])
        self._mismatches = mismatches
        for model in {line.model for line in expected}:
            self._metrics.alias_mismatch.labels(model).set(sum(line.model == model for line in mismatches))

    def _differs(self, line: Line, version: str | None, digest: str | None) -> str | None:
        named = self._registry.get(line.registered, CHAMPION)
        if (named.version if named else None) != version:
            says = f"version {named.version}" if named else "nothing"
            return (
                f"alias {CHAMPION!r} of {line.registered} names {says}, and the ledger {_version(version)}: what the "
                "ledger names serves; an alias moved by hand changes nothing: use ct rollback"
            )
        kept = named.tags.get("artifact_digest") if named else None
        if kept is not None and digest is not None and kept != digest:
            return (
                f"version {version} of {line.registered} in the registry is another model ({kept[:12]}) than the one "
                f"that serves ({digest[:12]}): restore the registry"
            )
        return None


def _version(version: str | None) -> str:
    return f"version {version}" if version else "none"


def file_of(path: Path | None) -> tuple[int, int] | None:
    """Which file lies at a path, by device and inode; None when there is none."""
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status else None
