"""A value reaches the lake as it was sent, whatever type its file gave it; one that cannot is named with its row."""

import io
from decimal import Decimal
from typing import Any

import pandera.pandas as pn
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.lake.columns import TIMESTAMP, Content, fit_arrow
from ct_assets.lake.contract import Source, contract_breaches
from ct_assets.lake.formats import read

UTC = "datetime64[us, UTC]"
BEYOND = 2**53 + 1
"""The first whole number that no double is."""


def source(column: pn.Column, **options: Any) -> Source:
    schema = pn.DataFrameSchema({"id": pn.Column(object), "x": column, "known_at": pn.Column(UTC)})
    return Source("parcels", schema, ("id",), "Parcels", "team:test", **options)


def sent(of: Source, values: pa.Array) -> Content:
    ids = pa.array([f"p{row}" for row in range(len(values))])
    known_at = pa.array([0] * len(values), pa.timestamp("us", "UTC"))
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": ids, "x": values, "known_at": known_at}), sink)
    return read(of, sink.getvalue())


WHOLE = [1, None, 40]
SAME: dict[str, tuple[type | str, pa.Array, list[Any]]] = {
    "int32": (int, pa.array(WHOLE, pa.int32()), WHOLE),
    "unsigned": (int, pa.array(WHOLE, pa.uint64()), WHOLE),
    "double": (int, pa.array([1.0, None, 40.0]), WHOLE),
    "NaN for nothing": (int, pa.array([1.0, float("nan"), 40.0]), WHOLE),
    "decimal": (int, pa.array([Decimal("1.00"), None, Decimal("40.00")], pa.decimal128(12, 2)), WHOLE),
    "dictionary of doubles": (int, pa.array([1.0, None, 40.0]).dictionary_encode(), WHOLE),
    "nothing at all": (int, pa.nulls(3), [None] * 3),
    "a large one": (int, pa.array([BEYOND, None]), [BEYOND, None]),
    "a large decimal": (int, pa.array([Decimal(BEYOND)], pa.decimal128(20, 0)), [BEYOND]),
    "int for float": (float, pa.array(WHOLE), [1.0, None, 40.0]),
    "decimal for float": (float, pa.array([Decimal("9.95")], pa.decimal128(9, 2)), [9.95]),
    "float32 for float": (float, pa.array([0.5, float("nan")], pa.float32()), [0.5, None]),
    "0 and 1 for bool": (bool, pa.array([0, 1, None]), [False, True, None]),
    "large text": (object, pa.array(["a", None], pa.large_string()), ["a", None]),
    "text views": (object, pa.array(["a", None], pa.string_view()), ["a", None]),
    "NaN for no text": (object, pa.array([float("nan"), None]), [None, None]),
    "NaN for no time": (UTC, pa.array([float("nan"), None], pa.float32()), [None, None]),
    "categories": (object, pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
}


@pytest.mark.parametrize("case", SAME)
def test_a_file_may_hold_the_same_value_in_another_type(case: str) -> None:
    declared, values, expected = SAME[case]
    of = source(pn.Column(declared, nullable=True))
    content = sent(of, values)
    assert contract_breaches(of, content) == []
    assert content.table["x"].to_pylist() == expected
    stored = {float: pa.float64(), int: pa.int64(), bool: pa.bool_(), object: pa.string(), UTC: TIMESTAMP}
    assert content.table["x"].type == stored[declared]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "-03:00"])
def test_a_timestamp_is_the_same_in_every_unit_and_zone(unit: str, zone: str) -> None:
    second = 1_709_269_200
    values = pa.array([second], pa.timestamp("s", zone)).cast(pa.timestamp(unit, zone))
    content = sent(source(pn.Column(UTC)), values)
    assert content.breaches == ()
    assert content.table["x"].cast(pa.int64()).to_pylist() == [second * 10**6]


def test_a_date_that_stands_for_never_is_kept() -> None:
    never = pa.array([253_402_300_799], pa.timestamp("s", "UTC"))
    of = source(pn.Column(UTC, pn.Check(lambda t: t.dt.year > 2000)))
    content = sent(of, never)
    assert contract_breaches(of, content) == []
    assert content.table["x"].to_pylist()[0].isoformat() == "9999-12-31T23:59:59+00:00"


CHANGED: dict[str, tuple[type | str, pa.Array, str]] = {
    "a fraction for int": (int, pa.array([1.0, 3.7, 5.0, 7.5]), "int64; found 3.7, 7.5 at 2 row(s), first 1, 3"),
    "too large for int": (int, pa.array([2**63 + 5], pa.uint64()), "int64; found 9223372036854775813 at 1 row"),
    "no number of its own": (int, pa.array([float(BEYOND)]), "int64; found 9007199254740992.0 at 1 row"),
    "too large for float": (float, pa.array([BEYOND]), "float64; found 9007199254740993 at 1 row"),
    "a fraction for bool": (bool, pa.array([7.9]), "bool; found 7.9 at 1 row"),
    "2 for bool": (bool, pa.array([0, 2]), "bool; found 2 at 1 row(s), first 1"),
    "bool for int": (int, pa.array([None, True]), "int64; found true and false, such as True at 1 row(s), first 1"),
    "text for float": (float, pa.array(["1.5"]), "float64; found text, such as 1.5"),
    "a double for float32": ("float32", pa.array([0.1]), "float32; found 0.1 at 1 row"),
    "too large for int8": ("int8", pa.array([7, 300]), "int8; found 300 at 1 row(s), first 1"),
    "a date for a timestamp": (UTC, pa.array([1], pa.date32()), "found date32[day] values, such as 1970-01-02"),
    "nanoseconds": (UTC, pa.array([1001], pa.timestamp("ns", "UTC")), f"{UTC}; found 1970-01-01"),
    "nearly true": (bool, pa.array([Decimal("1.00000000000000000001")], pa.decimal128(30, 20)), "bool; found 1.0000"),
    "NaN is not the culprit": (
        object,
        pa.array([float("nan"), 1.5]),
        "double values, such as 1.5 at 1 row(s), first 1",
    ),
    "an infinity": (float, pa.array([1.0, float("-inf")]), "float64; found -inf at 1 row(s), first 1"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_value_that_would_change_is_named_with_its_rows(case: str) -> None:
    declared, values, expected = CHANGED[case]
    of = source(pn.Column(declared, nullable=True, coerce=True))
    (breach,) = contract_breaches(of, sent(of, values))
    assert breach.startswith("column x: expected ")
    assert expected in breach


FAR: dict[str, pa.Array] = {
    "a far timestamp": pa.array([10**18], pa.timestamp("us", "UTC")),
    "an early one": pa.array([-(10**17)], pa.timestamp("us", "UTC")),
    "one without a zone": pa.array([10**18], pa.timestamp("us")),
    "nearly the last second": pa.array([2**62], pa.timestamp("s", "UTC")),
    "nearly the last second without a zone": pa.array([2**62], pa.timestamp("s")),
    "a far date": pa.array([2**31 - 1], pa.int32()).view(pa.date32()),
    "a far date in milliseconds": pa.array([86_400_000 * 10**7], pa.int64()).view(pa.date64()),
    "a long time": pa.array([2**62], pa.duration("s")),
    "far timestamps in a list": pa.array([[10**18]], pa.list_(pa.timestamp("us", "UTC"))),
    "far timestamps in an object": pa.array([{"t": 10**18}], pa.struct([("t", pa.timestamp("us", "UTC"))])),
    "a far timestamp in a dictionary": pa.array([10**18], pa.timestamp("us", "UTC")).dictionary_encode(),
    "a zone that nobody knows": pa.array([10**18], pa.timestamp("us", "Foo/Bar")),
}


@pytest.mark.parametrize("declared", [object, UTC, int, float, bool])
@pytest.mark.parametrize("case", FAR)
def test_a_value_that_python_has_no_form_of_is_named_too(case: str, declared: type | str) -> None:
    of = source(pn.Column(declared, nullable=True), format="arrow")
    table = sent(source(pn.Column(int)), pa.array([1])).table.set_column(1, "x", FAR[case])
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    (breach,) = read(of, sink.getvalue()).breaches
    assert breach.startswith("column x: expected ")
    assert "at 1 row(s), first 0" in breach


def test_a_far_value_is_shown_as_it_is_held() -> None:
    (breach,) = sent(source(pn.Column(UTC)), pa.array([10**18], TIMESTAMP)).breaches
    assert f"found {10**18} as timestamp[us, tz=UTC] at 1 row(s)" in breach


def test_nothing_is_no_value_where_one_is_needed() -> None:
    of = source(pn.Column(float))
    (breach,) = contract_breaches(of, sent(of, pa.array([1.0, float("nan")])))
    assert breach.startswith("column x: expected not_nullable")


def test_an_infinity_is_a_value_where_the_contract_says_so() -> None:
    of = source(pn.Column(float), infinite=("x",))
    content = sent(of, pa.array([float("inf"), 1.0]))
    assert contract_breaches(of, content) == []
    assert content.table["x"].to_pylist() == [float("inf"), 1.0]


def test_a_check_sees_whole_numbers_beside_gaps() -> None:
    of = source(pn.Column(int, pn.Check.isin([BEYOND]), nullable=True))
    assert contract_breaches(of, sent(of, pa.array([BEYOND, None]))) == []
    (breach,) = contract_breaches(of, sent(of, pa.array([BEYOND - 1, None])))
    assert "found 9007199254740992 at 1 row(s), first 0" in breach


def test_rows_that_pandas_keeps_in_its_index_are_columns_like_others() -> None:
    of = source(pn.Column(int))
    frame = sent(of, pa.array([1, 2])).table.to_pandas().set_index("id")
    sink = io.BytesIO()
    frame.to_parquet(sink)
    assert read(of, sink.getvalue()).table["id"].to_pylist() == ["p0", "p1"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-(2**70), 2**70))), st.sampled_from(["decimal", "double", "text"]))
def test_an_integer_arrives_exactly_or_is_named(values: list[int | None], form: str) -> None:
    """The oracle is Python's own arithmetic."""
    if form == "decimal":
        array = pa.array([None if v is None else Decimal(v) for v in values], pa.decimal128(38, 0))
        fits = [v is None or -(2**63) <= v < 2**63 for v in values]
    elif form == "double":
        array = pa.array([None if v is None else float(v) for v in values], pa.float64())
        fits = [v is None or abs(float(v)) < 2**53 for v in values]
    else:
        array, fits = (
            pa.array([None if v is None else str(v) for v in values], pa.string()),
            [v is None for v in values],
        )
    fitted = fit_arrow(array, pa.int64())
    assert fitted.bad.tolist() == [not fit for fit in fits]
    assert fitted.array.to_pylist() == [v if fit else None for v, fit in zip(values, fits, strict=True)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.decimals(-1000, 1000, places=4), max_size=20))
def test_a_decimal_becomes_the_nearest_float(values: list[Decimal]) -> None:
    """Arrow's own cast does not always give it."""
    fitted = fit_arrow(pa.array(values, pa.decimal128(12, 4)), pa.float64())
    assert fitted.array.to_pylist() == [float(value) for value in values]
    assert not pc.any(pa.array(fitted.bad)).as_py()
