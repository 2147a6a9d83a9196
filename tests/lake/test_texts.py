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


FAR = ["1.7976931348623157e308", "1e23", "9.9999999999999992e+22", "1.235e20", "9007199254740994.0", "1e-400", "0.1"]


def test_a_number_far_out_is_the_nearest_float_that_says_its_digits() -> None:
    expected = [float(written) for written in FAR]
    assert from_csv(pn.Column(float), *FAR) == from_json(pn.Column(float), *FAR) == expected


CHANGED = [
    (float, "9007199254740993.0"),
    (float, "9.007199254740993e15"),
    (float, "9007199254740992.5"),
    (float, "100000000000000000000000"),
    ("float32", "16777217.0"),
    ("float32", "1e39"),
    (float, "9" * 1200),
    (int, "1.00000000000000000001"),
    (int, "4503599627370496.1"),
    (int, "1e-400"),
    (int, "1e-99999999999999999999"),
    (int, "1e400"),
    (bool, "0.99999999999999999999"),
    (bool, "1.00000000000000000001"),
    (bool, "9" * 1200),
]


@pytest.mark.parametrize("infinite", [(), ("x",)])
@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize(("declared", "written"), CHANGED)
def test_a_number_that_would_change_is_named_however_it_is_written(
    declared: type | str, written: str, form: str, infinite: tuple[str, ...]
) -> None:
    floats = declared in (float, "float32")
    of = source(pn.Column(declared, nullable=True), format=form, infinite=infinite if floats else ())
    line = f'{{"id": "a", "x": {written}, "known_at": "{NOON}"}}'
    content = read(of, (f"id,x,known_at\na,{written},{NOON}\n" if form == "csv" else line).encode())
    (breach,) = content.breaches
    assert f"found {written:.60} at 1 row(s), first 0" in breach


@pytest.mark.parametrize("infinite", [(), ("x",)])
def test_an_exponent_beyond_every_double_is_no_value(infinite: tuple[str, ...]) -> None:
    number = pn.Column(float, nullable=True)
    for how in (from_csv, from_json):
        assert how(number, "1e400", "-1e999", "1.5", infinite=infinite) == [None, None, 1.5]


def test_an_infinity_of_text_is_one_that_is_named() -> None:
    number = pn.Column(float)
    assert from_csv(number, "inf", "-Infinity", infinite=("x",)) == [float("inf"), float("-inf")]
    assert from_json(number, "Infinity", "-Infinity", infinite=("x",)) == [float("inf"), float("-inf")]


@pytest.mark.parametrize("declared", [object, UTC, int, "Int64", float, bool])
def test_nan_of_json_is_missing_in_every_column(declared: type | str) -> None:
    assert from_json(pn.Column(declared, nullable=True), "NaN", "null") == [None, None]


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
        (UTC, "0001-01-01T00:00:00+05:00"),
        (UTC, "0000-01-01T00:00:00Z"),
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


def test_the_ends_of_all_time_are_timestamps() -> None:
    first, last = from_csv(pn.Column(UTC), "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z")
    assert (str(first), str(last)) == ("0001-01-01 00:00:00+00:00", "9999-12-31 23:59:59.999999+00:00")


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
        (object, "1.5", "found numbers, such as 1.5"),
        (UTC, '"0001-01-01T00:00:00+05:00"', "0001-01-01T00:00:00+05:00"),
        (UTC, '"0000-01-01T00:00:00Z"', "0000-01-01T00:00:00Z"),
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
