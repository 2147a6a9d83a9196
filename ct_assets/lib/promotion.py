"""Moves of the champion: forward to a challenger that passed, back to an earlier release.

There is one way to move it: under one lock, what serves now is looked at, the move is recorded in the ledger, and the
registry's alias follows. Whatever else moves the alias, or dies in between, `reconcile_alias` makes up for.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from ct_assets.core.artifact import ArtifactError, artifact_digest, load_model
from ct_assets.core.ledger import HOLD_RELEASE, PROMOTION, ROLLBACK, Record
from ct_assets.core.rules import rules_digest
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.verdict import Verdict
from ct_assets.lake.holds import Hold, hold_of, is_taking_back, promoted, promoted_before
from ct_assets.lake.moving import event_time, moving
from ct_assets.lake.releases import Release, Releases
from ct_assets.lake.training_set import TrainingSet, load_training_set
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import CHAMPION, RegistryResource, Version


class PromotionError(ValueError):
    """A challenger that may not become the champion, though its verdict may have passed."""


class OtherOpponentError(PromotionError):
    """A verdict that compares with something else than what serves now: judged again, it may count."""


def promote(
    lake: LakeResource, registry: RegistryResource, spec: ModelSpec, line: Line, challenger: Version, reason: str = ""
) -> Release:
    """Make a challenger the champion of a line, if and only if its verdict passed for exactly its artifact.

    Args:
        lake: Names the home.
        registry: Where the alias is.
        spec: The model.
        line: The model, or one of its segments.
        challenger: What is to serve.
        reason: Why a person asks for it, in words; it is recorded. Only a person promotes an experiment, or anything
            while a rollback holds.

    Raises:
        ArtifactError: The verdict is missing a pass, or is about something else.
        VerdictError: The verdict was changed.
        FileNotFoundError: The challenger was never judged.
        PromotionError: The challenger was champion before; or its verdict has expired, was made by other rules or
            against something else than what serves now; or nobody asked for an experiment, or a rollback holds.
    """
    releases = Releases(lake.path, line, lake.ledger())
    with moving(lake.path):
        verdict = releases.newest_verdict(challenger.version)
        snapshot = load_training_set(lake.lake(), challenger.tags["training_set"])
        release = Release(
            model=line.name,
            version=challenger.version,
            artifact=challenger.artifact,
            artifact_digest=challenger.tags["artifact_digest"],
            feature_service=spec.feature_service,
            feature_versions=verdict.bindings.feature_versions,
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
            _follow(releases, registry)
            return release
        now = event_time(lake.ledger(), line)
        _refuse_what_was_promoted_before(moves, line, release.version)
        _refuse_old_verdict(verdict, spec, now)
        if not reason:
            _refuse_what_nobody_asked_for(releases, verdict, snapshot, hold_of(releases, spec.gate, now))
        _refuse_another_opponent(releases, verdict)
        seal = releases.save(release)
        below = verdict.check("beats_baseline")
        content = {
            "version": release.version,
            "previous": moves[-1]["version"] if moves else None,
            "verdict": verdict.digest,
            "release": seal,
            **({"below_baseline": True} if below is not None and not below.passed else {}),
            **({"reason": reason} if reason else {}),
        }
        # Recorded before the alias moves: a crash in between leaves a decision that the next run carries out.
        key = f"{PROMOTION}/{line.name}/{release.version}"
        lake.ledger().append(PROMOTION, line.name, _dated(now, moves), content, key=key)
        _follow(releases, registry)
    return release


def rollback(
    lake: LakeResource, registry: RegistryResource, line: Line, reason: str, version: str | None = None
) -> Release:
    """Move the champion back to an earlier release; automation promotes nothing for a while then.

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
        ValueError: There is no earlier release, or it is the champion already, or it has never been promoted.
        FileNotFoundError: `version` is no release.
        ArtifactError: The release may not serve: its verdict, or the record of it, does not hold.
        VerdictError: Its verdict was changed.
    """
    releases = Releases(lake.path, line, lake.ledger())
    with moving(lake.path):
        moves = releases.moves()
        if not moves:
            raise ValueError(f"{line.name} has no champion yet, so there is nothing to roll back")
        present = moves[-1]["version"]
        if _alias(registry, line) != present and _is_this_rollback(moves[-1], reason, version):
            # It was recorded and its process died before the alias followed: finish that one.
            return _follow(releases, registry)
        # In the order of their promotion, so that a second rollback goes one further back and not forth again.
        order = promoted(moves)
        before = promoted_before(moves, present) if present else []
        earlier = [v for v in before if _taken_back(moves, v) is None]
        target = version or (earlier[-1] if earlier else None)
        pooled = releases.pooled.present() if releases.pooled else None
        if target is None and (pooled is None or present is None):
            raise ValueError(_nothing_earlier(line, present, first=order[0] == present))
        if target == present:
            raise ValueError(f"version {target} of {line.name} is the champion already; name another with --to")
        if target is not None:
            _refuse_unservable(releases, target)
            if target not in order:
                raise ValueError(
                    f"version {target} of {line.name} has never been promoted, so there is nothing to return to; "
                    f'promote it with: {_command("promote", line)} --version {target} --reason "..."'
                )
        ledger, content = lake.ledger(), {"version": target, "previous": present, "reason": reason}
        ledger.append(ROLLBACK, line.name, _dated(event_time(ledger, line), moves), content)
        return _follow(releases, registry)


def release_hold(lake: LakeResource, spec: ModelSpec, line: Line, reason: str) -> Record:
    """Let automation promote again after a rollback.

    Raises:
        ValueError: No rollback is holding.
    """
    ledger = lake.ledger()
    with moving(lake.path):
        now = event_time(ledger, line)
        hold = hold_of(Releases(lake.path, line, ledger), spec.gate, now)
        if hold is None:
            raise ValueError(f"no rollback holds the promotions of {line.name}, so there is nothing to release")
        return ledger.append(HOLD_RELEASE, line.name, now, {"version": hold.rolled_back, "reason": reason})


def reconcile_alias(lake: LakeResource, registry: RegistryResource, line: Line) -> str | None:
    """Let the registry's alias follow the ledger, if it does not: a process died in between, or somebody moved it.

    Returns:
        What was found and fixed, in words; None if they agreed.
    """
    releases = Releases(lake.path, line, lake.ledger())
    if misplaced(releases, registry) is None:
        return None
    with moving(lake.path):
        found = misplaced(releases, registry)
        if found is not None:
            _point(releases, registry)
        return None if found is None else f"{found}; the alias follows the ledger again"


def reconcile_aliases(lake: LakeResource, registry: RegistryResource, model: str) -> list[str]:
    """Let the aliases of a model and of all its segments follow the ledger; what was found and fixed, in words."""
    lines = [line for line in map(Line.named, lake.ledger().models()) if line.model == model]
    return [found for line in dict.fromkeys([Line(model), *lines]) if (found := reconcile_alias(lake, registry, line))]


def misplaced(releases: Releases, registry: RegistryResource) -> str | None:
    """How the registry's alias differs from the ledger, in words; None if they agree."""
    moves, pointed = releases.moves(), _alias(registry, releases.line)
    recorded = moves[-1]["version"] if moves else None
    if pointed == recorded:
        return None
    return (
        f"the alias {CHAMPION!r} of {releases.line.registered} names {_version(pointed)}, and the ledger "
        f"{_version(recorded)}, which is what serves"
    )


def _version(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"


def _alias(registry: RegistryResource, line: Line) -> str | None:
    pointed = registry.get(line.registered, CHAMPION)
    return pointed.version if pointed else None


def _dated(now: datetime, moves: Sequence[Mapping[str, Any]]) -> datetime:
    """When a move is made, event time: never before an earlier one, so that nothing changes what served when."""
    return max(now, datetime.fromisoformat(moves[-1]["as_of"])) if moves else now


def _refuse_what_was_promoted_before(moves: Sequence[Mapping[str, Any]], line: Line, version: str) -> None:
    """A passed verdict is no reason to return to what was replaced or taken back."""
    if any(move["version"] == version for move in moves):
        taken_back = _taken_back(moves, version)
        how = f"was rolled back ({taken_back['reason']})" if taken_back else "was replaced by a later one"
        raise PromotionError(
            f"version {version} of {line.name} {how}; train a new challenger, or return to it "
            f'with: {_command("rollback", line)} --to {version} --reason "..."'
        )


def _taken_back(moves: Sequence[Mapping[str, Any]], version: str) -> Mapping[str, Any] | None:
    """The rollback to an earlier release that took a version back, if that was the last that happened to it."""
    place = next((i for i in reversed(range(len(moves))) if _names(moves[i], version)), None)
    if place is None or moves[place].get("previous") != version or not is_taking_back(moves, place):
        return None
    return moves[place]


def _names(move: Mapping[str, Any], version: str) -> bool:
    return version in (move["version"], move.get("previous"))


def _is_this_rollback(move: Mapping[str, Any], reason: str, version: str | None) -> bool:
    """Whether the newest move is the very rollback that is asked for."""
    return move["kind"] == ROLLBACK and move.get("reason") == reason and version in (None, move["version"])


def _command(verb: str, line: Line) -> str:
    return f"ct {verb} {line.model}" + (f' --segment "{line.segment}"' if line.segment else "")


def _refuse_old_verdict(verdict: Verdict, spec: ModelSpec, now: datetime) -> None:
    """A verdict counts for a while, and under the rules that it was made by."""
    bound = verdict.bindings
    if bound.rules != rules_digest(spec):
        raise PromotionError(
            f"the verdict was made by other rules than those of {spec.name} today (gate, task, metric or baseline): "
            f"evaluate the challenger again: materialize {spec.name}/evaluation"
        )
    judged = pd.Timestamp(bound.as_of) if bound.as_of else None
    if judged is None or now - judged > pd.Timedelta(days=spec.gate.verdict_days):
        raise PromotionError(
            f"the verdict is as of {bound.as_of} and counts for {spec.gate.verdict_days:g} days; it is "
            f"{now.isoformat()}: train a new challenger, or raise `verdict_days` of the gate"
        )


def _refuse_what_nobody_asked_for(
    releases: Releases, verdict: Verdict, snapshot: TrainingSet, hold: Hold | None
) -> None:
    told = why_not_by_automation(releases, verdict, snapshot, hold)
    if told:
        raise PromotionError(told)


def why_not_by_automation(releases: Releases, verdict: Verdict, snapshot: TrainingSet, hold: Hold | None) -> str:
    """Why automation does not promote a challenger whose verdict has passed, in words; empty if it does."""
    by_hand = f'{_command("promote", releases.line)} --version <its version> --reason "..."'
    if not verdict.bindings.promote:
        return f"it is an experiment, trained by hand with other parameters or as of an earlier moment; {by_hand}"
    if hold is None:
        return ""
    better = verdict.check("better_than_rolled_back")
    compared = verdict.bindings.rolled_back_digest == releases.get(hold.rolled_back).artifact_digest
    if pd.Timestamp(snapshot.split_at) <= hold.since:
        return f"{hold}. It learned from no row that is newer than that; {by_hand}, or {_released(releases.line)}"
    if not (compared and better is not None and better.passed):
        detail = better.detail if better is not None and compared else "it was not compared with that one"
        return f"{hold}. {detail}; {by_hand}, or {_released(releases.line)}"
    return ""


def _released(line: Line) -> str:
    return f'{_command("release-hold", line)} --reason "..."'


def _refuse_another_opponent(releases: Releases, verdict: Verdict) -> None:
    """A verdict counts against what serves now: the line's champion, or the pooled model's in a segment without one."""
    release = releases.serving()
    present, found = release.artifact_digest if release else None, verdict.bindings.champion_digest
    if found != present:
        raise OtherOpponentError(
            f"the verdict compares with {found[:12] if found else 'no champion'}, but {releases.model} is served by "
            f"{present[:12] if present else 'nothing'}: evaluate the challenger again, against what serves now"
        )


def _nothing_earlier(line: Line, present: str | None, first: bool) -> str:
    if present is None:
        return f"{line.name} is served by the pooled model already; name a release to return to with --to"
    if first:
        return f"version {present} is the first release of {line.name}; there is none to return to"
    return f"every release of {line.name} before version {present} was rolled back; name one with --to"


def _follow(releases: Releases, registry: RegistryResource) -> Release:
    """Let the alias follow the ledger, and return what serves."""
    _point(releases, registry)
    serving = releases.serving()
    if serving is None:
        raise ValueError(
            f"{releases.line.model} has no champion, so nothing serves {releases.model}; roll that one back"
        )
    return serving


def _point(releases: Releases, registry: RegistryResource) -> None:
    moves = releases.moves()
    version = moves[-1]["version"] if moves else None
    if version is None:
        registry.unpoint(releases.line.registered, CHAMPION)
    else:
        registry.point(releases.line.registered, CHAMPION, version)


def _refuse_unservable(releases: Releases, version: str) -> None:
    """Refuse a release whose verdict does not hold, or whose bytes are not the judged ones."""
    release = releases.get(version)
    releases.check(release)
    path = Path(release.artifact)
    if not path.exists() or artifact_digest(path.read_bytes()) != release.artifact_digest:
        raise ArtifactError(
            f"{path} is not the model that version {version} was judged with; restore it, or name another"
        )
