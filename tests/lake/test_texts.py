"""What CSV and JSON say, read as it was meant."""

import json
from typing import Any

import pandera.pandas as pn
import pytest

from ct_assets.lake.contract import Source, contract_breaches
from ct_assets.lake.formats import moments, read

NOON = "2024-03-01T12:00:00Z"
UTC = "datetime64[us, UTC]"


def source(x: pn.Column, **options: Any) -> Source:
    schema = pn.DataFrameSchema({"id": pn.Column(object), "x": x, "known_at": pn.Column(UTC)})
    return Source("notes", schema, ("id",), "Notes", "team:test", **options)


def from_csv(x: pn.Column, *written: str, **options: Any) -> list[Any]:
    of = source(x, format="csv", **options)
    rows = "".join(f"n{row},{value},{NOON}\r\n" for row, value in enumerate(written))
    content = read(of, f"id,x,known_at\r\n{rows}".encode())
    assert contract_breaches(of, content) == []
    return content.table["x"].to_pylist()


def from_json(x: pn.Column, *values: str, **options: Any) -> list[Any]:
    of = source(x, format="json", **options)
    lines = [f'{{"id": "n{row}", "x": {value}, "known_at": "{NOON}"}}' for row, value in enumerate(values)]
    content = read(of, "\n".join(lines).encode())
    assert contract_breaches(of, content) == []
    return content.table["x"].to_pylist()


def test_text_in_quotes_is_text_and_without_them_may_be_missing() -> None:
    text = pn.Column(object, nullable=True)
    assert from_csv(text, '"NA"', "NA", '""', "", "DE", missing=("", "NA")) == ["NA", None, "", None, "DE"]
    assert from_csv(text, '"a\rb"', '"a\nb"', '"a,b"', '"a""b"', '5" pipe', "a\u2028b") == [
        "a\rb",
        "a\nb",
        "a,b",
        'a"b',
        '5" pipe',
        "a\u2028b",
    ]


def test_numbers_of_csv_are_exact() -> None:
    whole = pn.Column(int, nullable=True)
    assert from_csv(whole, "9007199254740993", "1.0", " 7 ", "+3", '"4"', '""', "") == [
        2**53 + 1,
        1,
        7,
        3,
        4,
        None,
        None,
    ]
    number = pn.Column(float, nullable=True)
    assert from_csv(number, "0.1", "1e3", "NaN", "9007199254740992") == [0.1, 1000.0, None, 2.0**53]
    assert from_csv(pn.Column(bool, nullable=True), "true", "F", "1", "") == [True, False, True, None]


def test_a_number_larger_than_any_is_none() -> None:
    assert from_csv(pn.Column(float, nullable=True), "1e400", "-1e999", "1e308") == [None, None, 1e308]


@pytest.mark.parametrize(
    ("declared", "written"),
    [
        (int, "1.5"),
        (int, "0x10"),
        (int, "9007199254740993.0"),
        (int, "9223372036854775808"),
        (float, "9007199254740993"),
        (float, "1,5"),
        (float, "inf"),
        (float, "-Infinity"),
        (bool, "yes"),
        (UTC, "2024-03-01T12:00:00"),
        (UTC, "2024-03-01T12:00:00.123456789Z"),
        (UTC, "9999-12-31T23:59:59-05:00"),
        (UTC, "infinity"),
    ],
)
def test_text_that_says_something_else_is_named(declared: type | str, written: str) -> None:
    of = source(pn.Column(declared, nullable=True), format="csv")
    (breach,) = read(of, f'id,x,known_at\na,,{NOON}\nb,"{written}",{NOON}\n'.encode()).breaches
    assert written in breach
    assert "at 1 row(s), first 1" in breach


AT_NOON = [
    NOON,
    "2024-03-01 12:00:00+00",
    "2024-03-01 13:00:00.000+01",
    "2024-03-01T17:30:00+0530",
    "2024-03-01T17:30:00+05:30",
    "2024-03-01t12:00z",
    "2024-03-01 12:00:00 UTC",
    "2024-03-01 07:00:00 -0500",
    "2024-03-01T12:00:00.000000000Z",
]


@pytest.mark.parametrize("written", AT_NOON)
def test_an_offset_has_many_spellings(written: str) -> None:
    assert [str(t) for t in from_csv(pn.Column(UTC), written)] == ["2024-03-01 12:00:00+00:00"]
    assert [str(t) for t in from_json(pn.Column(UTC), json.dumps(written))] == ["2024-03-01 12:00:00+00:00"]
    assert [str(t) for t in moments("t", [written], "Europe/Berlin")] == ["2024-03-01 12:00:00+00:00"]


def test_the_end_of_all_time_is_a_timestamp() -> None:
    assert str(from_csv(pn.Column(UTC), "9999-12-31T23:59:59.999999Z")[0]) == "9999-12-31 23:59:59.999999+00:00"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_and_ends_of_lines_are_no_text(mark: str, end: str) -> None:
    of = source(pn.Column(int), format="csv")
    lines = ['"id","x","known_at"', f'"a","1","{NOON}"', "", f"b,2,{NOON}"]
    content = read(of, (mark + end.join(lines)).encode())
    assert content.table.select(["id", "x"]).to_pylist() == [{"id": "a", "x": 1}, {"id": "b", "x": 2}]


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_record_may_be_longer_than_any_buffer(kind: str) -> None:
    long = "x" * 5_000_000
    read_back = from_csv(pn.Column(object), f'"{long}"') if kind == "csv" else from_json(pn.Column(object), f'"{long}"')
    assert read_back == [long]


def test_fields_that_nobody_asked_for_may_hold_anything() -> None:
    of = source(pn.Column(int), format="json")
    extras = ['"more": 1', '"more": "x"', '"more": {"x": [1, {}]}, "more": 2', f'"more": {"9" * 5000}', '"more": NaN']
    lines = [f'{{"id": "n{n}", {extra}, "x": {n}, "known_at": "{NOON}"}}' for n, extra in enumerate(extras)]
    content = read(of, "\n".join(lines).encode())
    assert contract_breaches(of, content) == []
    assert content.table["x"].to_pylist() == [0, 1, 2, 3, 4]
    csv = read(source(pn.Column(int), format="csv"), f"x,more,id,more,known_at\n1,a,b,c,{NOON}\n".encode())
    assert (csv.breaches, csv.table["x"].to_pylist()) == ((), [1])


def test_numbers_of_json_are_exact() -> None:
    assert from_json(pn.Column(int, nullable=True), "9007199254740993", "2.0", "null") == [2**53 + 1, 2, None]
    assert from_json(pn.Column(float, nullable=True), "1", "2.5", "NaN", "null") == [1.0, 2.5, None, None]


@pytest.mark.parametrize(
    ("declared", "value", "shown"),
    [
        (int, "1.5", "1.5"),
        (int, "true", "True"),
        (int, '"1"', "1"),
        (int, str(2**63), str(2**63)),
        (int, str(10**90), str(10**60)[:50]),
        (float, "1e400", "inf"),
        (float, "9007199254740993", "9007199254740993"),
        (object, "1", "1"),
        (object, '"\\ud800"', "\\ud800"),
        (object, "[1]", "[1]"),
        (UTC, "1709294400", "1709294400"),
    ],
)
def test_a_value_of_json_that_is_another_is_named(declared: type | str, value: str, shown: str) -> None:
    of = source(pn.Column(declared, nullable=True), format="json")
    good = f'{{"id": "a", "x": null, "known_at": "{NOON}"}}'
    (breach,) = read(of, f'{good}\n{{"id": "b", "x": {value}, "known_at": "{NOON}"}}'.encode()).breaches
    assert shown in breach
    assert "at 1 row(s), first 1" in breach
