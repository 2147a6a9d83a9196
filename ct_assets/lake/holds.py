"""The hold after a rollback: what a person took back, automation does not bring back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from ct_assets.core.ledger import HOLD_RELEASE, PROMOTION, ROLLBACK
from ct_assets.core.verdict import GatePolicy
from ct_assets.lake.releases import Release, Releases


@dataclass(frozen=True)
class Hold:
    """A rollback that still holds.

    Attributes:
        rolled_back: Version that served before it.
        since: When it was rolled back, event time.
        until: When the hold ends by itself; None if it does not.
        reason: Why it was rolled back, in words.
    """

    rolled_back: str
    since: pd.Timestamp
    until: pd.Timestamp | None
    reason: str

    def __str__(self) -> str:
        end = "until it is released" if self.until is None else f"until {self.until.isoformat()}"
        return f"version {self.rolled_back} was rolled back on {self.since.isoformat()} ({self.reason}); held {end}"


def hold_of(releases: Releases, gate: GatePolicy, now: datetime) -> Hold | None:
    """The hold on a line's promotions at a moment of event time; None when there is none."""
    moves = releases.moves()
    if not moves or not is_taking_back(moves, len(moves) - 1):
        return None
    move, since = moves[-1], pd.Timestamp(moves[-1]["as_of"])
    if any(record.seq > move["seq"] for record in releases.ledger.records(HOLD_RELEASE, releases.model)):
        return None
    until = None if gate.rollback_hold_days is None else since + pd.Timedelta(days=gate.rollback_hold_days)
    if until is not None and now >= until:
        return None
    return Hold(str(move["previous"]), since, until, str(move.get("reason", "")))


def held_release(releases: Releases, gate: GatePolicy, now: datetime) -> Release | None:
    """The release that was rolled back, while that holds."""
    hold = hold_of(releases, gate, now)
    return None if hold is None else releases.get(hold.rolled_back)


def is_taking_back(moves: Sequence[Mapping[str, Any]], position: int) -> bool:
    """Whether a move is a rollback to something that was promoted earlier; a return to a later one takes none back."""
    move = moves[position]
    if move["kind"] != ROLLBACK or not move.get("previous"):
        return False
    return not move["version"] or str(move["version"]) in promoted_before(moves, str(move["previous"]))


def promoted_before(moves: Sequence[Mapping[str, Any]], version: str) -> list[str]:
    """Versions that were promoted for the first time before another one; all where that one never was."""
    order = promoted(moves)
    return order[: order.index(version)] if version in order else order


def promoted(moves: Sequence[Mapping[str, Any]]) -> list[str]:
    """Versions in the order of their promotion."""
    return list(dict.fromkeys(str(move["version"]) for move in moves if move["kind"] == PROMOTION))
