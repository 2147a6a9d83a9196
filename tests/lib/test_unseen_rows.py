"""A challenger is compared on rows that neither it nor what it is compared with has learned from, whoever that is.

Rows are counted by hand: 150 a day, mature a day later. A champion of the first n days with an evaluation window of w
has learned from the days before n - w, and its last labels are of the beginning of that day.
"""

import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from judged_world import A_DAY, START, JudgedWorld, day, other, spec_of

from ct_assets.core.spec import EstimatorSpec, SegmentRules
from ct_assets.core.strategies import StrategySpec
from ct_assets.core.verdict import Verdict
from ct_assets.lake.training_set import TrainingSet, read_examples
from ct_assets.lib.promotion import release_hold
from ct_assets.lib.seen import not_learned, unseen

FOREST = EstimatorSpec(path="sklearn.ensemble.RandomForestClassifier", params={"n_estimators": 20})
BOOSTED = {"path": "sklearn.ensemble.HistGradientBoostingClassifier", "params": {"max_iter": 5}}
BY_SHOP = EstimatorSpec(
    path="ct_assets.core.estimators.numbered", params={"categories": ["shop"], "estimator": BOOSTED}
)
SGD = EstimatorSpec(path="sklearn.linear_model.SGDClassifier", params={"loss": "log_loss", "random_state": 0})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests, as the registry's tables take seconds to make; each test has a model of its own."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def world(home: Path, request: pytest.FixtureRequest) -> JudgedWorld:
    return JudgedWorld(home, spec_of(request.node.originalname[:60]))


def champion(world: JudgedWorld, snapshot: TrainingSet) -> str:
    version = world.train(snapshot)
    assert world.judge(version).passed
    world.promote(version)
    return version.version


def judged(world: JudgedWorld, snapshot: TrainingSet, by_hand: bool = False) -> Verdict:
    return world.judge(world.train(snapshot, other(0.5) if by_hand else None, by_hand))


def days_of(verdict: Verdict) -> tuple[int, int] | None:
    """First and last day that it was judged on."""
    if verdict.window is None:
        return None
    first, last = ((pd.Timestamp(moment) - START).days for moment in verdict.window)
    return first, last


def test_a_champion_of_a_shorter_evaluation_is_not_judged_on_its_lessons(home: Path) -> None:
    """A forest knows its own rows by heart, so a better challenger lost to it."""
    world = JudgedWorld(home, spec_of("shorter", estimator=FOREST))
    champion(world, world.snapshot(20))
    verdict = judged(world, world.snapshot(24, evaluation_days=14))
    assert (days_of(verdict), verdict.rows) == ((16, 23), 8 * A_DAY)
    assert f"{6 * A_DAY} more were left out" in verdict.checks[0].detail
    # Of a forest of 20 trees, AUC on rows that it has learned from is 1.
    auc = verdict.metrics["champion"]["auc"]
    assert auc is not None and auc < 0.9


def test_labels_of_the_time_of_a_lesson_are_no_news_either(world: JudgedWorld) -> None:
    """Rows whose labels take three days: those before day 13 are learned, with labels that come up to day 16."""
    champion(world, world.snapshot(20, reach=3))
    verdict = judged(world, world.snapshot(24, evaluation_days=10, reach=3))
    assert (days_of(verdict), verdict.rows) == ((16, 23), 8 * A_DAY)


def test_a_champion_trained_by_hand_as_of_a_later_time_leaves_nothing_to_judge_on(world: JudgedWorld) -> None:
    champion(world, world.snapshot(30, evaluation_days=2))
    earlier = judged(world, world.snapshot(24), by_hand=True)
    assert (earlier.outcome, earlier.rows) == ("inconclusive", 0)
    assert f"{4 * A_DAY} more were left out" in earlier.reasons()[0]


def test_after_a_rollback_the_rows_of_what_was_rolled_back_are_left_out_while_it_is_compared(
    world: JudgedWorld,
) -> None:
    champion(world, world.snapshot(10))
    champion(world, world.snapshot(20))
    world.rollback()
    held = world.snapshot(23, evaluation_days=10)
    assert days_of(judged(world, held)) == (16, 22)
    release_hold(world.lake, world.spec, world.line, "it was the sensors")
    # Now with the first one alone, of which days 6 and later are news: the challenger's own window counts.
    assert days_of(judged(world, held)) == (13, 22)


def test_a_segment_is_judged_on_what_the_pooled_model_has_not_learned(home: Path) -> None:
    inputs = {"x": "numeric", "z": "numeric", "shop": "categorical"}
    spec = spec_of("by_shop", segment_by="shop", inputs=inputs, segments=SegmentRules(), estimator=BY_SHOP)
    pooled, bern = JudgedWorld(home, spec), JudgedWorld(home, spec, "Bern")
    champion(pooled, pooled.snapshot(20, shop="Bern"))
    assert days_of(judged(bern, bern.snapshot(23, evaluation_days=12, shop="Bern"))) == (16, 22)


def test_rows_that_are_no_examples_of_a_release_are_left_whenever_they_were_predicted(world: JudgedWorld) -> None:
    """Of examples that a lineage keeps back some are old, and still none that was learned from."""
    champion(world, world.snapshot(20))
    rows = read_examples(world.lake.lake(), world.snapshot(24, evaluation_days=24), "holdout")
    release = world.releases.champion_at(day(100))
    assert release is not None
    # Ten of the first day were never among the examples; all from day 16 on were kept for the gate or came later.
    old = rows["id"] < 10
    found = not_learned(
        world.lake.lake(),
        world.releases,
        world.spec,
        [release],
        rows.assign(id=rows["id"].where(~old, -1 - rows["id"])),
    )
    assert len(found) == 10 + 8 * A_DAY
    assert sorted(found.loc[found["event_timestamp"] < day(16), "id"]) == list(range(-10, 0))
    assert not_learned(world.lake.lake(), world.releases, world.spec, [], rows) is rows


def test_an_event_that_was_announced_again_is_no_news(world: JudgedWorld) -> None:
    """Its label was learned under its earlier date."""
    champion(world, world.snapshot(20))
    ids = np.arange(23 * A_DAY)
    ids[20 * A_DAY : 20 * A_DAY + 40] = np.arange(40)
    verdict = judged(world, world.snapshot(23, id=ids))
    assert (days_of(verdict), verdict.rows) == ((19, 22), 4 * A_DAY - 40)


def test_a_model_that_went_on_from_others_has_learned_what_they_have(home: Path) -> None:
    """The second training's own rows end on day 10, but it went on from one that had learned up to day 16."""
    strategy = StrategySpec(kind="incremental", reference=timedelta(days=2))
    world = JudgedWorld(home, spec_of("chain", strategy=strategy, estimator=SGD))
    champion(world, world.snapshot(20))
    # Under other ids, as if the source had sent them again: all of them are new, though they end earlier.
    snapshot = world.snapshot(20, evaluation_days=10, id=np.arange(20 * A_DAY) + 10**6)
    second = world.train(snapshot)
    rows = read_examples(world.lake.lake(), world.snapshot(24, evaluation_days=22), "holdout")
    found = unseen(world.lake.lake(), world.releases, world.spec, second.version, snapshot, [], rows)
    assert (rows["event_timestamp"].min(), found["event_timestamp"].min()) == (day(2), day(16))


def test_of_a_training_set_that_is_lost_all_that_was_known_may_have_been_learned(world: JudgedWorld) -> None:
    snapshot = world.snapshot(20)
    champion(world, snapshot)
    shutil.rmtree(world.home / "training_sets" / snapshot.digest)
    # It was as of the end of day 20, that is day 21.
    assert days_of(judged(world, world.snapshot(24, evaluation_days=8))) == (21, 23)
