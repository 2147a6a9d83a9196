"""`kill -9` at any moment: the end is the one that an undisturbed process reaches."""

import random
from pathlib import Path

import dagster as dg
import pytest
from worlds import Zygote, champion, state

from ct_assets.lib.driver import open_instance

KILLS = 8


@pytest.fixture(scope="module")
def homes(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One home driven undisturbed, and one whose process is killed again and again; both at the same time."""
    calm, stormy = tmp_path_factory.mktemp("calm"), tmp_path_factory.mktemp("stormy")
    undisturbed = zygote.start(calm)
    moments = random.Random(20130101)
    killed = 0
    for _ in range(KILLS):
        killed += zygote.start(stormy).kill(after=moments.uniform(0.2, 4.0))
    zygote.start(stormy).end()
    undisturbed.end()
    assert killed == KILLS, "the process ended before it could be killed: kill earlier"
    return calm, stormy


@pytest.mark.parametrize(
    "part",
    ["decisions", "manifests", "versions", "verdicts", "releases", "reports", "files", "training sets", "online"],
)
def test_a_killed_process_comes_to_the_same_end(homes: tuple[Path, Path], part: str) -> None:
    calm, stormy = homes
    assert state(stormy)[part] == state(calm)[part]


def test_both_have_the_champion_of_the_last_retraining(homes: tuple[Path, Path]) -> None:
    assert [champion(home) for home in homes] == ["2", "2"]


def test_no_run_of_a_dead_process_stays_started(homes: tuple[Path, Path]) -> None:
    _, stormy = homes
    with open_instance(stormy) as instance:
        runs = instance.get_runs()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}
