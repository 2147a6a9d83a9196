"""The repurchase model's SQL, against plain loops over a small shop."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import ct_assets
from ct_assets.defs.models.repurchase.features import COUNTRY_ORDERS, CUSTOMER_ORDERS
from ct_assets.defs.models.repurchase.sources import ORDERS
from ct_assets.feeds.online_retail import order_lines, read_export
from ct_assets.lake.columns import Content
from ct_assets.lake.contract import contract_breaches
from ct_assets.lake.engine import cursor, fetch
from ct_assets.lake.formats import read

SPEC = yaml.safe_load((Path(ct_assets.__file__).parent / "defs/models/repurchase/defs.yaml").read_text())["attributes"]
DAY = pd.Timedelta(days=1)
START, END = pd.Timestamp("2010-01-01", tz="UTC"), pd.Timestamp("2011-01-01", tz="UTC")


@pytest.fixture(scope="module")
def orders() -> pd.DataFrame:
    """A year of a shop with a dozen customers, and every kind of line that is no purchase."""
    rng, n = np.random.default_rng(11), 600
    moments = START + pd.to_timedelta(np.sort(rng.integers(0, 365 * 24 * 60, n)), unit="min")
    customer = rng.choice([f"{10_000 + i}" for i in range(12)], n)
    lines = pd.DataFrame(
        {
            "line_id": [f"{i}-1" for i in range(n)],
            "invoice": [f"{500_000 + i // 2}" for i in range(n)],
            "stock_code": rng.choice(["85048", "79323P", "POST", "M"], n, p=[0.5, 0.3, 0.1, 0.1]),
            "quantity": rng.choice([1, 12, -1], n, p=[0.5, 0.4, 0.1]),
            "price": rng.choice([2.5, 0.0], n, p=[0.9, 0.1]),
            "customer": np.where(rng.random(n) < 0.2, None, customer),
            "country": rng.choice(["France", "Japan"], n),
            "known_at": moments.as_unit("us"),
        }
    )
    # On the very edges of weeks and horizons.
    lines.loc[::40, "known_at"] = lines.loc[::40, "known_at"].dt.floor("D")
    return lines.sort_values("known_at", ignore_index=True)


@pytest.fixture(scope="module")
def goods(orders: pd.DataFrame) -> pd.DataFrame:
    """The lines about goods of a known customer."""
    return orders[orders["customer"].notna() & (orders["price"] > 0) & orders["stock_code"].str.match(r"\d{5}")]


@pytest.fixture(scope="module")
def bought(goods: pd.DataFrame) -> pd.DataFrame:
    return goods[goods["quantity"] > 0]


def _run(sql: str, parameters: dict[str, Any] | None = None, **tables: pd.DataFrame) -> pd.DataFrame:
    with cursor() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        return fetch(connection, sql, parameters).to_pandas()


@pytest.fixture(scope="module")
def events(orders: pd.DataFrame) -> pd.DataFrame:
    return _run(SPEC["events"]["sql"], orders=orders)


def test_every_monday_asks_for_those_who_bought_in_the_26_weeks_before(events, bought):
    expected = {}
    for monday in pd.date_range("2010-01-04", "2011-06-27", freq="7D", tz="UTC"):
        recent = bought[(bought["known_at"] < monday) & (bought["known_at"] >= monday - 182 * DAY)]
        for customer, lines in recent.groupby("customer"):
            weeks = lines["known_at"].dt.tz_localize(None).dt.to_period("W")
            newest = lines[weeks == weeks.iloc[-1]]
            expected[f"{customer}|{monday:%Y-%m-%d}"] = (customer, monday, newest["country"].iloc[-1])
    found = events.set_index("customer_week")
    assert found.index.is_unique
    assert {k: (r["customer"], r["event_timestamp"]) for k, r in found.iterrows()} == {
        k: v[:2] for k, v in expected.items()
    }
    assert found["country"].to_dict() == {k: v[2] for k, v in expected.items()}
    assert (found["asked_at"] == found["event_timestamp"]).all()


def test_an_event_does_not_depend_on_what_came_after_it(events, orders):
    moment = pd.Timestamp("2010-07-05", tz="UTC")
    early = _run(SPEC["events"]["sql"], orders=orders[orders["known_at"] < moment])
    of_monday = [e[e["event_timestamp"] == moment].sort_values("customer_week") for e in (events, early)]
    pd.testing.assert_frame_equal(*(e.reset_index(drop=True) for e in of_monday))


def test_a_label_looks_at_the_thirty_days_after_the_monday_and_no_further(events, orders, bought):
    assert SPEC["label"]["horizon"] == "30 days"
    labels = _run(
        SPEC["label"]["sql"], orders=orders, events=events.assign(horizon_ends=events["event_timestamp"] + 30 * DAY)
    )
    found = labels.set_index("customer_week")["label"]
    assert found.index.is_unique
    for event in events.itertuples():
        later = bought.loc[bought["customer"] == event.customer, "known_at"] - event.event_timestamp
        expected = ((later >= pd.Timedelta(0)) & (later < 30 * DAY)).any()
        assert found[event.customer_week] == expected


def test_a_row_of_features_counts_what_was_known_when_the_history_grew(orders, goods, bought):
    rows = _run(CUSTOMER_ORDERS, {"start": START, "end": END}, orders=orders)
    assert len(rows) == len(goods[["customer", "known_at"]].drop_duplicates())
    for row in rows.itertuples():
        age = row.event_timestamp - goods["known_at"]
        mine = goods[(goods["customer"] == row.customer) & (age >= pd.Timedelta(0)) & (age <= 182 * DAY)]
        paid, back = mine[mine["quantity"] > 0], mine[mine["quantity"] < 0]
        month = paid[paid["known_at"] >= row.event_timestamp - 30 * DAY]
        pairs = [len(part[["known_at", "invoice"]].drop_duplicates()) for part in (month, paid, back)]
        assert [row.orders_30d, row.orders_182d, row.cancelled_182d] == pairs
        assert row.weeks_182d == paid["known_at"].dt.tz_localize(None).dt.to_period("W").nunique()
        assert row.spent_182d == pytest.approx((paid["quantity"] * paid["price"]).sum())
        assert pd.isna(row.last_order_at) == paid.empty
        if len(paid):
            assert (row.first_order_at, row.last_order_at) == (paid["known_at"].min(), paid["known_at"].max())
        assert row.created == row.event_timestamp


def test_a_country_s_month_is_a_share_of_its_quarter(orders, bought):
    rows = _run(COUNTRY_ORDERS, {"start": START, "end": END}, orders=orders)
    assert len(rows) == len(bought[["country", "known_at"]].drop_duplicates())
    for row in rows.itertuples():
        age = row.event_timestamp - bought["known_at"]
        mine = bought[(bought["country"] == row.country) & (age >= pd.Timedelta(0)) & (age <= 91 * DAY)]
        counts = [
            len(
                mine.loc[
                    mine["known_at"] >= row.event_timestamp - days * DAY, ["known_at", "invoice"]
                ].drop_duplicates()
            )
            for days in (28, 91)
        ]
        assert row.country_month_share == pytest.approx(counts[0] / counts[1])


@pytest.mark.parametrize("sql", [CUSTOMER_ORDERS, COUNTRY_ORDERS])
def test_a_day_s_rows_are_the_same_from_the_days_that_its_windows_reach(orders, sql):
    day = pd.Timestamp("2010-11-15", tz="UTC")
    bounds = {"start": day, "end": day + 7 * DAY}
    reach = orders[(orders["known_at"] >= day - 182 * DAY) & (orders["known_at"] < day + 7 * DAY)]
    pd.testing.assert_frame_equal(_run(sql, bounds, orders=orders), _run(sql, bounds, orders=reach))


def test_the_contract_takes_what_the_shop_sends_and_a_day_without_orders():
    header = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
    odd = [
        "489434,85048,BALL,12,12/1/2009 7:45,6.95,13085.0,United Kingdom",
        "C489449,22087,,-12,12/1/2009 10:33,2.95,16321.0,Australia",
        "A506401,B,Adjust bad debt,1,12/1/2009 13:36,-53594.36,,United Kingdom",
    ]
    lines = order_lines(read_export((header + "\n".join(odd) + "\n").encode()))
    assert contract_breaches(ORDERS, sent(lines)) == []
    assert contract_breaches(ORDERS, sent(lines.slice(0, 0))) == []
    damaged = lines.set_column(lines.schema.get_field_index("customer"), "customer", [["13085.0", None, None]])
    assert any("column customer" in reason for reason in contract_breaches(ORDERS, sent(damaged)))


def sent(lines: pa.Table) -> Content:
    sink = io.BytesIO()
    pq.write_table(lines, sink)
    return read(ORDERS, sink.getvalue())
