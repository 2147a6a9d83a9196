"""Rules that ask for more than arrives are found, with the values that would do."""

from datetime import timedelta
from typing import Any

import pytest
from worlds_of_core import spec_with

from ct_assets.core.gate import GatePolicy
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.spec import LabelSpec, ModelSpec, SegmentRules
from ct_assets.core.volume import Shortage, Volume, shortages


def of(**changes: Any) -> ModelSpec:
    """One that suits a thousand events a day."""
    inputs = {"carrier": "categorical", "hour": "numeric"}
    fitting = {"policy": RetrainPolicy(first_training_rows=20_000), "gate": GatePolicy(min_rows=1000)}
    return spec_with(inputs, **(fitting | changes))


def found(spec: ModelSpec, a_day: float, **volume: Any) -> dict[str, Shortage]:
    return {each.field: each for each in shortages(spec, Volume(a_day, "the tests", **volume))}


def test_the_defaults_suit_a_thousand_events_a_day() -> None:
    assert found(of(), 1000) == {}


def test_the_default_gate_on_two_events_an_hour() -> None:
    # 7 days of 48 are 336; 1,000 are there after 21 days.
    (each,) = found(of(policy=RetrainPolicy()), 48).values()
    assert each.field == "evaluation_days"
    assert "7 days bring about 336 labelled events (48 a day), and the gate wants 1,000" in each.found
    assert "evaluation_days: 21, or gate.min_rows: 336" in each.remedy
    assert not found(of(policy=RetrainPolicy(), evaluation_days=21), 48)
    assert not found(of(policy=RetrainPolicy(), gate=GatePolicy(min_rows=336)), 48)


def test_a_rare_class_asks_for_more_days() -> None:
    each = found(of(), 1000, rarer_share=0.001)["evaluation_days"]
    assert "about 7.0, and the gate wants 10 (gate.min_class_rows)" in each.found
    assert each.remedy.endswith("evaluation_days: 10")


def test_a_first_training_needs_a_history() -> None:
    label = LabelSpec(source="outcomes", sql="SELECT 1", horizon=timedelta(days=30))
    each = found(of(label=label), 1000)["policy.first_training_rows"]
    # 7 days to judge on, 30 until they are mature, and 30 under the embargo.
    assert "20,000 labels are there after 20 days, and a first training needs a history of 67 days" in each.found
    assert "first_training_rows: 67000" in each.remedy
    assert not each.hopeless


def test_a_record_that_ends_too_early_never_trains() -> None:
    each = found(of(), 1000, days=15)["policy.first_training_rows"]
    assert each.hopeless
    assert "the record ends after 15" in each.found
    assert "first_training_rows" not in found(of(), 1000, days=60)


def test_a_first_training_in_years() -> None:
    each = found(of(gate=GatePolicy(min_rows=5)), 1)["policy.first_training_rows"]
    assert "20,000 days (1 a day)" in each.found
    assert "first_training_rows: 91" in each.remedy


@pytest.mark.parametrize(
    ("policy", "field", "remedy"),
    [
        ({"new_label_rows": 3000}, "policy.new_label_rows", "new_label_rows: 7000 or more"),
        (
            {"performance_drop": 0.05, "performance_min_rows": 20_000},
            "policy.performance_window_days",
            "performance_window_days: 20, or performance_min_rows: 14000",
        ),
    ],
)
def test_triggers_that_always_fire_or_never(policy: dict[str, Any], field: str, remedy: str) -> None:
    each = found(of(policy=RetrainPolicy(first_training_rows=20_000, **policy)), 1000)[field]
    assert remedy in each.remedy


def test_slices_and_segments_that_are_never_large_enough() -> None:
    sliced = of(slices=("carrier",), gate=GatePolicy(min_rows=100, min_slice_rows=500))
    assert "evaluation_days: 10" in found(sliced, 50)["gate.min_slice_rows"].remedy
    split = of(segment_by="carrier", segments=SegmentRules(min_labels=400_000))
    assert "365 days bring about 365,000" in found(split, 1000)["segments.min_labels"].found
