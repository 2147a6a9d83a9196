"""Moves of the champion: forward to a challenger that passed, back to an earlier release."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ct_assets.core.artifact import ArtifactError, artifact_digest, load_model
from ct_assets.core.ledger import PROMOTION, ROLLBACK
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.verdict import Verdict
from ct_assets.lake.releases import Release, Releases
from ct_assets.lake.training_set import load_training_set
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import CHAMPION, RegistryResource, Version


def promote(
    lake: LakeResource, registry: RegistryResource, spec: ModelSpec, line: Line, challenger: Version
) -> Release:
    """Make a challenger the champion of a line, if and only if its verdict passed for exactly its artifact.

    Raises:
        ArtifactError: The verdict is missing a pass, or is about something else.
        VerdictError: The verdict was changed.
        FileNotFoundError: The challenger was never judged.
        ValueError: The challenger was champion before, or was compared with another one than the present.
    """
    releases = Releases(lake.path, line, lake.ledger())
    verdict = releases.newest_verdict(challenger.version)
    bound = verdict.bindings
    snapshot = load_training_set(lake.lake(), challenger.tags["training_set"])
    release = Release(
        model=line.name,
        version=challenger.version,
        artifact=challenger.artifact,
        artifact_digest=challenger.tags["artifact_digest"],
        feature_service=spec.feature_service,
        feature_versions=bound.feature_versions,
        training_set=snapshot.digest,
        verdict=verdict.digest,
        as_of=snapshot.as_of,
    )
    releases.check(release)
    # From the disk and not from memory, where the evaluation may have left the model: these bytes will serve.
    load_model(Path(release.artifact).read_bytes(), release.artifact_digest, spec.trusted_types)
    moves = releases.moves()
    if moves and moves[-1]["version"] == release.version:
        # Promoted before; the process may have died before it moved the alias.
        registry.point(line.registered, CHAMPION, release.version)
        return release
    _refuse_what_was_promoted_before(moves, line, release.version)
    _refuse_another_opponent(releases, verdict)
    content = {
        "version": release.version,
        "previous": moves[-1]["version"] if moves else None,
        "verdict": verdict.digest,
    }
    releases.save(release)
    # Recorded before the alias moves: a crash in between leaves a decision that the next run carries out.
    lake.ledger().append(
        PROMOTION, line.name, pd.Timestamp(release.as_of), content, key=f"promotion/{line.name}/{release.version}"
    )
    registry.point(line.registered, CHAMPION, release.version)
    return release


def _refuse_what_was_promoted_before(moves: Sequence[Mapping[str, Any]], line: Line, version: str) -> None:
    """A passed verdict is no reason to return to what was replaced or taken back."""
    if any(move["version"] == version for move in moves):
        taken_back = _taken_back(moves, version)
        how = f"was rolled back ({taken_back['reason']})" if taken_back else "was replaced by a later one"
        raise ValueError(
            f"version {version} of {line.name} {how}; train a new challenger, or return to it "
            f'with: {_command(line)} --to {version} --reason "..."'
        )


def _taken_back(moves: Sequence[Mapping[str, Any]], version: str) -> Mapping[str, Any] | None:
    """The rollback to an earlier release that took a version back, if that was the last that happened to it."""
    order = _promoted(moves)
    move = next((m for m in reversed(moves) if version in (m["version"], m.get("previous"))), None)
    if move is None or move["kind"] != ROLLBACK or move.get("previous") != version:
        return None
    return move if order.index(str(move["version"])) < order.index(version) else None


def _promoted(moves: Sequence[Mapping[str, Any]]) -> list[str]:
    """Versions in the order of their promotion."""
    return list(dict.fromkeys(str(m["version"]) for m in moves if m["kind"] == PROMOTION))


def _command(line: Line) -> str:
    return f"ct rollback {line.model}" + (f' --segment "{line.segment}"' if line.segment else "")


def _refuse_another_opponent(releases: Releases, verdict: Verdict) -> None:
    """A verdict counts against what serves now.

    In a segment without a champion it is the pooled model that served until then: that one may go on in the meantime.
    """
    moves, trained = releases.moves(), verdict.bindings.as_of
    release = releases.present()
    if release is None and trained is not None:
        release = releases.opponent_at(pd.Timestamp(trained))
    present = release.artifact_digest if release else None
    if verdict.bindings.champion_digest != present:
        found = verdict.bindings.champion_digest
        older = moves and trained is not None and pd.Timestamp(trained) < pd.Timestamp(moves[-1]["as_of"])
        advice = (
            f"train one as of {moves[-1]['as_of']} or later, as this one knows the time before the last move only"
            if older
            else "evaluate the challenger again, against what serves now"
        )
        raise ValueError(
            f"the verdict compares with {found[:12] if found else 'no champion'}, but {releases.model} is served by "
            f"{present[:12] if present else 'nothing'}: {advice}"
        )


def rollback(
    lake: LakeResource, registry: RegistryResource, line: Line, reason: str, version: str | None = None
) -> Release:
    """Move the champion back to an earlier release.

    Args:
        lake: Names the home.
        registry: Where the alias is.
        line: The model, or one of its segments.
        reason: Why, in words; it is recorded.
        version: Release to return to; the one that was promoted before the present champion when None. Before a
            segment's first one, the pooled model served.

    Returns:
        The release that serves from now on.

    Raises:
        ValueError: There is no earlier release, or it is the champion already.
        FileNotFoundError: `version` is no release.
        ArtifactError: The release may not serve: its verdict, or the record of it, does not hold.
        VerdictError: Its verdict was changed.
    """
    releases = Releases(lake.path, line, lake.ledger())
    moves = releases.moves()
    if not moves:
        raise ValueError(f"{line.name} has no champion yet, so there is nothing to roll back")
    present = moves[-1]["version"]
    pointed = registry.get(line.registered, CHAMPION)
    if (pointed.version if pointed else None) != present:
        # An earlier move was recorded and its process died before the alias followed: finish that one.
        return _point(releases, registry, present)
    # In the order of their promotion, so that a second rollback goes one further back and not forth again.
    promoted = _promoted(moves)
    before = promoted[: promoted.index(present)] if present else []
    earlier = [v for v in before if _taken_back(moves, v) is None]
    target = version or (earlier[-1] if earlier else None)
    pooled = releases.pooled.present() if releases.pooled else None
    if target is None and (pooled is None or present is None):
        raise ValueError(_nothing_earlier(line, present, first=promoted[0] == present))
    if target == present:
        raise ValueError(f"version {target} of {line.name} is the champion already; name another with --to")
    if target is not None:
        _servable(releases, target)
    # A move in event time: it counts from the newest moment that anything was decided for.
    ledger, content = lake.ledger(), {"version": target, "previous": present, "reason": reason}
    ledger.append(ROLLBACK, line.name, ledger.newest_moment(line.name), content)
    return _point(releases, registry, target)


def _nothing_earlier(line: Line, present: str | None, first: bool) -> str:
    if present is None:
        return f"{line.name} is served by the pooled model already; name a release to return to with --to"
    if first:
        return f"version {present} is the first release of {line.name}; there is none to return to"
    return f"every release of {line.name} before version {present} was rolled back; name one with --to"


def _point(releases: Releases, registry: RegistryResource, version: str | None) -> Release:
    """Let the alias follow a recorded move; without a version, the pooled model serves the segment."""
    if version is not None:
        release = _servable(releases, version)
        registry.point(releases.line.registered, CHAMPION, version)
        return release
    registry.unpoint(releases.line.registered, CHAMPION)
    serving = releases.pooled.present() if releases.pooled else None
    if serving is None:
        raise ValueError(
            f"{releases.line.model} has no champion, so nothing serves {releases.model}; roll that one back"
        )
    return serving


def _servable(releases: Releases, version: str) -> Release:
    """A release whose verdict holds and whose bytes are the judged ones."""
    release = releases.get(version)
    releases.check(release)
    path = Path(release.artifact)
    if not path.exists() or artifact_digest(path.read_bytes()) != release.artifact_digest:
        raise ArtifactError(
            f"{path} is not the model that version {version} was judged with; restore it, or name another"
        )
    return release
