"""From the columns of a file to the declared types: every value unchanged, or named with its row.

A file may hold whole numbers as double, text as a dictionary, a timestamp in another unit: what matters is that the
value survives. One that does not (3.7 as an integer, 2**53 + 1 as a float) breaks the contract; it is never rounded.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandera.pandas as pn
import pyarrow as pa
import pyarrow.compute as pc

Bad = npt.NDArray[np.bool_]
"""Which rows hold a value that the declared type does not have."""

TIMESTAMP = pa.timestamp("us", "UTC")
_WIDTHS = (8, 16, 32, 64)
_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "boolean": pa.bool_(),
    **{name: pa.string() for name in ("object", "str", "string", "string[python]", "string[pyarrow]")},
    **{f"{name}{bits}": getattr(pa, f"int{bits}")() for name in ("int", "Int") for bits in _WIDTHS},
    **{f"{name}{bits}": getattr(pa, f"uint{bits}")() for name in ("uint", "UInt") for bits in _WIDTHS},
    **{f"{name}{bits}": getattr(pa, f"float{bits}")() for name in ("float", "Float") for bits in (32, 64)},
}
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST, _LAST = -62_135_596_800, 253_402_300_800
"""Seconds since 1970 of the years 1 to 9999, the ones that Python knows; the last one is beyond them."""
_EXAMPLES = 3


@dataclass(frozen=True)
class Content:
    """A file as it was read.

    Attributes:
        table: The declared columns that it has, in the declared order and types.
        found: Names of all its columns.
        breaches: Values that the declared type does not have, in words, by column; they are null in `table`.
    """

    table: pa.Table
    found: tuple[str, ...]
    breaches: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fitted:
    """One column in its declared type.

    Attributes:
        array: The values; null where one is bad.
        bad: Which rows hold a value that does not fit.
        kind: What these are instead, where it is one kind for all of them.
    """

    array: pa.Array
    bad: Bad
    kind: str = ""


def stored_type(column: pn.Column) -> pa.DataType | None:
    """The Arrow type in which a declared column is stored; None when it cannot be."""
    declared = str(column.dtype)
    if declared.startswith("datetime64[") and declared.endswith(", UTC]"):
        return TIMESTAMP
    return _TYPES.get(declared)


def stored_schema(schema: pn.DataFrameSchema) -> pa.Schema:
    """The Arrow schema in which the rows of a source are stored."""
    return pa.schema([(name, stored_type(column)) for name, column in schema.columns.items()])


def fit(
    schema: pn.DataFrameSchema,
    found: Iterable[str],
    column: Callable[[str], Any],
    how: Callable[[Any, pa.DataType], Fitted],
    infinite: Sequence[str] = (),
) -> Content:
    """Fit the columns of a file to a contract.

    Args:
        schema: What is declared.
        found: Names of the file's columns.
        column: From a name to the file's values.
        how: From values and a type to the values in that type.
        infinite: Columns in which an infinity is a value.
    """
    found = tuple(found)
    arrays: dict[str, pa.Array] = {}
    breaches: list[str] = []
    for name, declared in schema.columns.items():
        if name in found:
            values, kind = column(name), stored_type(declared)
            assert kind is not None
            fitted = _finite(how(values, kind), name in infinite)
            arrays[name] = fitted.array
            if fitted.bad.any():
                breaches.append(_in_words(name, declared, values, fitted))
    return Content(pa.table(arrays), found, tuple(breaches))


def _in_words(name: str, column: pn.Column, values: Any, fitted: Fitted) -> str:
    expected = "text (object)" if stored_type(column) == pa.string() else str(column.dtype)
    rows = [int(row) for row in np.flatnonzero(fitted.bad)]
    examples = ", ".join(shown(values[row]) for row in rows[:_EXAMPLES])
    found = f"{fitted.kind}, such as {examples}" if fitted.kind else examples
    where = ", ".join(map(str, rows[:_EXAMPLES]))
    return (
        f"column {name}: expected {expected}; found {found} at {len(rows)} row(s), first {where}: ask the sender to "
        "fix them"
    )


def shown(value: Any) -> str:
    """A value for a message, also one that Python has no form of, such as a date beyond the year 9999."""
    try:
        text = str(value.as_py() if isinstance(value, pa.Scalar) else value)
    except (ArithmeticError, LookupError, ValueError):
        kind = getattr(value, "type", type(value).__name__)
        ticks = getattr(value, "value", None)
        text = f"{ticks} as {kind}" if isinstance(ticks, int) else f"a value of {kind}"
    return f"{text:.60}".encode(errors="backslashreplace").decode()


def _finite(fitted: Fitted, infinite: bool) -> Fitted:
    """NaN is no value; an infinity is one where it is allowed."""
    if not pa.types.is_floating(fitted.array.type):
        return fitted
    array = null_where(fitted.array, mask(pc.is_nan(fitted.array)))
    endless = mask(pc.is_inf(array)) & (not infinite)
    return Fitted(null_where(array, endless), fitted.bad | endless, fitted.kind)


def fit_arrow(array: pa.Array, target: pa.DataType) -> Fitted:
    """Cast a column of a file that has types of its own; NaN is no value in any of them."""
    array = _plain(array)
    if pa.types.is_floating(array.type):
        array = null_where(array, mask(pc.is_nan(array)))
    if pa.types.is_null(array.type):
        return fits(pa.nulls(len(array), target))
    casts = (
        (pa.types.is_string, _text),
        (pa.types.is_timestamp, _timestamp),
        (pa.types.is_boolean, _flag),
        (pa.types.is_integer, fit_integers),
        (pa.types.is_floating, _float),
    )
    (cast,) = (cast for is_this, cast in casts if is_this(target))
    fitted = cast(array, target)
    return fitted or Fitted(pa.nulls(len(array), target), mask(array.is_valid()), _kind(array.type))


def _plain(array: pa.Array) -> pa.Array:
    """Without dictionaries, runs, extensions and other forms of the same values."""
    kind = array.type
    if isinstance(kind, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(array))
    plainer = None
    if isinstance(kind, pa.BaseExtensionType):
        plainer = kind.storage_type
    elif pa.types.is_dictionary(kind):
        plainer = kind.value_type
    elif pa.types.is_float16(kind):
        plainer = pa.float32()
    elif pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        plainer = pa.decimal128(38, kind.scale)
    return array if plainer is None else _plain(array.cast(plainer))


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "true and false"
    if pa.types.is_timestamp(kind):
        return "timestamps" if kind.tz else "timestamps without a time zone"
    return "text" if _is_text(kind) else f"{kind} values"


def _text(array: pa.Array, target: pa.DataType) -> Fitted | None:
    return fits(array.cast(target)) if _is_text(array.type) else None


def _timestamp(array: pa.Array, target: pa.DataType) -> Fitted | None:
    kind = array.type
    if not pa.types.is_timestamp(kind) or not kind.tz:
        return None
    if kind.unit == "ns":  # It reaches neither of the years, and has digits that microseconds have not.
        bad = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False) % 1000 != 0
    else:
        bad = beyond_years(array)
    return Fitted(null_where(array, bad).cast(target), bad)


def beyond_years(array: pa.Array) -> Bad:
    """Which timestamps lie outside of the years 1 to 9999: nothing could show or compare them in Python."""
    ticks, unit = array.cast(pa.int64()), _TICKS[array.type.unit]
    return mask(pc.or_(pc.less(ticks, _FIRST * unit), pc.greater_equal(ticks, _LAST * unit)))


def _flag(array: pa.Array, _target: pa.DataType) -> Fitted | None:
    if pa.types.is_boolean(array.type):
        return fits(array)
    whole = fit_integers(array, pa.int64())
    if whole is None:
        return None
    bad = mask(pc.and_(pc.not_equal(whole.array, 0), pc.not_equal(whole.array, 1)))
    return Fitted(pc.equal(null_where(whole.array, bad), 1), bad | whole.bad)


def fit_integers(array: pa.Array, target: pa.DataType) -> Fitted | None:
    """Whole numbers of any numeric type; None when it is another one."""
    if not _is_number(array.type):
        return None
    if not pa.types.is_floating(array.type):
        return by_halves(array, target)
    # From here on not every whole number has a float of its own, so this may have been another one.
    limit = 2.0 ** (24 if array.type.bit_width == 32 else 53)
    array = array.cast(pa.float64())
    array = null_where(array, mask(pc.is_nan(array)))
    bad = ~mask(pc.and_(pc.equal(pc.trunc(array), array), pc.less(pc.abs(array), limit))) & mask(array.is_valid())
    fitted = by_halves(null_where(array, bad).cast(pa.int64()), target)
    return Fitted(fitted.array, bad | fitted.bad)


def _float(array: pa.Array, target: pa.DataType) -> Fitted | None:
    if not _is_number(array.type):
        return None
    # Arrow does not round a decimal to the nearest float; its text it does.
    fitted = (array.cast(pa.string()) if pa.types.is_decimal(array.type) else array).cast(target, safe=False)
    if pa.types.is_floating(array.type):
        wide = array.cast(pa.float64())
        bad = mask(pc.not_equal(fitted.cast(pa.float64()), wide)) & ~mask(pc.is_nan(wide))
    else:
        bad = inexact(fitted, lambda row: array[row].as_py())
    return Fitted(null_where(fitted, bad), bad)


def inexact(numbers: pa.Array, exact: Callable[[int], int | Decimal]) -> Bad:
    """Where a float is not the number that it stands for; a small fraction is the nearest one, as ever.

    From 2**53 on a float has no fraction, and lacks some integers. There it has to say the same digits: 1e23 is the
    nearest float, though not exactly 10**23; as 24 digits it would be another number, and is bad.

    Args:
        numbers: Floats.
        exact: From a row to its number.
    """
    bad = np.zeros(len(numbers), dtype=bool)
    limit = 2.0 ** (24 if numbers.type.bit_width == 32 else 53)
    for row in map(int, np.flatnonzero(mask(pc.greater_equal(pc.abs(numbers), limit)))):
        value = numbers[row].as_py()
        bad[row] = not np.isfinite(value) or not _says(value, Decimal(exact(row)))
    return bad


def _says(value: float, exact: Decimal) -> bool:
    """Whether a float is a number when it is written with as many digits."""
    return Context(prec=len(exact.as_tuple().digits)).plus(Decimal(value)) == exact


def fits(array: pa.Array) -> Fitted:
    """A column of which every value fits."""
    return Fitted(array, np.zeros(len(array), dtype=bool))


def by_halves(array: pa.Array, target: pa.DataType) -> Fitted:
    """Cast what can be cast, found by halving: a file with few bad values costs little more than one without."""
    try:
        return fits(array.cast(target))
    except pa.ArrowInvalid:
        if len(array) == 1:
            return Fitted(pa.nulls(1, target), np.ones(1, dtype=bool))
    middle = len(array) // 2
    halves = [by_halves(half, target) for half in (array[:middle], array[middle:])]
    return Fitted(pa.concat_arrays([half.array for half in halves]), np.concatenate([half.bad for half in halves]))


def mask(array: pa.Array) -> Bad:
    """Booleans without nulls, which count as false."""
    return np.array(array.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)


def null_where(array: pa.Array, bad: Bad) -> pa.Array:
    """An array without the values of these rows."""
    return pc.if_else(pa.array(bad), pa.scalar(None, array.type), array) if bad.any() else array


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
