import os
import pickle
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from worlds import Driven, Life, Zygote, state

from ct_assets.feeds import Delivery

# Kills of the real daemon take minutes each on a small machine: `make test-faults` asks for them.
collect_ignore = [] if "CT_KILLS" in os.environ else ["test_daemon_kills.py", "test_other_runner.py"]

TIMED_KILLS = 3
COUNTED_KILLS = 5
WRITES = 1000
"""A process dies at one of its first so many writes; `stormy` fails where one had ended its work before."""


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    folder = tmp_path_factory.mktemp("zygote")
    zygote = Zygote(folder, folder / "days.pickle")
    yield zygote
    zygote.stop()


@pytest.fixture(scope="session")
def days(zygote: Zygote) -> list[list[list[Delivery]]]:
    """The waves of the four days."""
    return pickle.loads(zygote.days.read_bytes())


@pytest.fixture(scope="session")
def undisturbed(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Life]:
    """A home, and the process that drives it, started and not waited for."""
    home = tmp_path_factory.mktemp("calm")
    return home, zygote.start(home)


@pytest.fixture(scope="session")
def stormy(zygote: Zygote, undisturbed: tuple[Path, Life], tmp_path_factory: pytest.TempPathFactory) -> Driven:
    """A home whose process is killed again and again, while the undisturbed one is under way."""
    home, moments = tmp_path_factory.mktemp("stormy"), random.Random(20130101)
    killed = [zygote.start(home).kill(after=moments.uniform(0.1, 3.0)) for _ in range(TIMED_KILLS)]
    killed += [zygote.start(home, dies_at=moments.randint(1, WRITES)).dies() for _ in range(COUNTED_KILLS)]
    zygote.start(home).end()
    assert all(killed), "a process ended before it could be killed: kill earlier"
    return Driven(home, state(home))


@pytest.fixture(scope="session")
def calm(undisturbed: tuple[Path, Life]) -> Driven:
    """A home driven undisturbed."""
    home, life = undisturbed
    life.end()
    return Driven(home, state(home))
