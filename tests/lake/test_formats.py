"""The same rows from every format, and what is not one told in words."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pandera.pandas as pa
import pyarrow as arrow
import pyarrow.parquet as pq
import pytest

from ct_assets.feeds import Delivery, feed_wave
from ct_assets.lake.contract import Source
from ct_assets.lake.formats import UnreadableError, read
from ct_assets.lake.ingest import ingest
from ct_assets.lake.lake import Lake, Window

DAY = "2013-01-01"
ORDERS = Source(
    name="orders",
    schema=pa.DataFrameSchema(
        {
            "id": pa.Column(object),
            "units": pa.Column(int, pa.Check.ge(1)),
            "price": pa.Column(float, nullable=True),
            "paid": pa.Column(bool),
            "known_at": pa.Column("datetime64[us, UTC]"),
        }
    ),
    key=("id",),
    description="Orders",
    owner="team:test",
)
ROWS = [
    {"id": "007", "units": 3, "price": 9.5, "paid": True, "known_at": "2013-01-01T05:00:00Z"},
    {"id": 'Käse; "fein"', "units": 1, "price": None, "paid": False, "known_at": "2013-01-01T01:30:00-05:00"},
]
MOMENTS = [pd.Timestamp("2013-01-01T05:00:00Z"), pd.Timestamp("2013-01-01T06:30:00Z")]


def table() -> arrow.Table:
    moments = arrow.array(MOMENTS, arrow.timestamp("us", "UTC"))
    columns = {name: [row[name] for row in ROWS] for name in ("id", "units", "price", "paid")}
    return arrow.table({**columns, "known_at": moments})


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(table(), sink)
    return sink.getvalue()


def ipc(kind: Callable[..., arrow.ipc.RecordBatchFileWriter | arrow.ipc.RecordBatchStreamWriter]) -> bytes:
    sink = io.BytesIO()
    with kind(sink, table().schema) as writer:
        writer.write_table(table())
    return sink.getvalue()


def csv(delimiter: str, encoding: str) -> bytes:
    return pd.DataFrame(ROWS).to_csv(index=False, sep=delimiter).encode(encoding)


def lines(encoding: str) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode(encoding)


FORMATS: dict[str, tuple[dict[str, str], Callable[[], bytes]]] = {
    "parquet": ({}, parquet),
    "arrow file": ({"format": "arrow"}, lambda: ipc(arrow.ipc.new_file)),
    "arrow stream": ({"format": "arrow"}, lambda: ipc(arrow.ipc.new_stream)),
    "csv": ({"format": "csv"}, lambda: csv(",", "utf-8")),
    "csv of Excel": (
        {"format": "csv", "delimiter": ";", "encoding": "latin-1"},
        lambda: csv(";", "latin-1"),
    ),
    "json lines": ({"format": "json"}, lambda: lines("utf-8")),
    "json in UTF-16": ({"format": "json", "encoding": "utf-16"}, lambda: lines("utf-16")),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    options, written = FORMATS[name]
    lake, source = Lake(tmp_path), replace(ORDERS, **options)
    feed_wave([Delivery("orders", pd.Timestamp(DAY).date(), "orders.file", written())], str(tmp_path))
    (batch,) = ingest(lake, source, DAY)
    assert (batch.status, batch.reasons) == ("accepted", ())
    stored = lake.query("SELECT * FROM orders ORDER BY known_at", {"orders": Window()}, MOMENTS[1])
    assert stored["id"].to_pylist() == ["007", 'Käse; "fein"']
    assert stored["units"].to_pylist() == [3, 1]
    assert stored["price"].to_pylist() == [9.5, None]
    assert stored["paid"].to_pylist() == [True, False]
    assert stored["known_at"].to_pylist() == [moment.to_pydatetime() for moment in MOMENTS]


def test_only_the_text_that_the_source_names_is_missing() -> None:
    payload = csv(",", "utf-8").replace(b"007", b"NA")
    assert read(replace(ORDERS, format="csv"), payload)["id"].to_pylist()[0] == "NA"
    named = replace(ORDERS, format="csv", missing=("NA", "9.5"))
    assert read(named, payload.replace(b",,", b",1.5,")).slice(0, 1).select(["id", "price"]).to_pylist() == [
        {"id": None, "price": None}
    ]
    with pytest.raises(
        UnreadableError, match=r"(?s)'NA'.*stands for a missing value, name it in the source's `missing`"
    ):
        read(replace(ORDERS, format="csv"), payload.replace(b"9.5", b"NA"))


WRONG: dict[str, tuple[dict[str, str], bytes, str]] = {
    "a CSV file where Parquet was declared": ({}, csv(",", "utf-8"), "not a whole Parquet file"),
    "half an Arrow file": ({"format": "arrow"}, ipc(arrow.ipc.new_file)[:90], "not a whole Arrow file of 90 bytes"),
    "text for a number": (
        {"format": "csv"},
        csv(",", "utf-8").replace(b"9.5", b"dear"),
        "not a whole CSV file.*dear",
    ),
    "another delimiter": (
        {"format": "csv"},
        csv(";", "utf-8"),
        "its one column is called 'id;units;price;paid;known_at', and `delimiter` is ','.*looks like ';'",
    ),
    "another encoding": ({"format": "csv"}, csv(",", "latin-1"), "not a whole CSV file.*[Uu][Tt][Ff]"),
    "a column that is there twice": (
        {"format": "csv"},
        csv(",", "utf-8").replace(b"paid", b"id"),
        r"column\(s\) id are there twice",
    ),
    "half a line of JSON": ({"format": "json"}, lines("utf-8")[:-9], "not a whole JSON lines file"),
    "a moment without a zone": (
        {"format": "csv"},
        csv(",", "utf-8").replace(b"05:00:00Z", b"05:00:00"),
        "column known_at: 1 moment\\(s\\) without a time zone, such as '2013-01-01T05:00:00'",
    ),
    "a moment that is none": (
        {"format": "json"},
        lines("utf-8").replace(b"2013-01-01T05", b"2013-13-01T05"),
        "column known_at: not a moment in ISO 8601",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_something_else_is_told_in_words(name: str) -> None:
    options, payload, told = WRONG[name]
    with pytest.raises(UnreadableError, match=f"(?s){told}"):
        read(replace(ORDERS, **options), payload)


def test_a_missing_column_of_text_is_told_by_the_contract(tmp_path: Path) -> None:
    payload = pd.DataFrame(ROWS).drop(columns="price").to_csv(index=False).encode()
    feed_wave([Delivery("orders", pd.Timestamp(DAY).date(), "orders.csv", payload)], str(tmp_path))
    (batch,) = ingest(Lake(tmp_path), replace(ORDERS, format="csv"), DAY)
    assert batch.status == "quarantined"
    assert "column(s) price missing; found id, units, paid, known_at" in batch.reasons[0]
