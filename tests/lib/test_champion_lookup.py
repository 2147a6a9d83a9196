"""Which release was champion when: by the moves of the ledger, of which none is read that does not matter."""

from pathlib import Path

import pandas as pd
import pytest

from ct_assets.core.ledger import PROMOTION, ROLLBACK, Ledger
from ct_assets.core.segments import Line
from ct_assets.lake.releases import Releases

DAY, START = pd.Timedelta(days=1), pd.Timestamp("2020-01-01", tz="UTC")
INSTANT = pd.Timedelta(1, "us")


class Named(Releases):
    """Releases of which only the version is looked at."""

    def get(self, version: str) -> str:  # type: ignore[override]
        return version


@pytest.fixture
def releases(tmp_path: Path) -> Named:
    ledger = Ledger(tmp_path / "decisions.jsonl")
    moves = [(PROMOTION, 3, "1"), (PROMOTION, 9, "2"), (ROLLBACK, 9, "1"), (PROMOTION, 20, "3"), (ROLLBACK, 21, None)]
    for kind, day, version in moves:
        ledger.append("verdict", "m", START + day * DAY, {"version": version})
        ledger.append(kind, "m", START + day * DAY, {"version": version})
        ledger.append(kind, "other", START + day * DAY, {"version": "9"})
    return Named(tmp_path, Line("m"), ledger)


def test_the_last_move_up_to_a_moment_counts(releases: Named) -> None:
    at = {day: releases.champion_at(START + day * DAY) for day in (2, 3, 8, 9, 19, 20, 21, 50)}
    assert at == {2: None, 3: "1", 8: "1", 9: "1", 19: "1", 20: "3", 21: None, 50: None}
    assert releases.champion_at(START + 3 * DAY - INSTANT) is None
    assert releases.champion_at(START + 21 * DAY - INSTANT) == "3"


def test_present_is_the_last_move_written(releases: Named) -> None:
    assert releases.present() is None
    releases.ledger.append(PROMOTION, "m", START, {"version": "2"})
    assert releases.present() == "2"
    assert [move["version"] for move in releases.moves()] == ["1", "2", "1", "3", None, "2"]
