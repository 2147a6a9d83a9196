"""A source that contradicts itself is told when it is loaded, by source and field."""

import io
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pandera.pandas as pa
import pyarrow as arrow
import pyarrow.parquet as pq
import pytest

from ct_assets.defs.sources.contracts import SOURCES
from ct_assets.lake.contract import Domain, Source, SqlTable, contract_breaches
from ct_assets.lake.declaration import DeclarationError, check_together
from ct_assets.lake.formats import read

UTC = "datetime64[us, UTC]"


def schema(**columns: Any) -> pa.DataFrameSchema:
    return pa.DataFrameSchema(
        {"id": pa.Column(object), "price": pa.Column(float), "known_at": pa.Column(UTC)} | columns
    )


ORDERS = Source("orders", schema(), ("id",), "Orders", "team:test")
TABLE = SqlTable("SHOP_URL", table="orders")
READ = replace(ORDERS, table=TABLE)
SENT = replace(ORDERS, format="json", event_type="order")

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a name with a slash": ({"name": "shop/orders"}, "field name: expected letters"),
    "a domain with a space": (
        {"domain": Domain("help desk")},
        "field domain: its name is 'help desk'; expected letters",
    ),
    "a domain that is a path": ({"domain": Domain("../x")}, r"field domain: its name is '\.\./x'; expected letters"),
    "a key that is no column": ({"key": ("ids",)}, "field key: unknown column 'ids', did you mean 'id'"),
    "a key as text": ({"key": "id"}, r"field key: found the text 'id'; expected a tuple.*\('id',\)"),
    "no key": ({"key": ()}, "field key: is empty"),
    "a key that may be missing": (
        {"schema": schema(id=pa.Column(object, nullable=True))},
        "field key: column id is nullable",
    ),
    "no known_at": ({"schema": pa.DataFrameSchema({"id": pa.Column(object)})}, "column known_at is missing"),
    "a known_at that is text": ({"schema": schema(known_at=pa.Column(object))}, "column known_at is object; expected"),
    "a known_at that may be missing": (
        {"schema": schema(known_at=pa.Column(UTC, nullable=True))},
        "column known_at is nullable",
    ),
    "a known_at without a zone": (
        {"schema": schema(known_at=pa.Column("datetime64[us]"))},
        r"column known_at is datetime64\[ns\], without UTC",
    ),
    "a moment in another zone": (
        {"schema": schema(paid_at=pa.Column("datetime64[us, Europe/Berlin]"))},
        "column paid_at is .*without UTC",
    ),
    "an unknown stable column": ({"stable": ("prize",)}, "field stable: unknown column 'prize', did you mean 'price'"),
    "a stable column of text": ({"stable": ("id",)}, "field stable: column id is object; expected a number"),
    "a stable column of a reference table": (
        {"stable": ("price",), "daily": False},
        "field stable: is for sources that arrive by partition",
    ),
    "names that differ by case only": (
        {"schema": schema(Price=pa.Column(float))},
        "columns price and Price differ by case only",
    ),
    "a column that is filled in": ({"schema": schema(price=pa.Column(float, default=0.0))}, "price has a parser or"),
    "a column of dates": ({"schema": schema(day=pa.Column("timedelta64[ns]"))}, "column day is timedelta64"),
    "an infinity of text": ({"infinite": ("id",)}, "field infinite: column id is object; expected a float"),
    "an infinity as text": ({"infinite": "price"}, "field infinite: found the text 'price'"),
    "a range of nothing": (
        {"schema": schema(price=pa.Column(float, [pa.Check.ge(5), pa.Check.le(1)]))},
        "column price has to be at least 5 and at most 1",
    ),
    "ranges apart": (
        {"schema": schema(price=pa.Column(float, [pa.Check.in_range(0, 3), pa.Check.gt(4)]))},
        "column price has to be at least 4 and at most 3",
    ),
    "a delimiter for Parquet": ({"delimiter": ";"}, "field delimiter: a file of parquet has none"),
    "a text for missing texts": (
        {"format": "csv", "missing": "NA"},
        "field missing: found the text 'NA'; expected a tuple",
    ),
    "a text for stable columns": ({"stable": "price"}, "field stable: found the text 'price'; expected a tuple"),
    "a missing text for JSON": ({"format": "json", "missing": ("NA",)}, "field missing: a file of json says itself"),
    "a delimiter of two": ({"format": "csv", "delimiter": "||"}, "field delimiter: found '||'; expected one character"),
    "an unknown format": ({"format": "parket"}, "unknown format 'parket', did you mean 'parquet'"),
    "an unknown encoding": ({"format": "csv", "encoding": "utf9"}, "unknown encoding 'utf9', did you mean 'utf-8'"),
    "an encoding for Arrow": ({"format": "arrow", "encoding": "latin-1"}, "field encoding: a file of arrow has none"),
    "fewer rows than none": ({"min_rows": -1}, "field min_rows: found -1"),
    "days that end before they begin": (
        {"domain": Domain(first_day=date(2014, 1, 1), last_day=date(2013, 1, 1))},
        "field domain: its last day 2013-01-01 lies before its first, 2014-01-01",
    ),
    "a freshness of nothing": ({"fresh_within": timedelta(0)}, "field fresh_within"),
    "a relative landing": (
        {"landing": "landing/orders"},
        "field landing: found 'landing/orders'; expected an absolute",
    ),
    "an unknown scheme": ({"landing": "sftpp://host/x"}, "field landing: unknown scheme 'sftpp', did you mean 'sftp'"),
    "a scheme without its package": ({"landing": "gs://bucket"}, "field landing: gs:// needs a package"),
    "a URL for a variable": ({"table": replace(TABLE, url="sqlite:///shop.db")}, "field table.url: is no name"),
    "a table and a query": ({"table": replace(TABLE, query="SELECT 1")}, "exactly one of table and query"),
    "neither": ({"table": replace(TABLE, table="")}, "exactly one of table and query"),
    "an unknown zone": ({"table": replace(TABLE, zone="Europe/Berin")}, "did you mean 'Europe/Berlin'"),
    "a negative lag": ({"table": replace(TABLE, lag=timedelta(-1))}, "lag or every is negative"),
    "a batch of nothing": ({"table": replace(TABLE, batch_rows=0)}, "field table.batch_rows: found 0"),
    "no cursor": ({"table": replace(TABLE, cursor="")}, "field table.cursor: is empty"),
    "a table as CSV": ({"table": TABLE, "format": "csv"}, "rows of a table land as 'parquet'"),
    "a table of whole days": ({"table": TABLE, "min_rows": 9}, "rows of a table land as they come"),
    "events as Parquet": ({"event_type": "order"}, "events land as 'json'"),
    "events of whole days": ({"event_type": "order", "format": "json", "min_rows": 9}, "events land as they come"),
    "events and a table": ({"event_type": "order", "table": TABLE}, "its rows come from a table already"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_contradiction_is_told_by_source_and_field(case: str) -> None:
    changes, told = WRONG[case]
    with pytest.raises(DeclarationError, match=f"source .*{told}"):
        replace(ORDERS, **changes)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(DeclarationError, match="field key: .*; source 'orders', field stable: "):
        replace(ORDERS, key=("ids",), stable=("id",))


def test_a_password_is_not_shown() -> None:
    with pytest.raises(DeclarationError) as told:
        replace(ORDERS, table=replace(TABLE, url="postgresql://user:secret@host/shop"))
    assert "secret" not in str(told.value)


def test_sources_that_get_along_are_left_alone() -> None:
    check_together(SOURCES)
    check_together([ORDERS, replace(READ, name="read"), replace(SENT, name="sent")])


TOGETHER: dict[str, tuple[list[Source], str]] = {
    "one name": ([ORDERS, replace(ORDERS, key=("price",))], "2 sources are called 'orders'"),
    "one type of event": ([SENT, replace(SENT, name="more")], "event_type 'order' belongs to orders and more"),
    "one place": (
        [replace(ORDERS, landing="s3://shop/a"), replace(ORDERS, name="more", landing="s3://shop/a/")],
        "source 'orders', field landing: s3://shop/a/ lies within the landing of 'more'|within the landing of 'orders'",
    ),
    "a place within another": (
        [replace(ORDERS, landing="s3://shop"), replace(ORDERS, name="more", landing="s3://shop/more")],
        "source 'more', field landing: s3://shop/more/ lies within the landing of 'orders'",
    ),
}


@pytest.mark.parametrize("case", TOGETHER)
def test_sources_that_get_in_each_others_way_are_told(case: str) -> None:
    sources, told = TOGETHER[case]
    with pytest.raises(DeclarationError, match=told):
        check_together(sources)


def test_timestamps_without_a_zone_are_named_with_their_rows() -> None:
    naive = arrow.table({"id": ["a"], "price": [1.0], "known_at": arrow.array([0], arrow.timestamp("us"))})
    sink = io.BytesIO()
    pq.write_table(naive, sink)
    (reason,) = contract_breaches(ORDERS, read(ORDERS, sink.getvalue()))
    assert reason == (
        "column known_at: expected datetime64[us, UTC]; found timestamps without a time zone, such as "
        "1970-01-01 00:00:00 at 1 row(s), first 0: ask the sender to fix them"
    )


def test_sources_that_differ_by_case_only_are_refused() -> None:
    with pytest.raises(DeclarationError, match="sources Orders and orders differ by case only"):
        check_together([ORDERS, replace(ORDERS, name="Orders")])
