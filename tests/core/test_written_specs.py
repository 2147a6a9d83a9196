"""What a team may write by mistake and would not notice: each is told when the spec is read."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from worlds_of_core import spec_with

from ct_assets.core.spec import EventSpec, LabelSpec

LABEL = {"source": "orders", "sql": "SELECT 1"}


@pytest.mark.parametrize("written", [30, 30.5, "30", " 30 ", True])
def test_a_duration_without_a_unit_is_not_taken_for_seconds(written: Any) -> None:
    with pytest.raises(ValidationError, match="is no duration, as it has no unit; expected such as '36 hours'"):
        LabelSpec(**LABEL, horizon=written)


@pytest.mark.parametrize("written", ["30 days", "P30D", "720h", timedelta(days=30)])
def test_a_duration_with_one_is_read(written: Any) -> None:
    assert LabelSpec(**LABEL, horizon=written).horizon == timedelta(days=30)


def test_a_duration_is_read_as_it_is_stored() -> None:
    label = LabelSpec(**LABEL, horizon="36 hours")
    assert LabelSpec.model_validate_json(label.model_dump_json()) == label


def test_nothing_happens_within_no_time() -> None:
    with pytest.raises(ValidationError, match="horizon is 0, in which nothing can happen"):
        LabelSpec(**LABEL, horizon="0 days")


@pytest.mark.parametrize("name", ["label", "Known_at", "id", "served_by", "model_version", "prediction"])
def test_an_input_cannot_have_the_name_of_a_column_that_is_stored_beside_it(name: str) -> None:
    with pytest.raises(ValidationError, match=f"inputs: '{name}' is a column that is stored beside the inputs"):
        spec_with({name: "numeric"})


@pytest.mark.parametrize("name", ["label", "Event_Timestamp", "prediction"])
def test_an_id_cannot_have_the_name_of_a_column_that_is_stored_beside_it(name: str) -> None:
    events = EventSpec(source="flights", sql="SELECT 1", id_column=name)
    with pytest.raises(ValidationError, match=f"events.id_column: '{name}' is a column that is stored beside the id"):
        spec_with({"x": "numeric"}, events=events)


def test_quantiles_that_would_be_stored_under_one_name_are_told() -> None:
    with pytest.raises(ValidationError, match="expected ones that differ in their first six digits"):
        spec_with({"x": "numeric"}, task="quantile", quantiles=[0.5, 0.5000001])


def test_rules_of_segments_without_any_are_told() -> None:
    with pytest.raises(ValidationError, match="segments: there are none without `segment_by`"):
        spec_with({"x": "numeric"}, segments={"min_labels": 10})


@pytest.mark.parametrize("limit", [float("nan"), float("inf")])
def test_a_limit_that_nothing_can_break_or_hold_is_told(limit: float) -> None:
    with pytest.raises(ValidationError, match="should be a finite number"):
        spec_with({"x": "numeric"}, gate={"tolerance": limit})
