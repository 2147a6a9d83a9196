from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.core.policy import TRIGGERS, Evidence, RetrainPolicy, decide

NOW = datetime(2013, 6, 1, tzinfo=UTC)
POLICY = RetrainPolicy(
    first_training_rows=1000,
    schedule_days=30,
    new_label_rows=500,
    drift_share=0.3,
    performance_drop=0.02,
    performance_min_rows=200,
    cooldown_days=3,
)


def evidence(trained_days_ago=10.0, **changes):
    """A quiet day: nothing is due."""
    quiet = {
        "as_of": NOW,
        "known_labels": 5000,
        "champion_as_of": NOW - timedelta(days=trained_days_ago),
        "last_training_as_of": NOW - timedelta(days=trained_days_ago),
        "last_training_labels": 4900,
        "drifted_share": 0.1,
        "performance_now": 0.70,
        "performance_reference": 0.71,
        "performance_rows": 1000,
        "performance_days": 14,
        "performance_margin": 0.01,
    }
    return Evidence(**(quiet | changes))


FIRST = {"champion_as_of": None, "last_training_as_of": None, "last_training_labels": None}


@pytest.mark.parametrize(
    ("changes", "triggers"),
    [
        ({}, ()),
        ({**FIRST, "known_labels": 1000}, ("bootstrap",)),
        ({"trained_days_ago": 30}, ("schedule",)),
        ({"trained_days_ago": 29.9}, ()),
        ({"known_labels": 5400}, ("new_labels",)),
        ({"known_labels": 5399}, ()),
        ({"known_labels": 5400, "last_training_labels": 5300}, ()),
        ({"drifted_share": 0.3}, ("drift",)),
        ({"drifted_share": None}, ()),
        ({"performance_now": 0.689}, ("performance",)),
        ({"performance_now": 0.691}, ()),
        ({"performance_now": 0.5, "performance_rows": 199}, ()),
        ({"performance_now": None}, ()),
        ({"performance_now": 0.66, "performance_margin": 0.04}, ("performance",)),
        ({"performance_now": 0.68, "performance_margin": 0.04}, ()),
        ({"performance_now": 0.5, "performance_margin": None}, ()),
        ({"manual_request": True, "manual_reason": "new airport"}, ("manual",)),
        ({"trained_days_ago": 31, "drifted_share": 0.9, "manual_request": True}, ("schedule", "drift", "manual")),
    ],
)
def test_triggers_fire_at_their_limits(changes, triggers):
    decision = decide(POLICY, evidence(**changes))
    assert decision.triggers == triggers
    assert decision.retrain is bool(triggers)
    assert decision.blocked_by is None


@pytest.mark.parametrize(("days", "blocked"), [(2.9, "cooldown"), (3.0, None)])
def test_the_cool_down_holds_a_retrain_back(days, blocked):
    decision = decide(POLICY, evidence(trained_days_ago=days, drifted_share=0.9))
    assert decision.triggers == ("drift",)
    assert decision.blocked_by == blocked
    assert decision.retrain is (blocked is None)


def test_a_manual_request_ignores_the_cool_down():
    assert decide(POLICY, evidence(trained_days_ago=0.1, manual_request=True)).retrain


def test_a_rejected_challenger_starts_the_cool_down_and_the_schedule_again():
    late = evidence(trained_days_ago=40, last_training_as_of=NOW - timedelta(days=1), drifted_share=0.9)
    decision = decide(POLICY, late)
    assert decision.triggers == ("drift",)
    assert decision.blocked_by == "cooldown"
    assert decision.next_due == NOW + timedelta(days=2)


def test_a_first_training_waits_for_labels_even_when_asked_for_by_hand():
    decision = decide(POLICY, evidence(**FIRST, known_labels=999, manual_request=True))
    assert not decision.retrain
    assert decision.blocked_by == "too_few_labels"
    assert "1 more would have flipped it" in decision.reasons["bootstrap"]
    assert decision.next_due is None


def test_a_first_training_that_was_rejected_waits_for_the_cool_down():
    decision = decide(POLICY, evidence(**FIRST | {"last_training_as_of": NOW - timedelta(days=1)}))
    assert decision.triggers == ("bootstrap",)
    assert decision.blocked_by == "cooldown"


@pytest.mark.parametrize("changes", [{"drifted_share": 0.9}, {"manual_request": True}])
def test_what_could_teach_nothing_is_not_trained_on_and_it_is_said_why(changes):
    decision = decide(POLICY, evidence(**changes, untrainable="all labels are the same"))
    assert (decision.retrain, decision.blocked_by, decision.next_due) == (False, "untrainable", None)
    assert decision.reasons["untrainable"] == "not yet: all labels are the same"
    assert decide(POLICY, evidence(untrainable="all labels are the same")).blocked_by is None


def test_a_loss_of_a_metric_where_lower_is_better():
    policy = POLICY.model_copy(update={"performance_metric": "logloss"})
    assert decide(policy, evidence(performance_now=0.74)).triggers == ("performance",)
    assert decide(policy, evidence(performance_now=0.60)).triggers == ()


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        ("schedule", "fires at 2013-06-21T00:00:00+00:00"),
        ("new_labels", "400 more would have flipped it"),
        ("drift", "a share of 30.0% would have flipped it"),
        ("performance", "auc 0.69 would have flipped it"),
        ("manual", "a request would have flipped it"),
    ],
)
def test_what_did_not_fire_says_what_would_have(trigger, words):
    assert words in decide(POLICY, evidence()).reasons[trigger]


def test_a_loss_that_chance_may_show_is_none_whatever_the_limit():
    told = decide(POLICY, evidence(performance_now=0.68, performance_margin=0.04)).reasons["performance"]
    assert "a loss of 0.03 (limit 0.02; 0.04 by chance, 1000 rows of 14 days)" in told
    assert "auc 0.67 would have flipped it" in told
    assert decide(POLICY, evidence(performance_now=0.6699, performance_margin=0.04)).triggers == ("performance",)


def test_the_next_due_moment_is_the_schedule_or_now():
    assert decide(POLICY, evidence()).next_due == NOW + timedelta(days=20)
    assert decide(POLICY, evidence(trained_days_ago=50)).next_due == NOW
    assert decide(POLICY.model_copy(update={"schedule_days": None}), evidence()).next_due is None


def test_a_trigger_without_a_limit_is_off():
    decision = decide(RetrainPolicy(schedule_days=None), evidence(trained_days_ago=400, drifted_share=1.0))
    assert decision.triggers == ()
    assert decision.reasons["drift"] == "off: the policy has no drift_share"


def test_evidence_from_the_future_or_without_time_zone_is_refused():
    with pytest.raises(ValueError, match=r"champion_as_of .* is after as_of"):
        evidence(trained_days_ago=-1)
    with pytest.raises(ValueError, match="timezone"):
        evidence(as_of=datetime(2013, 6, 1))


def test_pandas_timestamps_and_datetimes_decide_the_same():
    assert decide(POLICY, evidence(as_of=pd.Timestamp(NOW))) == decide(POLICY, evidence())


@pytest.mark.parametrize("wrong", [{"schedule_dayz": 1}, {"drift_share": 2}, {"performance_metric": "rows"}])
def test_an_invalid_policy_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetrainPolicy(**wrong)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 60), st.integers(0, 9000), st.one_of(st.none(), st.floats(0, 1)), st.floats(0, 1), st.booleans())
def test_every_decision_explains_itself(days, labels, share, now, manual):
    decision = decide(
        POLICY, evidence(days, known_labels=labels, drifted_share=share, performance_now=now, manual_request=manual)
    )
    assert set(TRIGGERS) <= set(decision.reasons)
    assert all(decision.reasons.values())
    assert decision.retrain == (bool(decision.triggers) and decision.blocked_by is None)
    if manual:
        assert decision.retrain
