"""What a person tries beside the loop: judged, and neither in its way nor taken for its work; verdicts that return."""

import fcntl
from pathlib import Path

import pytest
from judged_world import JudgedWorld, day, other, spec_of

from ct_assets.core.ledger import REQUEST, RETRAIN, TRAINING, VERDICT
from ct_assets.core.policy import Decision, decide
from ct_assets.lib.decisions import gather_evidence, open_request, retrain_due
from ct_assets.lib.lineage import may_be_promoted
from ct_assets.lib.monitoring_reports import save_report
from ct_assets.lib.promotion import PromotionError, release_hold
from ct_assets.lib.training import promote_judged
from ct_assets.resources.registry import CHALLENGER, RegistryResource

NOTHING_KNOWN = {"labels_known": 6000, "now": None, "reference": None, "rows": 0}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests, as the registry's tables take seconds to make; each test has a model of its own."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def world(home: Path, request: pytest.FixtureRequest) -> JudgedWorld:
    return JudgedWorld(home, spec_of(request.node.originalname[:60]))


def decided(world: JudgedWorld, number: int) -> Decision:
    save_report(world.lake.lake(), world.spec, "performance", day(number), NOTHING_KNOWN)
    save_report(world.lake.lake(), world.spec, "drift", day(number), {})
    evidence = gather_evidence(world.lake.lake(), world.releases, world.spec, day(number))
    return decide(world.spec.policy, evidence)


def decide_to_retrain(world: JudgedWorld, number: int, key: str, request: int | None = None) -> int:
    evidence = {"decision": {"retrain": True, "triggers": []}, "evidence": {"manual_number": request}}
    return (
        world.lake.ledger().append(RETRAIN, world.line.name, day(number), evidence, key=f"{world.line.name}/{key}").seq
    )


def test_an_experiment_does_not_put_off_what_is_scheduled(world: JudgedWorld) -> None:
    world.promoted(10)
    assert decided(world, 45).triggers == ("schedule",)
    world.train(world.snapshot(38), other(0.5), by_hand=True)
    assert decided(world, 45).triggers == ("schedule",)
    assert decided(world, 45).retrain


def test_an_experiment_is_no_answer_to_what_is_due(world: JudgedWorld) -> None:
    world.promoted(10)
    decide_to_retrain(world, 15, "first")
    tried = world.train(world.snapshot(14), other(0.5), by_hand=True)
    world.judge(tried)
    assert retrain_due(world.releases) is not None
    assert not may_be_promoted(world.releases, tried.version)
    world.judge(world.train(world.snapshot(14)))
    assert retrain_due(world.releases) is None


def test_what_was_tried_is_no_experiment_once_the_spec_says_so(world: JudgedWorld) -> None:
    world.promoted(10)
    snapshot = world.snapshot(14)
    tried = world.train(snapshot, other(0.5), by_hand=True)
    world.judge(tried)
    world.spec = world.spec.model_copy(update={"estimator": other(0.5)})
    decide_to_retrain(world, 15, "first")
    due = world.train(snapshot)
    assert due.version == tried.version
    assert world.judge(due).bindings.promote
    assert retrain_due(world.releases) is None
    assert world.promote(due).version == tried.version
    # Trying the same afterwards takes nothing back.
    world.train(snapshot, other(0.5), by_hand=True)
    assert may_be_promoted(world.releases, tried.version)


def test_an_experiment_is_no_challenger_of_the_registry(world: JudgedWorld) -> None:
    due = world.judged(10)
    world.train(world.snapshot(14), other(0.5), by_hand=True)
    challenger = world.registry.get(world.line.registered, CHALLENGER)
    assert challenger is not None and challenger.version == due.version


def test_a_training_is_registered_once_and_under_the_lock_of_the_moves(
    world: JudgedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which another process waits for."""
    world.promoted(10)
    held: list[bool] = []
    register = RegistryResource.register

    def watched(self: RegistryResource, *given: object, **more: object) -> object:
        held.append((world.home / "ledger" / "moves.lock").exists() and _is_locked(world.home))
        return register(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(RegistryResource, "register", watched)
    first = world.train(world.snapshot(14))
    assert world.train(world.snapshot(14)).version == first.version
    assert held == [True, True]


def _is_locked(home: Path) -> bool:
    with (home / "ledger" / "moves.lock").open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_what_the_platform_has_not_trained_is_promoted_by_a_person_only(world: JudgedWorld) -> None:
    assert not may_be_promoted(world.releases, "77")


def test_a_verdict_counts_anew_when_the_rules_were_changed_and_changed_back(world: JudgedWorld) -> None:
    world.promoted(10)
    challenger = world.judged(14)
    former = world.spec
    world.spec = former.model_copy(update={"gate": former.gate.model_copy(update={"floor": 0.5})})
    world.judge(challenger)
    world.spec = former
    world.judge(challenger)
    assert world.promote(challenger).version == challenger.version


def test_a_verdict_counts_anew_against_an_opponent_that_returns(world: JudgedWorld) -> None:
    world.promoted(10)
    second, third = world.judged(14), world.judged(15)
    world.promote(second)
    world.judge(third)
    world.rollback()
    release_hold(world.lake, world.spec, world.line, "all is well again")
    release = promote_judged(world.lake, world.registry, world.spec, world.line, third)
    assert release.version == third.version


def test_a_training_that_comes_out_the_same_answers_what_is_due(world: JudgedWorld) -> None:
    snapshot = world.snapshot(14)
    decide_to_retrain(world, 15, "first")
    world.judge(world.train(snapshot))
    assert retrain_due(world.releases) is None
    decide_to_retrain(world, 15, "by hand")
    assert retrain_due(world.releases) is not None
    version = world.train(snapshot)
    for _ in range(2):  # what is made again after a crash is recorded once
        world.judge(version)
    assert retrain_due(world.releases) is None
    assert [len(world.lake.ledger().records(kind, world.line.name)) for kind in (TRAINING, VERDICT)] == [1, 2]


def test_a_request_is_taken_up_once_whatever_labels_come_late(world: JudgedWorld) -> None:
    ledger, snapshot = world.lake.ledger(), world.snapshot(14)
    request = ledger.append(REQUEST, world.line.name, day(15), {"reason": "please"})
    assert open_request(world.releases, day(15)) == request
    decide_to_retrain(world, 15, "taken up", request.seq)
    assert open_request(world.releases, day(15)) == request, "it is still to be done"
    world.judge(world.train(snapshot))
    assert open_request(world.releases, day(15)) is None


def test_an_experiment_is_still_promoted_by_a_person(world: JudgedWorld) -> None:
    world.promoted(10)
    tried = world.judged(14, estimator=other(0.5), by_hand=True)
    with pytest.raises(PromotionError, match="it is an experiment"):
        world.promote(tried)
    assert world.promote(tried, "it was tried for a week").version == tried.version
