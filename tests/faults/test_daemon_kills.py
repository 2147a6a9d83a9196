"""The real daemon, killed at random moments in all of its processes: the end is the one of an undisturbed loop.

It takes long, and is collected only where CT_KILLS says how many: `make test-faults` asks for 100.
"""

import os
import pickle
import random
import time
from pathlib import Path
from typing import Any

import pytest
from real_daemon import running
from small_days import files_of, with_another_climate
from storm import Storm
from worlds import MODEL, Zygote, decided, state

from ct_assets.core.ledger import PROMOTION
from ct_assets.feeds.nycflights import NycFlights

KILLS = int(os.environ.get("CT_KILLS", "6"))
DAYS = 5 + KILLS // 25
"""Three days until the first champion, a fourth of another climate for a retraining, and more days for more kills."""
WITHIN = 600 + 60 * KILLS
"""Seconds; a kill costs a start of a process, and now and then the patience of Dagster's run monitor."""
PARTS = ("manifests", "versions", "aliases", "verdicts", "releases", "reports", "files", "training sets", "online")


@pytest.fixture(scope="module")
def ends(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of an undisturbed home, and of one whose daemon was killed again and again."""
    feed = NycFlights()
    days = [with_another_climate(files) if n == 3 else files for n in range(DAYS) for files in [files_of(feed, n)]]
    calm, stormy = tmp_path_factory.mktemp("calm_daemon"), tmp_path_factory.mktemp("stormy_daemon")
    pickled = calm.parent / f"{calm.name}.pickle"
    pickled.write_bytes(pickle.dumps([[day] for day in days]))
    zygote.start(calm, days=pickled).end(within=900)
    expected, begun = plain(calm), time.monotonic()
    with running(stormy) as daemon:
        decisions = [(d["kind"], d["as_of"]) for d in state(calm)["decisions"] if d["model"] == MODEL]
        storm = Storm(daemon, KILLS, random.Random(20130104), decisions)
        for number, wave in enumerate(days):
            # The last day is for the kills that the days before were too short for.
            storm.land(number, wave, share=(number + 1) / (DAYS - 1), within=WITHIN)
        landed = time.monotonic()
        while (found := plain(stormy)) != expected and time.monotonic() < landed + WITHIN:
            time.sleep(2)
        assert daemon.rests(), daemon.story()
    print(f"{storm.killed.total()} kills {dict(storm.killed)} in {time.monotonic() - begun:.0f} s")
    assert storm.killed.total() >= KILLS
    return expected, found


def plain(home: Path) -> dict[str, Any]:
    """The state of a home, whatever the order in which independent things were done."""
    found = state(home)
    return found | {"decisions": decided(found["decisions"])}


def test_every_decision_is_that_of_the_undisturbed_loop(ends: tuple[dict[str, Any], dict[str, Any]]) -> None:
    expected, found = ends
    assert found["decisions"] == expected["decisions"]


@pytest.mark.parametrize("part", PARTS)
def test_the_end_is_that_of_the_undisturbed_loop(ends: tuple[dict[str, Any], dict[str, Any]], part: str) -> None:
    expected, found = ends
    assert expected[part]
    assert found[part] == expected[part]


def test_no_champion_was_made_twice(ends: tuple[dict[str, Any], dict[str, Any]]) -> None:
    promotions = [decision for decision in ends[1]["decisions"] if f'"kind": "{PROMOTION}"' in decision]
    assert len(promotions) == len(set(promotions)) == 2
