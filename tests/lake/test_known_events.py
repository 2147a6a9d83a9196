"""Events are what their SQL yields from the rows known at their own moment, whichever way they are read.

The oracle runs the SQL once for each moment, over nothing but those rows.
"""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from worlds_of_core import spec_with

from ct_assets.core.spec import EventSpec, LabelSpec, ModelSpec
from ct_assets.lake.examples import late_events, read_events
from ct_assets.lake.lake import Lake
from ct_assets.lake.row_wise import row_wise

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2021-05-03", tz="UTC")
DAYS = 2
LOOKBACK = 1

QUERIES = {
    "one row each": "SELECT parcel, due AS event_timestamp, size FROM parcels WHERE size > 1",
    "one row each, once": "SELECT DISTINCT parcel, date_trunc('hour', due) AS event_timestamp FROM parcels",
    "with its moment": "SELECT parcel, due AS event_timestamp, size, known_at FROM parcels ORDER BY known_at",
    "first and newest": "SELECT parcel, min(known_at) AS event_timestamp, arg_max(size, known_at) AS size FROM parcels "
    "GROUP BY parcel",
    "newest row": "SELECT parcel, due AS event_timestamp, size, known_at FROM parcels "
    "QUALIFY row_number() OVER (PARTITION BY parcel ORDER BY known_at DESC) = 1",
    "beside the row before": "SELECT parcel || size AS parcel, known_at + INTERVAL 30 MINUTES AS event_timestamp, "
    "coalesce(lag(size) OVER (PARTITION BY parcel ORDER BY known_at), 0) AS size FROM parcels",
    "beside all others": "WITH all_of AS (SELECT avg(size) AS size FROM parcels) "
    "SELECT parcel || known_at AS parcel, known_at AS event_timestamp, all_of.size FROM parcels, all_of",
}


def spec_of(sql: str) -> ModelSpec:
    return spec_with(
        {"x": "numeric"},
        events=EventSpec(source="parcels", sql=sql, id_column="parcel", lookback_days=LOOKBACK),
        label=LabelSpec(source="parcels", sql="SELECT 1", delay="1 day"),
    )


def world(home: Path, seed: int) -> tuple[Lake, pd.DataFrame]:
    """Parcels, some of them announced several times, for moments before and after they were."""
    random = np.random.default_rng(seed)
    rows = 36
    known = pd.to_timedelta(30 * np.sort(random.choice(DAYS * 48, rows, replace=False)), unit="min")
    ahead = pd.to_timedelta(random.integers(-8, 40, rows), unit="h")
    frame = pd.DataFrame(
        {
            "parcel": [f"p{n}" for n in random.integers(0, 16, rows)],
            "size": random.integers(1, 9, rows),
            "known_at": (START + known).as_unit("us"),
            "due": (START + known + ahead).as_unit("us"),
        }
    )
    lake = Lake(home)
    schema = pa.Schema.from_pandas(frame, preserve_index=False)
    for number in range(DAYS):
        day = (START + number * DAY).date().isoformat()
        part = frame[frame["known_at"].dt.strftime("%Y-%m-%d") == day]
        lake.dataset("parcels").write(day, pa.Table.from_pandas(part, schema=schema, preserve_index=False))
    return lake, frame


def by_hand(sql: str, frame: pd.DataFrame, end: pd.Timestamp) -> list[tuple[object, ...]]:
    """Run the SQL at each moment at which something may be due, and keep what is due right then."""
    connection, found = duckdb.connect(), []
    connection.execute("SET TimeZone = 'UTC'")

    def rows_of(parcels: pd.DataFrame) -> pd.DataFrame:
        connection.register("parcels", parcels)
        return connection.execute(f"SELECT * FROM ({sql})").to_arrow_table().to_pandas()

    # Of SQL that makes each row of one row, when that was known; the same row may be made several times.
    single: dict[tuple[object, ...], list[pd.Timestamp]] = {}
    for number in range(len(frame) if row_wise(sql, "parcels") else 0):
        for row in rows_of(frame.iloc[number : number + 1]).itertuples(index=False, name=None):
            single.setdefault(row, []).append(frame["known_at"].iloc[number])
    for moment in pd.date_range(START, end, freq="30min", inclusive="left"):
        reach = moment.floor("D") - LOOKBACK * DAY
        rows = rows_of(frame[(frame["known_at"] <= moment) & (frame["known_at"] >= reach)])
        each = [tuple(row) for row in rows.itertuples(index=False, name=None)]
        known = (
            rows["known_at"]
            if "known_at" in rows
            else [max((k for k in single.get(row, ()) if k <= moment), default=START) for row in each]
        )
        newest = rows.assign(_known=known).sort_values(["_known", "event_timestamp"])
        due = newest.drop_duplicates("parcel", keep="last").drop(columns="_known")
        due = due[due["event_timestamp"] == moment]
        found += [tuple(row) for row in due.itertuples(index=False, name=None)]
    return sorted(found, key=str)


def plain(events: pa.Table) -> list[tuple[object, ...]]:
    return sorted((tuple(row) for row in events.to_pandas().itertuples(index=False, name=None)), key=str)


@pytest.mark.parametrize("name", QUERIES)
def test_an_event_is_what_was_known_at_its_moment_whichever_way_it_is_read(name: str, tmp_path: Path) -> None:
    spec, end = spec_of(QUERIES[name]), START + DAYS * DAY
    lake, frame = world(tmp_path, len(name))
    expected = by_hand(QUERIES[name], frame, end)
    assert len(expected) > 3
    days = [read_events(lake, spec, START + n * DAY, START + (n + 1) * DAY) for n in range(DAYS)]
    assert plain(pa.concat_tables(days, promote_options="permissive")) == expected
    # All at once, as a training joins what was never scored; and again, when it is kept.
    for _ in range(2):
        assert plain(read_events(lake, spec, START, end)) == expected


def test_only_a_selection_of_rows_is_read_for_many_days_at_once() -> None:
    single = {name for name, sql in QUERIES.items() if row_wise(sql, "parcels")}
    assert single == {"one row each", "one row each, once", "with its moment"}
    for sql in (
        "SELECT max(size) FROM parcels",
        "SELECT wavg(size, size) FROM parcels",
        "SELECT parcel FROM parcels GROUP BY ALL",
        "SELECT parcel FROM parcels LIMIT 3",
        "SELECT parcel FROM parcels USING SAMPLE 10%",
        "SELECT DISTINCT ON (parcel) parcel, size FROM parcels",
        "SELECT (SELECT max(size) FROM parcels) FROM parcels",
        "SELECT parcel FROM parcels, range(3)",
        "SELECT parcel FROM others",
        "this is no SQL",
    ):
        assert row_wise(sql, "parcels") is None, sql


def test_what_was_announced_after_its_moment_is_named(tmp_path: Path) -> None:
    spec = spec_of(QUERIES["one row each"])
    lake, frame = world(tmp_path, 1)
    start, end = START + DAY, START + 2 * DAY
    known = read_events(lake, spec, start, end)
    late = late_events(lake, spec, start, end, known)
    seen = frame[(frame["known_at"] >= START) & (frame["known_at"] < end) & (frame["size"] > 1)]
    due = seen[(seen["due"] >= start) & (seen["due"] < end)]
    assert set(late) == set(due["parcel"]) - set(known["parcel"].to_pylist())
    assert late


def test_two_rows_of_one_moment_that_nothing_orders_are_refused(tmp_path: Path) -> None:
    lake, _ = world(tmp_path, 2)
    twice = "SELECT 'p' AS parcel, max(known_at) AS event_timestamp, unnest([1, 2]) AS size FROM parcels"
    with pytest.raises(ValueError, match=r"yields parcel 'p' more than once for 2021-05-0.*told by `known_at`"):
        read_events(lake, spec_of(twice), START, START + DAYS * DAY)


def test_too_many_moments_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, _ = world(tmp_path, 3)
    monkeypatch.setattr("ct_assets.lake.known_events.MOST_PAIRS", 10)
    with pytest.raises(ValueError, match=r"run as of each of the \d+ moments.*`events.every`"):
        read_events(lake, spec_of(QUERIES["newest row"]), START, START + DAY)
