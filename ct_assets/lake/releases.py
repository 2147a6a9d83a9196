"""Releases: what may serve, as one unit, and which of them served when.

A release file is written once. Which release is champion follows from the ledger; the registry's alias follows the
ledger, and whoever loads a model checks it against the release and its verdict.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from ct_assets.core.artifact import ArtifactError, load_model
from ct_assets.core.canonical import digest
from ct_assets.core.ledger import POINTER_MOVES, PROMOTION, VERDICT, Ledger, Record
from ct_assets.core.profile import Profile
from ct_assets.core.schema_versions import newer_schema
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.verdict import SCHEMA_VERSION as VERDICT_VERSION
from ct_assets.core.verdict import Verdict, VerdictError
from ct_assets.lake.paths import write_atomically

SCHEMA_VERSION = 1
"""Of release files that are written today."""


@dataclass(frozen=True)
class Release:
    """A model with everything it was judged with.

    Attributes:
        model: Name of its line of champions.
        version: Version in the model registry.
        artifact: Path of the serialized model; relative to the home in its file, if it lies there.
        artifact_digest: SHA-256 of the serialized model.
        feature_service: Where it reads features from.
        feature_versions: The service's views with the digests of their definitions.
        training_set: Digest of its training set.
        verdict: Digest of the verdict that lets it serve.
        as_of: Event time of its training, ISO 8601 in UTC.
        schema_version: Of its file. What later versions add to the file is left alone.
    """

    model: str
    version: str
    artifact: str
    artifact_digest: str
    feature_service: str
    feature_versions: dict[str, str]
    training_set: str
    verdict: str
    as_of: str
    schema_version: int = SCHEMA_VERSION


class Releases:
    """The releases, verdicts and reference profiles of one line of champions.

    Args:
        home: `$CT_HOME`.
        line: The model, or one of its segments.
        ledger: Where the moves of the champion are recorded.
    """

    def __init__(self, home: Path, line: Line, ledger: Ledger) -> None:
        self.home = home
        self.line = line
        self.model = line.name
        self.ledger = ledger

    @property
    def pooled(self) -> "Releases | None":
        """Those of the model that serves a segment without a champion; None for that one itself."""
        return None if self.line.segment is None else Releases(self.home, Line(self.line.model), self.ledger)

    def save_verdict(self, verdict: Verdict) -> None:
        """Keep a verdict under its digest: a version that is judged again has several."""
        path = self._folder("verdicts") / f"{verdict.digest}.json"
        write_atomically(path, json.dumps(verdict.document(), indent=2).encode())

    def verdict(self, name: str) -> Verdict:
        """A verdict, with its seal checked.

        Raises:
            FileNotFoundError: There is no such verdict.
            VerdictError: The verdict was changed after the gate sealed it, or a newer version of the code wrote it.
        """
        path = self._folder("verdicts") / f"{name}.json"
        if not path.exists():
            raise FileNotFoundError(
                f"verdict {name[:12]} of {self.model} is gone: expected {path}; restore it, or evaluate again"
            )
        document = json.loads(path.read_bytes())
        if problem := newer_schema(document, VERDICT_VERSION):
            raise VerdictError(f"{path} {problem}")
        verdict = Verdict.model_validate(document)
        verdict.verify()
        if verdict.digest != name:
            raise VerdictError(f"{path} is verdict {verdict.digest[:12]}, not the one it is named after: restore it")
        return verdict

    def newest_verdict(self, version: str) -> Verdict:
        """The newest verdict on a version.

        Raises:
            FileNotFoundError: The version was never judged.
            VerdictError: The verdict was changed after the gate sealed it.
        """
        record = self._judged(version)
        if record is None:
            raise FileNotFoundError(
                f"version {version} of {self.model} has no verdict; materialize {self.model}/evaluation first"
            )
        return self.verdict(record.evidence["verdict"])

    def is_judged(self, version: str) -> bool:
        """Whether there is a verdict on a version."""
        return self._judged(version) is not None

    def _judged(self, version: str) -> Record | None:
        found = self.ledger.iterate(VERDICT, self.model, newest_first=True)
        return next((record for record in found if record.evidence["version"] == version), None)

    def save(self, release: Release) -> str:
        """Write a release; it is never changed after it was promoted.

        Returns:
            The digest that seals what was written, which the record of its promotion holds.

        Raises:
            ArtifactError: What is stored under this version is another release, which was promoted.
        """
        path = self._folder("releases") / f"{release.version}.json"
        if path.exists() and self._promotion(release.version) is not None:
            if self.get(release.version) != release:
                raise ArtifactError(
                    f"{path} is another release than version {release.version} of {self.model} as it was judged: it "
                    "was changed, or written by hand; move it away and promote again"
                )
            return _seal(json.loads(path.read_bytes()))
        inside = Path(release.artifact).is_relative_to(self.home)
        artifact = Path(release.artifact).relative_to(self.home).as_posix() if inside else release.artifact
        document = asdict(replace(release, artifact=artifact))
        write_atomically(path, json.dumps(document, indent=2).encode())
        return _seal(document)

    def get(self, version: str) -> Release:
        """A release by its version.

        Raises:
            ArtifactError: Its file is not the one that was promoted, or a newer version of the code wrote it.
            FileNotFoundError: That version never became a release.
        """
        path = self._folder("releases") / f"{version}.json"
        if not version.isdigit() or not path.exists():
            versions = sorted(int(p.stem) for p in self._folder("releases").glob("*.json") if p.stem.isdigit())
            known = ", ".join(map(str, versions)) or "none yet"
            raise FileNotFoundError(f"version {version} of {self.model} is no release; releases: {known}")
        document, promoted = json.loads(path.read_bytes()), self._promotion(version)
        if problem := newer_schema(document, SCHEMA_VERSION):
            raise ArtifactError(f"{path} {problem}")
        if promoted is not None and promoted.get("release", found := _seal(document)) != found:
            raise ArtifactError(
                f"{path} is not the release that was promoted as version {version} of {self.model}: it was changed; "
                "restore it, or roll back to another one"
            )
        known_fields = {field.name for field in fields(Release)}
        content = {name: value for name, value in document.items() if name in known_fields}
        # A path that is absolute stays as it is.
        return Release(**{**content, "artifact": str(self.home / content["artifact"])})

    def _promotion(self, version: str) -> Mapping[str, Any] | None:
        record = self.ledger.find(f"{PROMOTION}/{self.model}/{version}")
        return None if record is None else record.evidence

    def champion_at(self, as_of: pd.Timestamp) -> Release | None:
        """The release that was champion at a moment of event time.

        None before the first promotion, and for a segment that was handed back to the pooled model.
        """
        move = self.ledger.last_written(POINTER_MOVES, self.model, until=as_of)
        return self.get(move.evidence["version"]) if move and move.evidence["version"] else None

    def present(self) -> Release | None:
        """The release that the newest move of the champion named."""
        move = self.ledger.last_written(POINTER_MOVES, self.model)
        return self.get(move.evidence["version"]) if move and move.evidence["version"] else None

    def serving(self) -> Release | None:
        """What serves now: the champion, or the pooled model's in a segment without one."""
        return self.present() or (self.pooled.present() if self.pooled else None)

    def opponent(self, version: str) -> Release | None:
        """What a version is compared with: what serves now; the champion itself meets what served before it."""
        moves = self.moves()
        if not moves or moves[-1]["version"] != version:
            return self.serving()
        before = moves[-1].get("previous")
        if before:
            return self.get(before)
        return self.pooled.champion_at(pd.Timestamp(moves[-1]["as_of"])) if self.pooled else None

    def moves(self) -> list[dict[str, Any]]:
        """Every move of the champion, oldest first."""
        records = [r for kind in POINTER_MOVES for r in self.ledger.records(kind, self.model)]
        return [
            {"kind": r.kind, "as_of": r.as_of, "seq": r.seq, **r.evidence} for r in sorted(records, key=lambda r: r.seq)
        ]

    def check(self, release: Release) -> Verdict:
        """Verify that a release may serve.

        Returns:
            Its verdict: passed, sealed, bound to exactly this artifact, and recorded in the ledger.

        Raises:
            ArtifactError: One of these does not hold.
            FileNotFoundError: The verdict is gone.
            VerdictError: The verdict was changed.
        """
        verdict = self.verdict(release.verdict)
        bound = verdict.bindings
        expected = (release.artifact_digest, release.training_set, release.feature_versions)
        found = (bound.artifact_digest, bound.training_set_digest, bound.feature_versions)
        problem = None
        if not verdict.passed:
            problem = "its verdict is " + ("a rejection" if verdict.outcome == "rejected" else verdict.outcome)
        elif expected != found:
            problem = "its verdict is about another artifact, training set or feature version"
        elif not self._is_recorded(verdict):
            problem = "the ledger knows no such verdict"
        if problem:
            raise ArtifactError(
                f"version {release.version} of {self.model} must not serve: {problem}; evaluate it again"
            )
        return verdict

    def _is_recorded(self, verdict: Verdict) -> bool:
        found = self.ledger.iterate(VERDICT, self.model, newest_first=True)
        return any(record.evidence.get("verdict") == verdict.digest for record in found)

    def load(self, release: Release, spec: ModelSpec) -> Any:
        """Load a release's model, one's own or the pooled one's, after checking its verdict and digest.

        Raises:
            ArtifactError: The release may not serve, or its bytes are not the judged ones.
            FileNotFoundError: The verdict or the artifact is gone.
            VerdictError: The verdict was changed.
        """
        of = self.pooled if self.pooled and release.model == self.pooled.model else self
        of.check(release)
        return load_artifact(release.artifact, release.artifact_digest, spec.trusted_types)

    def files(self, version: str) -> list[Path]:
        """The files that a release consists of, as far as they are known."""
        path = self._folder("releases") / f"{version}.json"
        try:
            release = self.get(version)
        except (FileNotFoundError, ValueError, TypeError):
            return [path]
        return [path, self._folder("verdicts") / f"{release.verdict}.json", Path(release.artifact)]

    def reference(self, release: Release) -> Profile:
        """Profile of what the release was trained on."""
        return _reference(str(Path(release.artifact).with_name("reference.json")))

    def _folder(self, kind: str) -> Path:
        return self.home / kind / self.line.folder


def _seal(document: Mapping[str, Any]) -> str:
    """Digest of a release's file as it is; where the artifact lies may differ, as what it is, is among the rest."""
    return digest({name: value for name, value in document.items() if name != "artifact"})


@lru_cache(maxsize=8)
def load_artifact(path: str, expected: str, trusted: tuple[str, ...]) -> Any:
    """Load a serialized model whose bytes have the `expected` digest; the newest few stay in memory.

    Raises:
        ArtifactError: The bytes have another digest.
    """
    return load_model(Path(path).read_bytes(), expected, trusted)


@lru_cache(maxsize=8)
def _reference(path: str) -> Profile:
    return Profile.from_json(Path(path).read_text())
