"""A column that was declared stable is watched for as long as its source sends."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pn
import pyarrow as pa
import pytest

from ct_assets.feeds import parquet_bytes
from ct_assets.lake.contract import Domain, Source
from ct_assets.lake.ingest import Batch, ingest
from ct_assets.lake.lake import Lake

FIRST = date(2024, 1, 1)
WEIGHTS = Source(
    name="weights",
    schema=pn.DataFrameSchema(
        {"id": pn.Column(int), "weight": pn.Column(float), "known_at": pn.Column("datetime64[us, UTC]")}
    ),
    key=("id",),
    description="Weights of parcels",
    owner="team:test",
    domain=Domain("post", FIRST, date(2024, 12, 31)),
    stable=("weight",),
)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def send(lake: Lake, day: int, weights: np.ndarray) -> Batch:
    at = FIRST + timedelta(days=day)
    folder = lake.home / "landing" / "weights" / at.isoformat()
    folder.mkdir(parents=True, exist_ok=True)
    known_at = pd.Timestamp(at, tz="UTC").as_unit("us")
    frame = pd.DataFrame({"id": range(len(weights)), "weight": weights, "known_at": known_at})
    (folder / "weights.parquet").write_bytes(parquet_bytes(pa.Table.from_pandas(frame, preserve_index=False)))
    (batch,) = ingest(lake, WEIGHTS, at.isoformat())
    return batch


def kilograms(day: int) -> np.ndarray:
    return np.random.default_rng(day).normal(20.0, 4.0, 300)


def test_another_unit_is_rejected_for_as_long_as_it_is_sent(lake: Lake) -> None:
    assert {send(lake, day, kilograms(day)).status for day in range(3)} == {"accepted"}
    assert {send(lake, day, kilograms(day) / 0.453592).status for day in range(3, 21)} == {"quarantined"}
    assert send(lake, 60, kilograms(60)).status == "accepted"


def test_another_shape_around_the_same_mean_is_a_change(lake: Lake) -> None:
    for day in range(3):
        send(lake, day, kilograms(day))
    halves = np.where(np.arange(300) % 2, 0.0, 40.0)
    batch = send(lake, 3, halves)
    assert batch.status == "quarantined"
    assert batch.reasons[0].startswith("column weight: PSI")


def test_a_first_day_of_two_rows_does_not_blind_what_follows(lake: Lake) -> None:
    send(lake, 0, np.array([19.0, 21.0]))
    assert {send(lake, day, kilograms(day)).status for day in range(1, 4)} == {"accepted"}
    assert send(lake, 4, np.where(np.arange(300) % 2, 0.0, 40.0)).status == "quarantined"


def test_the_largest_number_there_is_breaks_nothing(lake: Lake) -> None:
    largest = np.finfo(float).max
    assert send(lake, 0, np.array([largest, 20.0, -largest])).status == "accepted"
    assert send(lake, 1, np.array([largest, 20.0, -largest])).status == "accepted"
