"""A rare class: decisions go on until there is a verdict, as the evaluation window grows after one that was none."""

import re

import numpy as np
import pandas as pd
import pytest
from labelled_world import FEATURES, REACH, START, World, day, model, world

from ct_assets.core.gate import GatePolicy
from ct_assets.core.ledger import SKIP, TRAINING, VERDICT, Record
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.segments import Line
from ct_assets.core.spec import EstimatorSpec, ModelSpec
from ct_assets.lake.releases import Releases
from ct_assets.lake.training_set import build_training_set, load_training_set, read_examples
from ct_assets.lib.decisions import decide_about, record_decision
from ct_assets.lib.evaluation import judge
from ct_assets.lib.monitoring_reports import save_report
from ct_assets.lib.outcomes import save_outcomes
from ct_assets.lib.partitions import end_of
from ct_assets.lib.performance import performance_report
from ct_assets.lib.promotion import promote
from ct_assets.lib.seen import growth_of
from ct_assets.lib.training import train_and_register
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import RegistryResource
from ct_assets.words import explain

DAYS, A_DAY, RARE, NEEDED = 42, 20, 40, 4
LINE = Line("m")


def spec() -> ModelSpec:
    made = model("delay", gate=GatePolicy(min_rows=2 * A_DAY, min_class_rows=NEEDED, floor=0.6, tolerance=0.1))
    policy = RetrainPolicy(first_training_rows=5 * A_DAY, cooldown_days=1, schedule_days=4)
    estimator = EstimatorSpec(path="sklearn.linear_model.LogisticRegression")
    return made.model_copy(update={"policy": policy, "estimator": estimator})


class Loans(World):
    """Twenty a day; every fortieth goes bad, that is one in two days, and its `x` is larger."""

    def scored(self) -> pd.DataFrame:
        noise = np.random.default_rng(1).normal(size=len(self.loans))
        return super().scored().assign(x=noise + 3 * (self.loans.index % RARE == 0))


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> LakeResource:
    """A home in which it was decided at the end of each day, and all was done that followed."""
    home = tmp_path_factory.mktemp("home")
    loans = [(f"l{i}", i * 24 / A_DAY, 0) for i in range(DAYS * A_DAY)]
    messages = [(name, int(i % RARE == 0), at + 50) for i, (name, at, _) in enumerate(loans)]
    made = Loans(**vars(world(home, spec(), loans, messages)))
    made.arrive(DAYS)
    lake = LakeResource(home=str(home))
    for number in range(DAYS):
        decide(made, lake, RegistryResource(home=lake.home), number)
    return lake


def decide(made: Loans, lake: LakeResource, registry: RegistryResource, number: int) -> None:
    releases, as_of = Releases(lake.path, LINE, lake.ledger()), end_of(day(number))
    save_outcomes(made.lake, made.spec, day(number))
    save_report(made.lake, made.spec, "performance", as_of, performance_report(made.lake, releases, made.spec, as_of))
    record = record_decision(releases, *decide_about(made.lake, releases, made.spec, as_of))
    if not record.evidence["decision"]["retrain"]:
        return
    growth = growth_of(made.lake, releases, made.spec, as_of)
    store: object = None  # every loan is scored, so the feature store is not asked
    snapshot = build_training_set(made.lake, store, made.spec, as_of, START, FEATURES, None, growth)  # type: ignore[arg-type]
    version, _ = train_and_register(lake, registry, made.spec, LINE, snapshot, made.spec.estimator)
    if judge(lake, made.spec, LINE, version)[0].passed:
        promote(lake, registry, made.spec, LINE, version)


def of_kind(lake: LakeResource, kind: str) -> list[Record]:
    return lake.ledger().records(kind, "m")


def test_after_a_verdict_that_was_none_the_next_training_has_rows_enough(decided: LakeResource) -> None:
    outcomes = [record.evidence["outcome"] for record in of_kind(decided, VERDICT)]
    assert outcomes[:2] == ["inconclusive", "passed"] and "inconclusive" not in outcomes[1:]
    assert len(outcomes) > 3
    # Two days have one loan that goes bad, or none; of eight there are four.
    windows = [record.evidence.get("evaluation_days") for record in of_kind(decided, TRAINING)]
    assert windows[0] is None and set(windows[1:]) <= {7, 8}


def test_no_training_is_begun_that_could_not_be_judged_and_the_decision_says_why(decided: LakeResource) -> None:
    waiting = [r.evidence["decision"] for r in of_kind(decided, SKIP)]
    reasons = {each["reasons"]["untrainable"] for each in waiting if each["blocked_by"] == "untrainable"}
    grown = sorted(reason for reason in reasons if "a verdict was inconclusive" in reason)
    lengths = [int(re.findall(r"the evaluation window may have (\d+) days by now", reason)[0]) for reason in grown]
    assert {2, 3, 4, 5, 6} <= {*lengths}
    assert all("test rows are of the rarer class, at least 4 needed" in r or "one class" in r for r in grown)


def test_no_row_is_judged_on_that_what_serves_has_learned_from(decided: LakeResource) -> None:
    releases = Releases(decided.path, LINE, decided.ledger())
    learned: dict[str, pd.Timestamp] = {}
    for record in of_kind(decided, VERDICT)[1:]:
        verdict = releases.verdict(record.evidence["verdict"])
        assert verdict.window is not None and "were left out" not in verdict.checks[0].detail
        if learned:
            assert pd.Timestamp(verdict.window[0]) >= learned[str(verdict.bindings.champion_digest)]
        release = releases.get(record.evidence["version"])
        rows = read_examples(decided.lake(), load_training_set(decided.lake(), release.training_set), "train")
        learned[release.artifact_digest] = (rows["event_timestamp"] + REACH).max()
        assert len(rows) >= verdict.rows
    assert len(learned) > 2


def test_it_is_explained(decided: LakeResource) -> None:
    first = explain(decided.ledger(), "m", "1")
    assert "It was not conclusive" in first
    assert "The evaluation window of the next training grows as far as it takes and examples allow." in first
    assert "It was judged on 7 days of labels instead of 2: too few for a verdict before" in explain(
        decided.ledger(), "m", "2"
    )
