"""Events with a rhythm are searched for on the days that they are due, and kept for the labels of a horizon."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError
from worlds_of_core import spec_with

from ct_assets.core.spec import EventSpec, LabelSpec, ModelSpec
from ct_assets.lake.examples import has_events, horizon_labels, kept_events, read_events
from ct_assets.lake.lake import Lake

DAY = pd.Timedelta(days=1)
MONDAY = pd.Timestamp("2020-03-02", tz="UTC")
EACH_MONDAY = """
SELECT customer || strftime(monday, '|%Y-%m-%d') AS id, monday AS event_timestamp, customer
FROM (SELECT DISTINCT customer, date_trunc('week', known_at) + INTERVAL 7 DAYS AS monday FROM orders)
"""
BUYS = """
SELECT id, CAST(count(line) > 0 AS TINYINT) AS label FROM events LEFT JOIN orders
  ON orders.customer = events.customer AND known_at >= event_timestamp AND known_at < horizon_ends GROUP BY id
"""
ORDERS = [("a", 0), ("b", 2), ("b", 3), ("a", 9), ("c", 10), ("b", 15), ("c", 20)]
"""Customers, and how many days after the first Monday they ordered."""


def model(sql: str = EACH_MONDAY, every: str | None = "W-MON") -> ModelSpec:
    return spec_with(
        {"x": "numeric"},
        events=EventSpec(source="orders", sql=sql, id_column="id", lookback_days=7, every=every),
        label=LabelSpec(source="orders", sql=BUYS, horizon="7 days"),
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    for number in range(22):
        arrive(lake, number, [customer for customer, day in ORDERS if day == number])
    return lake


def arrive(lake: Lake, number: int, customers: list[str]) -> None:
    moment = MONDAY + number * DAY + pd.Timedelta(hours=9)
    columns = {
        "customer": pa.array(customers, pa.string()),
        "line": pa.array(range(len(customers)), pa.int64()),
        "known_at": pa.array([moment] * len(customers), pa.timestamp("us", "UTC")),
    }
    lake.dataset("orders").write(str(moment.date()), pa.table(columns))


def moments(start: int, end: int) -> tuple[pd.Timestamp, pd.Timestamp]:
    return MONDAY + start * DAY, MONDAY + end * DAY


@pytest.mark.parametrize("start", range(8, 22))
def test_a_rhythm_changes_nothing_but_what_is_read(lake, start, monkeypatch):
    days = moments(start, start + 1)
    plain = read_events(lake, model(every=None), *days).to_pandas()
    read = []
    expose = Lake.expose
    monkeypatch.setattr(Lake, "expose", lambda *given: (read.append(given[2]["orders"]), expose(*given))[1])
    pd.testing.assert_frame_equal(read_events(lake, model(), *days).to_pandas(), plain)
    due = start % 7 == 0
    assert (read[0].first == read[0].last) is not due
    assert due is bool(len(plain))


def test_an_event_beside_its_rhythm_is_refused(lake):
    daily = "SELECT customer || line AS id, date_trunc('day', known_at) + INTERVAL 1 DAY AS event_timestamp FROM orders"
    with pytest.raises(ValueError, match=r"yields one at 2020-03-12T00:00:00.*due 'W-MON' only.*mend `events.sql` or"):
        read_events(lake, model(daily), *moments(7, 15))


def test_what_is_no_rhythm_is_refused():
    with pytest.raises(ValidationError, match="'weekly' is no pandas offset; expected such as 'W-MON'"):
        model(every="weekly")


@pytest.mark.parametrize("every", ["W-MON", None])
def test_kept_events_give_the_labels_of_events_that_were_read_anew(lake, every):
    spec, as_of = model(every=every), MONDAY + 22 * DAY
    for _ in ("computed", "kept"):
        for start, end in ((0, 8), (7, 15), (8, 14), (0, 15)):
            days = moments(start, end)
            kept = kept_events(lake, spec, *days)
            labels = horizon_labels(lake, spec, *days, as_of, kept)
            pd.testing.assert_frame_equal(labels, horizon_labels(lake, spec, *days, as_of))
    assert labels.set_index("id")["label"].to_dict() == {
        # The first Monday of each comes a week after the first order.
        "a|2020-03-09": 1,
        "b|2020-03-09": 0,
        "a|2020-03-16": 0,
        "c|2020-03-16": 1,
    }


def test_a_day_that_came_late_renews_the_events_that_it_concerns(lake):
    spec, days = model(), moments(7, 15)
    before = kept_events(lake, spec, *days)
    stored = lake.dataset("m/events")
    files = stored.files()
    assert [f.partition for f in files] == ["2020-03-09", "2020-03-16"]
    assert kept_events(lake, spec, *days).equals(before)
    assert stored.files() == files
    arrive(lake, 11, ["d"])
    assert set(kept_events(lake, spec, *days)["id"].to_pylist()) - set(before["id"].to_pylist()) == {"d|2020-03-16"}
    assert stored.files()[0] == files[0]


def test_before_anything_arrived_there_are_no_events(lake):
    days = moments(-30, -20)
    assert not has_events(lake, model(), *days)
    assert kept_events(lake, model(), *days) is None


def test_empty_days_are_not_opened(lake):
    empty = lake.dataset("orders").partition("2020-03-03")
    for path in lake.dataset("orders").paths(empty):
        Path(path).unlink()
    assert len(read_events(lake, model(), *moments(7, 8))) == 2
