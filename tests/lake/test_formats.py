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
from ct_assets.lake.split import split_by_day

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
    assert read(replace(ORDERS, format="csv"), payload).table["id"].to_pylist()[0] == "NA"
    named = replace(ORDERS, format="csv", missing=("NA", "9.5"))
    assert read(named, payload.replace(b",,", b",1.5,")).table.slice(0, 1).select(["id", "price"]).to_pylist() == [
        {"id": None, "price": None}
    ]
    (breach,) = read(replace(ORDERS, format="csv"), payload.replace(b"9.5", b"NA")).breaches
    assert breach == "column price: expected float64; found NA at 1 row(s), first 0: ask the sender to fix them"


WRONG: dict[str, tuple[dict[str, str], bytes, str]] = {
    "a CSV file where Parquet was declared": ({}, csv(",", "utf-8"), "not a whole Parquet file"),
    "half an Arrow file": ({"format": "arrow"}, ipc(arrow.ipc.new_file)[:90], "not a whole Arrow file"),
    "an Arrow stream without its end": ({"format": "arrow"}, ipc(arrow.ipc.new_stream)[:-8], "not a whole Arrow file"),
    "a CSV file that ends within quotes": (
        {"format": "csv"},
        b'id,units,price,paid,known_at\n1,1,1.5,true,"2013-01-01T05:00:00Z\n2,1,1.5,true,2013-01-01T05:00:00Z\n',
        "a quotation mark is not closed",
    ),
    "a CSV file with a row too short": ({"format": "csv"}, csv(",", "utf-8") + b"1,2\n", "Row #4: Expected 5 columns"),
    "another delimiter": (
        {"format": "csv"},
        csv(";", "utf-8"),
        "its one column is called 'id;units;price;paid;known_at', and `delimiter` is ','.*looks like ';'",
    ),
    "another encoding": ({"format": "csv"}, csv(",", "latin-1"), "not a CSV file as it was declared.*[Uu][Tt][Ff]"),
    "a column that is there twice": (
        {"format": "csv"},
        csv(",", "utf-8").replace(b"paid", b"id"),
        r"column\(s\) id are there twice",
    ),
    "half a line of JSON": (
        {"format": "json"},
        lines("utf-8")[:-9],
        "the file ends within an object, at line 2.*it was cut off",
    ),
    "a no-break space at the end": (
        {"format": "json"},
        lines("utf-8") + b"\n\xc2\xa0\n",
        r"line 3, character 1 is no JSON .*'\\xa0\\n' \(NO-BREAK SPACE\)",
    ),
    "half an object with a deep field": (
        {"format": "json"},
        lines("utf-8") + b'\n{"more": ' + b"[" * 5000,
        "the file ends within an object, at line 3.*it was cut off",
    ),
    "brackets that do not match": (
        {"format": "json"},
        b'{"more": ' + b"[" * 5000 + b"}" * 5000 + b"}",
        "line 1, character 1 is no JSON",
    ),
    "a deep list": ({"format": "json"}, b"[" * 5000 + b"]" * 5000, "expected a JSON object on each line"),
    "a list of objects": ({"format": "json"}, b'[{"id": "1"}]', "line 1 holds .*expected a JSON object on each line"),
    "a field that is there twice": (
        {"format": "json"},
        b'{"id": "1", "id": "2"}',
        r"line 1 has the field\(s\) id twice",
    ),
    "names that differ by case only": (
        {"format": "csv"},
        csv(",", "utf-8").replace(b"known_at", b"ID,known_at", 1),
        "columns id and ID differ by case only",
    ),
    "a field of another case": ({"format": "json"}, b'{"ID": "1"}', "columns id and ID differ by case only"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_something_else_is_told_in_words(name: str) -> None:
    options, payload, told = WRONG[name]
    with pytest.raises(UnreadableError, match=f"(?s){told}"):
        read(replace(ORDERS, **options), payload)


@pytest.mark.parametrize("rows", [1, 5000])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_bytes_of_another_encoding_count_where_a_column_was_asked_for(rows: int, encoding: str) -> None:
    """Wherever they are: a file of 5,000 rows is longer than what its header is read from."""
    of = replace(ORDERS, format="csv", encoding=encoding)
    good = b"".join(b"%d,1,1.5,true,2013-01-01T05:00:00Z,x\n" % row for row in range(rows))
    header = b"id,units,price,paid,known_at,more\n"
    other = header + good + b"last,1,1.5,true,2013-01-01T05:00:00Z,\x81\n"
    assert read(of, other).table["id"].to_pylist()[-1] == "last"
    assert split_by_day(of, other) == {DAY: other}
    with pytest.raises(UnreadableError, match="[Uu][Tt][Ff]"):
        read(of, header + good + b"l\x81,1,1.5,true,2013-01-01T05:00:00Z,x\n")
    named = (header + good).replace(b"more", b"m\x81")
    assert len(read(of, named).table) == rows


def test_a_field_that_nobody_asked_for_may_be_as_deep_as_it_likes() -> None:
    of = replace(ORDERS, format="json")
    deep = b'{"more": ' + b'[{"a": "]}"}, {"b": ' * 5000 + b"1" + b"}]" * 5000 + b", "
    payload = lines("utf-8").replace(b"{", deep, 1)
    assert read(of, payload).table.equals(read(of, lines("utf-8")).table)
    assert split_by_day(of, payload)[DAY] == payload + b"\n"
    (breach,) = read(of, payload.replace(b'"price": null', b'"price": ' + b"[" * 5000 + b"]" * 5000)).breaches
    assert "found [] at 1 row(s), first 1" in breach or "found lists" in breach


def test_a_missing_column_of_text_is_told_by_the_contract(tmp_path: Path) -> None:
    payload = pd.DataFrame(ROWS).drop(columns="price").to_csv(index=False).encode()
    feed_wave([Delivery("orders", pd.Timestamp(DAY).date(), "orders.csv", payload)], str(tmp_path))
    (batch,) = ingest(Lake(tmp_path), replace(ORDERS, format="csv"), DAY)
    assert batch.status == "quarantined"
    assert "column(s) price missing; found id, units, paid, known_at" in batch.reasons[0]
