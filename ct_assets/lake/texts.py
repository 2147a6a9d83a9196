"""From text and from JSON to the declared types, value by value where something does not fit."""

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ct_assets.lake.columns import (
    TIMESTAMP,
    Bad,
    Fitted,
    beyond_years,
    by_halves,
    fit_arrow,
    fit_integers,
    inexact,
    mask,
    null_where,
)

_ZONED = r"\d:\d\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$"
_SPELLINGS = (
    (r"^(\d{4}-\d\d-\d\d)t", r"\1T"),
    (r"(\d) ?(?:z|Z|UTC|GMT)$", r"\1Z"),
    (r"(:\d\d(?:\.\d+)?) ([+-]\d\d(?::?\d\d)?)$", r"\1\2"),
    # Zeros beyond microseconds say nothing; other digits there do, and have no place.
    (r"(\.\d{6})0+", r"\1"),
)
"""Spellings of timestamps that Arrow does not read, and those that it does."""
_INTEGER = r"^[+-]?[0-9]+$"
_SURELY_WHOLE = r"^[+-]?[0-9]{1,15}\.0*$"
"""What a float holds with every digit."""
_NUMBER = r"^[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|nan|NaN|NAN|inf|Inf|INF|infinity|Infinity)$"
_POWER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]+$"
_FLAGS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class Written(str):
    """A number of a JSON file as it was written, so that it is judged by its own digits and not by a float's."""

    __slots__ = ()


def fit_text(missing: Sequence[str]) -> Callable[[pa.Array, pa.DataType], Fitted]:
    """How the texts of a CSV file become values.

    Args:
        missing: What stands for no value. In quotes it is text, but never a number.
    """

    def fit(text: pa.Array, target: pa.DataType) -> Fitted:
        if pa.types.is_string(target):
            return Fitted(text, np.zeros(len(text), dtype=bool))
        text = pc.utf8_trim_whitespace(text)
        text = null_where(text, mask(pc.is_in(text, pa.array([*missing, ""]))))
        if pa.types.is_timestamp(target):
            return fit_timestamps(text)
        if pa.types.is_boolean(target):
            return _flags(text)
        return _integers(text, target) if pa.types.is_integer(target) else _float_column(text, target)

    return fit


def fit_timestamps(text: pa.Array, zone: str = "") -> Fitted:
    """Timestamps from text in ISO 8601.

    Args:
        text: With a zone, such as `Z`, `+01`, `+0530` or `+05:30`.
        zone: Time zone of those that name none; empty: they do not fit. Of an hour that comes twice when the clocks
            are set back, the later one is meant: nothing is known before it was.
    """
    fitted = parse_timestamps(text, zone)
    # An offset may lead out of the years that Python knows.
    far = beyond_years(fitted.array)
    return Fitted(null_where(fitted.array, far), fitted.bad | far, fitted.kind)


def parse_timestamps(text: pa.Array, zone: str = "") -> Fitted:
    """What `fit_timestamps` gives, with those beyond the years 1 to 9999."""
    try:
        return Fitted(text.cast(TIMESTAMP), np.zeros(len(text), dtype=bool))
    except pa.ArrowInvalid:
        return _by_spelling(text, zone)


def _by_spelling(text: pa.Array, zone: str) -> Fitted:
    for spelling, known in _SPELLINGS:
        text = pc.replace_substring_regex(text, spelling, known)
    zoned = mask(pc.match_substring_regex(text, _ZONED))
    told = by_halves(null_where(text, ~zoned), TIMESTAMP)
    local = by_halves(null_where(text, zoned), pa.timestamp("us"))
    naive = mask(local.array.is_valid())
    wrong = told.bad | local.bad
    if not zone:
        return Fitted(
            told.array, wrong | naive, "timestamps without a time zone" if naive.any() and not wrong.any() else ""
        )
    clock = pc.assume_timezone(local.array, zone, ambiguous="latest", nonexistent="latest")
    return Fitted(pc.coalesce(told.array, clock.cast(TIMESTAMP)), wrong)


def _flags(text: pa.Array) -> Fitted:
    place = pc.index_in(pc.utf8_lower(text), pa.array(list(_FLAGS)))
    return Fitted(pa.array(list(_FLAGS.values())).take(place), mask(text.is_valid()) & mask(place.is_null()))


def _integers(text: pa.Array, target: pa.DataType) -> Fitted:
    """Whole numbers, of which some may be written as `1.0`."""
    plain = mask(pc.match_substring_regex(text, _INTEGER))
    digits = by_halves(pc.utf8_ltrim(null_where(text, ~plain), "+"), target)
    if plain.sum() == len(text) - text.null_count:
        return digits
    numbers = _floats(null_where(text, plain), pa.float64())
    numbers_alone = null_where(numbers.array, mask(pc.is_nan(numbers.array)))
    rounded = _rounded(null_where(numbers_alone, mask(pc.match_substring_regex(text, _SURELY_WHOLE))), text)
    whole = fit_integers(null_where(numbers_alone, rounded), target)
    assert whole is not None
    return Fitted(pc.coalesce(digits.array, whole.array), digits.bad | numbers.bad | rounded | whole.bad)


def _rounded(numbers: pa.Array, text: pa.Array) -> Bad:
    """Which floats are whole although their text is not, such as 1.00000000000000000001."""
    bad = np.zeros(len(numbers), dtype=bool)
    for row in map(int, np.flatnonzero(mask(pc.equal(pc.trunc(numbers), numbers)))):
        try:
            bad[row] = Decimal(text[row].as_py()) != Decimal(numbers[row].as_py())
        except InvalidOperation:  # An exponent of more digits than a Decimal has: it is far from any whole number.
            bad[row] = True
    return bad


def _float_column(text: pa.Array, target: pa.DataType) -> Fitted:
    """Numbers, of which an exponent beyond every double, as in 1e400, is how systems write that there is no value."""
    powers = null_where(text, ~mask(pc.match_substring_regex(text, _POWER)))
    return _floats(null_where(text, mask(pc.is_inf(powers.cast(pa.float64())))), target)


def _floats(text: pa.Array, target: pa.DataType) -> Fitted:
    """Numbers. An infinity is named; one that is larger than any float is none."""
    bad = mask(pc.invert(pc.match_substring_regex(text, _NUMBER)))
    array = null_where(text, bad).cast(target)
    digits = mask(pc.match_substring_regex(text, "[0-9]"))
    bad |= inexact(null_where(array, ~digits), lambda row: Decimal(text[row].as_py()))
    return Fitted(null_where(array, bad), bad)


def fit_values(values: Sequence[Any], target: pa.DataType) -> Fitted:
    """Fit values as Python's JSON reader gives them: of one column, a row each, whatever they are."""
    kinds = {type(value) for value in values} - {type(None)}
    fitted = Fitted(pa.nulls(len(values), target), np.zeros(len(values), dtype=bool))
    for kind in sorted(kinds, key=lambda kind: kind.__name__):
        ours = values if len(kinds) == 1 else [value if type(value) is kind else None for value in values]
        one = _of_one_kind(ours, kind, target)
        fitted = Fitted(pc.coalesce(fitted.array, one.array), fitted.bad | one.bad, one.kind if len(kinds) == 1 else "")
    return fitted


def _of_one_kind(values: Sequence[Any], kind: type, target: pa.DataType) -> Fitted:
    if kind is str:
        wrong = np.array([value is not None and not _is_unicode(value) for value in values], dtype=bool)
        text = pa.array([None if bad else value for value, bad in zip(values, wrong, strict=True)], pa.string())
        time = pa.types.is_timestamp(target)
        fitted = fit_timestamps(pc.utf8_trim_whitespace(text)) if time else fit_arrow(text, target)
        return Fitted(fitted.array, fitted.bad | wrong, fitted.kind)
    if kind is Written:
        return _of_digits(pa.array(values, pa.string()), target)
    if kind in (bool, int, float):
        return fit_arrow(pa.array(values), target)
    return Fitted(
        pa.nulls(len(values), target),
        np.array([value is not None for value in values], dtype=bool),
        "lists" if kind is list else "objects",
    )


def _of_digits(text: pa.Array, target: pa.DataType) -> Fitted:
    """Numbers by their digits."""
    if pa.types.is_floating(target):
        return _float_column(text, target)
    if pa.types.is_integer(target):
        return _integers(text, target)
    if not pa.types.is_boolean(target):
        return Fitted(pa.nulls(len(text), target), mask(text.is_valid()), "numbers")
    whole = _integers(text, pa.int64())
    flags = fit_arrow(whole.array, target)
    return Fitted(flags.array, flags.bad | whole.bad)


def _is_unicode(text: str) -> bool:
    """Whether it has no half of a pair that stands for one character, as `\\ud800` alone is."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
