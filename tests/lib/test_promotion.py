"""Who may become champion, against what, until when; and what a rollback holds."""

import multiprocessing
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from judged_world import A_DAY, DAY, START, JudgedWorld, day, other, spec_of

from ct_assets.core.artifact import ArtifactError
from ct_assets.core.gate import GatePolicy
from ct_assets.core.ledger import Ledger
from ct_assets.core.segments import Line
from ct_assets.core.spec import EstimatorSpec, SegmentRules
from ct_assets.lake.holds import hold_of
from ct_assets.lake.moving import event_time, moving
from ct_assets.lake.releases import Releases
from ct_assets.lib.promotion import (
    OtherOpponentError,
    PromotionError,
    misplaced,
    reconcile_alias,
    reconcile_aliases,
    release_hold,
)
from ct_assets.lib.training import promote_judged
from ct_assets.resources.registry import CHAMPION, RegistryResource


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests, as the registry's tables take seconds to make; each test has a model of its own."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def world(home: Path, request: pytest.FixtureRequest) -> JudgedWorld:
    return JudgedWorld(home, spec_of(request.node.originalname[:60]))


def with_gate(world: JudgedWorld, **changes: object) -> JudgedWorld:
    gate = world.spec.gate.model_copy(update=changes)
    return JudgedWorld(world.home, world.spec.model_copy(update={"gate": gate}), world.line.segment)


class Killed(BaseException):
    """As by `kill -9`: nothing after it runs."""


def dies(*_: object) -> None:
    raise Killed


def test_a_move_is_dated_when_it_is_made_and_changes_nothing_of_before(world: JudgedWorld) -> None:
    world.promoted(10)
    second = world.judged(14)
    world.decided(20)
    known = {number: world.releases.champion_at(day(number)) for number in range(11, 20)}
    world.promote(second)
    assert world.moves() == [("promotion", "1", 11), ("promotion", "2", 20)]
    assert {number: world.releases.champion_at(day(number)) for number in range(11, 20)} == known
    assert world.releases.champion_at(day(20)) == world.releases.present()


def test_a_verdict_expires_in_event_time(world: JudgedWorld) -> None:
    world.promoted(10)
    late = world.judged(14)
    world.decided(15 + 8)
    with pytest.raises(PromotionError, match=r"is as of 2021-03-16T00:00:00\+00:00 and counts for 7 days"):
        world.promote(late)
    assert world.alias() == "1"
    patient = with_gate(world, verdict_days=30.0)
    with pytest.raises(PromotionError, match="made by other rules"):
        patient.promote(late)
    patient.judge(late)
    patient.promote(late)
    assert world.alias() == "2"


@pytest.mark.parametrize("change", [{"floor": 0.99}, {"tolerance": 0.0}, {"metric": "logloss"}, {"min_rows": 101}])
def test_a_verdict_is_void_once_the_rules_have_changed(world: JudgedWorld, change: dict) -> None:
    world.promoted(10)
    version = world.judged(14)
    with pytest.raises(PromotionError, match="made by other rules than those of"):
        with_gate(world, **change).promote(version)
    assert world.moves()[-1][1] == "1" or len(world.moves()) > 1


def test_a_live_deployment_lives_by_the_wall_clock_and_a_replay_by_its_record(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    replay, live = (Ledger(tmp_path / name, lambda: now) for name in ("replay", "live"))
    replay.append("skip", "m", day(5), {})
    replay.append("training", "m", day(6), {})
    assert event_time(replay, Line("m")) == day(6)
    live.append("skip", "m", now - timedelta(hours=9), {})
    assert now <= event_time(live, Line("m")) <= datetime.now(UTC)
    assert now <= event_time(live, Line("m", "Bern")) <= datetime.now(UTC), "its segments live with it"


def test_a_verdict_counts_against_what_serves_at_promotion(world: JudgedWorld) -> None:
    world.promoted(10)
    second, third = world.judged(14), world.judged(15)
    world.promote(second)
    with pytest.raises(OtherOpponentError, match="evaluate the challenger again, against what serves now"):
        world.promote(third)
    promote_judged(world.lake, world.registry, world.spec, world.line, third)
    assert [move[:2] for move in world.moves()] == [("promotion", "1"), ("promotion", "2"), ("promotion", "3")]
    worse = world.releases.newest_verdict("3")
    assert worse.bindings.champion_digest == world.releases.get("2").artifact_digest


def test_what_was_never_promoted_is_nothing_to_return_to(world: JudgedWorld) -> None:
    world.promoted(10)
    second, third = world.judged(14), world.judged(15)
    world.promote(second)
    with pytest.raises(OtherOpponentError):
        world.promote(third)
    with pytest.raises(FileNotFoundError):
        world.releases.get("3")
    # As a process leaves it that was killed before it recorded the promotion.
    left = replace(
        world.releases.get("2"),
        version="3",
        artifact=third.artifact,
        artifact_digest=third.tags["artifact_digest"],
        training_set=third.tags["training_set"],
        verdict=world.releases.newest_verdict("3").digest,
    )
    world.releases.save(left)
    with pytest.raises(ValueError, match=r"version 3 of .* has never been promoted, so there is nothing to return to"):
        world.rollback(to="3")
    # A ledger that has one of an earlier version of the code can be read on.
    world.lake.ledger().append(
        "rollback", world.line.name, day(16), {"version": "3", "previous": "2", "reason": "by mistake"}
    )
    assert hold_of(world.releases, world.spec.gate, day(17)) is None
    assert world.rollback(to="1").version == "1"


def test_a_rollback_meanwhile_comes_first(world: JudgedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at what serves and the record there is no gap: another thread's rollback waits, or wins."""
    world.promoted(10)
    world.promoted(14)
    third = world.judged(15)
    save, before, done = Releases.save, threading.Event(), threading.Event()

    def roll_back() -> None:
        before.set()
        world.rollback()
        done.set()

    def slow(self: Releases, release: object) -> str:
        thread = threading.Thread(target=roll_back)
        thread.start()
        before.wait()
        assert not done.wait(0.3), "it waits for the promotion that is under way"
        return save(self, release)  # type: ignore[arg-type]

    monkeypatch.setattr(Releases, "save", slow)
    world.promote(third)
    assert done.wait(60)
    kinds = [move[:2] for move in world.moves()]
    assert kinds == [("promotion", "1"), ("promotion", "2"), ("promotion", "3"), ("rollback", "2")]
    assert world.alias() == "2"


def _hold_the_lock(
    home: str, held: "multiprocessing.synchronize.Event", go: "multiprocessing.synchronize.Event"
) -> None:
    with moving(Path(home)):
        held.set()
        go.wait(60)


def test_moves_of_other_processes_wait(world: JudgedWorld) -> None:
    world.promoted(10)
    second = world.judged(14)
    spawn = multiprocessing.get_context("fork")
    held, go = spawn.Event(), spawn.Event()
    process = spawn.Process(target=_hold_the_lock, args=(str(world.home), held, go))
    process.start()
    assert held.wait(60)
    mover = threading.Thread(target=world.promote, args=(second,))
    mover.start()
    mover.join(0.3)
    assert mover.is_alive()
    assert world.moves()[-1][1] == "1"
    go.set()
    mover.join(60)
    process.join(60)
    assert (world.moves()[-1][1], world.alias()) == ("2", "2")


def test_a_crash_between_ledger_and_alias_is_made_up_for(world: JudgedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.promoted(10)
    second = world.judged(14)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(RegistryResource, "point", dies)
        world.promote(second)
    assert (world.releases.present().version, world.alias()) == ("2", "1")  # type: ignore[union-attr]
    found = reconcile_alias(world.lake, world.registry, world.line)
    assert found is not None and "names version 1, and the ledger version 2" in found
    assert world.alias() == "2"
    assert reconcile_alias(world.lake, world.registry, world.line) is None


def test_a_rollback_whose_process_died_is_finished_and_not_made_twice(
    world: JudgedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for days in (10, 14, 15):
        world.promoted(days)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(RegistryResource, "point", dies)
        world.rollback("complaints")
    assert world.rollback("complaints").version == "2"
    assert (world.moves()[-1][:2], world.alias()) == (("rollback", "2"), "2")


def test_an_alias_that_was_moved_by_hand_is_reported_and_moved_back(world: JudgedWorld) -> None:
    world.promoted(10)
    world.promoted(14)
    world.registry.client().set_registered_model_alias(world.line.registered, CHAMPION, "1")
    assert "names version 1, and the ledger version 2" in str(misplaced(world.releases, world.registry))
    assert len(reconcile_aliases(world.lake, world.registry, world.spec.name)) == 1
    assert world.alias() == "2"
    world.registry.client().delete_registered_model_alias(world.line.registered, CHAMPION)
    assert "names no version" in str(reconcile_alias(world.lake, world.registry, world.line))
    assert world.alias() == "2"


def test_an_alias_of_what_was_never_promoted_is_taken_away(world: JudgedWorld) -> None:
    version = world.judged(10)
    world.registry.client().set_registered_model_alias(world.line.registered, CHAMPION, version.version)
    assert "and the ledger no version" in str(reconcile_alias(world.lake, world.registry, world.line))
    assert world.alias() is None


def test_a_rollback_holds_until_a_challenger_of_newer_rows_is_better(world: JudgedWorld) -> None:
    world.promoted(10)
    world.promoted(20)
    world.rollback("it harms in ways that no metric shows")
    again = world.judged(22)
    with pytest.raises(PromotionError, match=r"version 2 was rolled back .* learned from no row that is newer"):
        world.promote(again)
    same = world.judged(26)  # learned from rows up to day 22, after the rollback of day 21
    assert world.releases.newest_verdict(same.version).check("better_than_rolled_back").passed is False  # type: ignore[union-attr]
    with pytest.raises(PromotionError, match="to be better than what was rolled back"):
        world.promote(same)
    assert world.moves()[-1][:2] == ("rollback", "1")


def test_a_better_challenger_of_newer_rows_ends_the_hold(home: Path) -> None:
    """What was rolled back had learned next to nothing, so the spec's own estimator is better."""
    dummy = EstimatorSpec(path="sklearn.dummy.DummyClassifier")
    weak = JudgedWorld(home, spec_of("ends_the_hold", estimator=dummy, gate=lenient()))
    weak.promoted(10)
    weak.promoted(20)
    weak.rollback()
    strong = JudgedWorld(home, spec_of("ends_the_hold", gate=lenient()))
    early = strong.judged(21)
    with pytest.raises(PromotionError, match="learned from no row that is newer"):
        strong.promote(early)
    strong.promoted(26)
    assert strong.moves()[-1] == ("promotion", "4", 27)


def lenient() -> GatePolicy:
    return GatePolicy(min_rows=100, tolerance=0.02, floor=0.3, min_slice_rows=100)


def test_a_hold_ends_with_its_period_by_release_and_by_a_person(world: JudgedWorld) -> None:
    world = with_gate(world, rollback_hold_days=3.0)
    world.promoted(10)
    world.promoted(14)
    world.rollback()
    assert hold_of(world.releases, world.spec.gate, day(17)) is not None
    assert hold_of(world.releases, world.spec.gate, day(18)) is None
    for_good = with_gate(world, rollback_hold_days=None)
    assert hold_of(for_good.releases, for_good.spec.gate, day(4000)) is not None
    third = for_good.judged(15)
    with pytest.raises(PromotionError, match="held until it is released"):
        for_good.promote(third)
    for_good.promote(third, "the complaints were about something else")
    assert world.lake.ledger().newest(["promotion"], world.spec.name).evidence["reason"].startswith("the complaints")  # type: ignore[union-attr]
    world.rollback()
    fourth = world.judged(16)
    with pytest.raises(PromotionError, match="was rolled back"):
        world.promote(fourth)
    release_hold(world.lake, world.spec, world.line, "it was the weather")
    world.promote(fourth)
    assert world.alias() == "4"
    with pytest.raises(ValueError, match="no rollback holds the promotions"):
        release_hold(world.lake, world.spec, world.line, "again")


def test_going_forth_again_holds_nothing(world: JudgedWorld) -> None:
    world.promoted(10)
    world.promoted(14)
    world.rollback()
    world.rollback("it was right after all", "2")
    assert hold_of(world.releases, world.spec.gate, day(15)) is None
    world.promoted(16)


def test_an_experiment_is_judged_and_promoted_by_a_person_only(world: JudgedWorld) -> None:
    world.promoted(10)
    tried = world.judged(14, estimator=other(0.5), by_hand=True)
    assert world.releases.newest_verdict(tried.version).bindings.promote is False
    with pytest.raises(PromotionError, match="it is an experiment, trained by hand"):
        world.promote(tried)
    world.promote(tried, "we want it")
    assert world.moves()[-1][:2] == ("promotion", "2")


def test_by_hand_with_the_spec_s_parameters_as_of_the_newest_decision_is_no_experiment(world: JudgedWorld) -> None:
    world.promoted(10)
    world.decided(15)
    now = world.judged(14, by_hand=True)
    world.decided(18)
    earlier = world.judged(16, by_hand=True)
    promotable = [world.releases.newest_verdict(v.version).bindings.promote for v in (now, earlier)]
    assert promotable == [True, False]


def test_models_are_compared_on_rows_that_neither_has_learned_from(world: JudgedWorld) -> None:
    forest = EstimatorSpec(path="sklearn.ensemble.RandomForestClassifier", params={"n_estimators": 20})
    world = JudgedWorld(world.home, world.spec.model_copy(update={"estimator": forest}))
    world.promoted(30)  # learned from 26 days
    longer = world.train(world.snapshot(32, evaluation_days=20))  # 20 days are kept, of which the champion knows 14
    verdict = world.judge(longer)
    assert verdict.rows == 6 * A_DAY
    assert verdict.window == ((START + 26 * DAY).isoformat(), (START + 31 * DAY).isoformat())
    assert f"{14 * A_DAY} more were left out" in verdict.check("enough_rows").detail  # type: ignore[union-attr]
    assert verdict.metrics["champion"]["auc"] < 0.95, "on rows that it has seen, a forest is close to 1"


def test_where_the_champion_has_seen_all_rows_the_verdict_is_inconclusive(world: JudgedWorld) -> None:
    world.promoted(30)
    verdict = world.judge(world.train(world.snapshot(20)))
    assert (verdict.rows, verdict.outcome, verdict.passed) == (0, "inconclusive", False)
    record = world.lake.ledger().newest(["verdict"], world.spec.name)
    assert record is not None
    newest = world.lake.ledger().records("verdict", world.spec.name)[-1]
    assert newest.evidence["outcome"] == "inconclusive"


def test_a_segment_is_compared_with_the_pooled_model_that_serves_it_now(home: Path) -> None:
    """Also if it was trained as of a moment at which that one was not there yet."""
    spec = spec_of(
        "pooled_first",
        inputs={"x": "numeric", "z": "numeric", "country": "categorical"},
        segment_by="country",
        segments=SegmentRules(min_labels=100),
        estimator=numbered(LOGISTIC),
    )
    pooled, segment = JudgedWorld(home, spec), JudgedWorld(home, spec, "Peru")
    first = pooled.train(pooled.snapshot(30, country="Peru"))
    assert pooled.judge(first).passed
    pooled.promote(first)
    early = segment.train(segment.snapshot(15, country="Peru"))
    verdict = segment.judge(early)
    assert verdict.bindings.champion_digest == pooled.releases.present().artifact_digest  # type: ignore[union-attr]
    assert verdict.outcome == "inconclusive"
    with pytest.raises(ArtifactError, match="its verdict is inconclusive"):
        segment.promote(early)
    own = segment.train(segment.snapshot(32, country="Peru"))
    assert segment.judge(own).passed
    second = pooled.train(pooled.snapshot(33, country="Peru"))
    assert pooled.judge(second).passed
    pooled.promote(second)
    with pytest.raises(OtherOpponentError):
        segment.promote(own)
    promote_judged(segment.lake, segment.registry, spec, segment.line, own)
    assert segment.alias() == "2"


LOGISTIC = {"path": "sklearn.ensemble.HistGradientBoostingClassifier", "params": {"max_iter": 5}}


def numbered(inner: dict) -> EstimatorSpec:
    return EstimatorSpec(
        path="ct_assets.core.estimators.numbered", params={"categories": ["country"], "estimator": inner}
    )


def test_a_changed_release_is_not_returned_to(world: JudgedWorld) -> None:
    world.promoted(10)
    world.promoted(14)
    path = world.home / "releases" / world.spec.name / "1.json"
    path.write_text(path.read_text().replace('"m_v1"', '"m_v2"'))
    with pytest.raises(ArtifactError, match="is not the release that was promoted as version 1"):
        world.rollback()
    assert world.alias() == "2"


def test_a_release_file_of_a_later_version_is_read(world: JudgedWorld) -> None:
    world.promoted(10)
    release = world.releases.present()
    assert release is not None
    path = world.home / "releases" / world.spec.name / "1.json"
    text = path.read_text()
    assert str(world.home) not in text, "paths are relative to the home"
    ledger = world.lake.ledger().newest(["promotion"], world.spec.name)
    assert ledger is not None and set(ledger.evidence) >= {"release", "verdict", "version", "previous"}
    assert pd.Timestamp(ledger.as_of) == day(11)
