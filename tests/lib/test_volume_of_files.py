"""What a file of events says about the rules of the models that read it, before it lands."""

from typing import Any

import pandas as pd
import pyarrow as pa

from ct_assets import cli
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.spec import EstimatorSpec, EventSpec, LabelSpec, ModelSpec
from ct_assets.lib.volume import volume_in

SPEC = ModelSpec(
    name="buys",
    owner="team:shop",
    description="Does a visit end in an order?",
    events=EventSpec(
        source="visits",
        sql="SELECT visit, known_at AS event_timestamp, customer FROM visits WHERE pages > 0",
        id_column="visit",
    ),
    label=LabelSpec(source="orders", sql="SELECT 1", delay="1 day"),
    entities=("customer",),
    feature_service="buys_v1",
    inputs={"pages": "numeric"},
    estimator=EstimatorSpec(path="sklearn.linear_model.LogisticRegression"),
    policy=RetrainPolicy(),
)


def visits(days: float) -> pa.Table:
    """One each half hour; every third is of no page, and no event."""
    known = pd.date_range("2024-02-01", periods=int(48 * days), freq="30min", tz="UTC", unit="us")
    pages = [0 if n % 3 == 0 else 1 for n in range(len(known))]
    rows = {"visit": range(len(known)), "customer": "c", "pages": pages, "known_at": known}
    return pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)


def test_the_events_of_a_file_are_counted_by_the_sql_of_the_model() -> None:
    found = volume_in(SPEC, visits(10))
    assert found is not None
    assert round(found.a_day) == 32
    assert found.measured_on == "320 events of 10 days in the file"
    assert volume_in(SPEC, visits(0.25)) is None  # nobody knows how many such parts a day has
    assert volume_in(SPEC, visits(10).drop_columns("pages")) is None  # of another source


def test_landing_says_what_the_rules_ask_for_and_the_file_does_not_bring(monkeypatch: Any) -> None:
    monkeypatch.setattr(cli, "_specs", lambda: {"buys": SPEC})
    (first,) = (line for line in cli._too_few("visits", visits(10)) if "evaluation_days" in line)
    assert first.startswith("buys, evaluation_days: 7 days bring about 224 labelled events (32.07 a day)")
    assert first.endswith("evaluation_days: 32, or gate.min_rows: 224")
    assert cli._too_few("orders", visits(10)) == []
