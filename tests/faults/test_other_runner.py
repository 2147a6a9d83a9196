"""A process is killed between the verdict and the promotion, and another kind of runner goes on with its home."""

import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from real_daemon import running
from worlds import MODEL, Zygote, champion, decided, decisions, four_days

from ct_assets.feeds import feed_wave

OUTCOMES = ["training", "verdict", "promotion"]
WITHIN = 900
"""Seconds."""


@pytest.fixture(scope="module")
def expected(zygote: Zygote, days: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The decisions of a home that one process drove."""
    home = tmp_path_factory.mktemp("undisturbed")
    zygote.start(home, days=days).end()
    return decided(decisions(home))


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days, which lead to a first champion."""
    pickled = tmp_path_factory.mktemp("days") / "three.pickle"
    pickled.write_bytes(pickle.dumps(four_days()[:3]))
    return pickled


def test_the_daemon_promotes_what_the_driver_judged(
    zygote: Zygote, days: Path, expected: list[str], tmp_path: Path
) -> None:
    life = zygote.start(tmp_path, days=days)
    _wait_for(lambda: _is_judged(tmp_path))
    os.kill(life.pid, signal.SIGKILL)
    assert life.dies()
    assert champion(tmp_path) is None
    with running(tmp_path) as daemon:
        daemon.wait("a promotion", lambda: daemon.champion() and daemon.rests())
    assert decided(decisions(tmp_path)) == expected


def test_the_driver_promotes_what_the_daemon_judged(zygote: Zygote, days: Path, tmp_path: Path) -> None:
    for (wave,) in four_days()[:3]:
        feed_wave(wave, str(tmp_path))
    with running(tmp_path) as daemon:
        daemon.wait("a verdict", lambda: _is_judged(tmp_path))
        daemon.kill()
    assert champion(tmp_path) is None
    zygote.start(tmp_path, days=days).end()
    assert champion(tmp_path) == "1"
    # All three days lie there at once, so their decisions are not those of days that came one by one.
    kinds = [record["kind"] for record in decisions(tmp_path)]
    assert [kind for kind in kinds if kind in OUTCOMES] == OUTCOMES


def _is_judged(home: Path) -> bool:
    return any((home / "verdicts" / MODEL).rglob("*.json"))


def _wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)
