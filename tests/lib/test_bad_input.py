"""Bad input ends in an error that says what to do, never in a trace from deep inside or in a wrong model.

What is wrong with a spec, its SQL, its features and its estimator is in `test_doctor.py`, a feature that knows the
label in `test_gate.py`, moments without a zone in a file in `test_formats.py`; here is the rest.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ct_assets.core.policy import Evidence, RetrainPolicy, decide
from ct_assets.core.spec import EstimatorSpec, EventSpec, LabelSpec, ModelSpec
from ct_assets.core.training import train
from ct_assets.lake.examples import read_events
from ct_assets.lake.lake import Lake

SPEC = ModelSpec(
    name="buys",
    owner="team:shop",
    description="Does the visitor buy?",
    events=EventSpec(
        source="visits",
        id_column="visit",
        sql="SELECT visit, known_at AS event_timestamp, customer FROM visits",
    ),
    label=LabelSpec(
        source="visits",
        delay=timedelta(days=1),
        sql="SELECT visit, CAST(bought AS TINYINT) AS label, known_at FROM visits",
    ),
    entities=("customer",),
    feature_service="buys_v1",
    inputs={"pages": "numeric"},
    estimator=EstimatorSpec(path="sklearn.linear_model.LogisticRegression"),
    policy=RetrainPolicy(first_training_rows=100),
)
FEBRUARY = pd.date_range("2024-02-01", periods=29, tz="UTC")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A shop that opened in February, on a platform that began in January."""
    found = Lake(tmp_path)
    for day in FEBRUARY:
        known = [(day + pd.Timedelta(hours=hour)).as_unit("us") for hour in range(3)]
        rows = pd.DataFrame({"visit": [f"{k:%d%H}" for k in known], "customer": "c", "bought": 1, "known_at": known})
        found.dataset("visits").write(day.date().isoformat(), pa.Table.from_pandas(rows, preserve_index=False))
    return found


def test_a_history_that_begins_with_an_empty_month_is_read(lake: Lake) -> None:
    events = read_events(
        lake, SPEC, pd.Timestamp("2024-01-01", tz="UTC"), pd.Timestamp("2024-03-01", tz="UTC")
    ).to_pandas()
    assert len(events) == 3 * len(FEBRUARY)
    assert events["event_timestamp"].min() == FEBRUARY[0]


def test_an_empty_month_alone_has_no_events(lake: Lake) -> None:
    events = read_events(lake, SPEC, pd.Timestamp("2024-01-02", tz="UTC"), pd.Timestamp("2024-01-31", tz="UTC"))
    assert events.num_rows == 0
    assert {"visit", "event_timestamp", "customer"} <= {*events.column_names}


def test_a_source_of_which_nothing_ever_arrived_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected at least one arrived batch: land it"):
        read_events(Lake(tmp_path), SPEC, pd.Timestamp("2024-01-02", tz="UTC"), pd.Timestamp("2024-01-31", tz="UTC"))


def test_in_an_empty_month_nothing_is_trained_and_it_is_said_why() -> None:
    decision = decide(SPEC.policy, Evidence(as_of=datetime(2024, 1, 31, tzinfo=UTC), known_labels=0))
    assert not decision.retrain
    assert decision.blocked_by == "too_few_labels"
    assert decision.reasons["too_few_labels"].startswith("0 labels known, 100 needed for a first training")


@pytest.mark.parametrize(
    ("labels", "told"),
    [([], "there is nothing to train buys on"), ([1] * 20, "20 training examples of buys have one class only")],
)
def test_examples_that_teach_nothing_are_told(labels: list[int], told: str) -> None:
    examples = pd.DataFrame({"pages": np.arange(len(labels), dtype="float64"), "label": labels})
    with pytest.raises(ValueError, match=told):
        train(SPEC, examples, examples)


def test_an_event_without_an_id_is_told(lake: Lake) -> None:
    sql = "SELECT nullif(visit, '0100') AS visit, known_at AS event_timestamp FROM visits"
    spec = SPEC.model_copy(update={"events": SPEC.events.model_copy(update={"sql": sql})})
    first = FEBRUARY[0]
    told = "the events' SQL of buys yields 1 of 3 events without visit; expected an id for each event"
    with pytest.raises(ValueError, match=told):
        read_events(lake, spec, first, first + pd.Timedelta(days=1))
