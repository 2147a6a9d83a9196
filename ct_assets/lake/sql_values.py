"""Values of a database: in types that lose nothing of them, and in an order."""

import math
import uuid
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import sqlalchemy as sa


def exact(column: "sa.ColumnElement[Any]", dialect: str) -> "sa.ColumnElement[Any]":
    """A column whose numbers come as they are kept.

    SQLite keeps decimals as integers and floats, which SQLAlchemy passes through a float of ten places.
    """
    import sqlalchemy as sa

    if dialect != "sqlite" or not isinstance(column.type, sa.Numeric) or isinstance(column.type, sa.Float):
        return column

    class AsKept(sa.types.UserDefinedType[Any]):
        cache_ok = True

        def bind_processor(self, _dialect: sa.Dialect) -> Any:
            return lambda value: _kept(value) if isinstance(value, Decimal) else value

        def result_processor(self, _dialect: sa.Dialect, _coltype: Any) -> Any:
            return lambda value: decimal_of(value) if isinstance(value, (int, float)) else value

    return sa.type_coerce(column, AsKept()).label(column.key)


def _kept(value: Decimal) -> int | float:
    whole = int(value)
    return whole if whole == value else float(value)


def decimal_of(value: float | Decimal) -> Decimal:
    """A number by the digits that say it."""
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def array(values: Sequence[Any], declared: pa.DataType) -> pa.Array:
    """Values in a type that holds them all, or as text where there is none."""
    plain = [_plain(value, declared) for value in values]
    try:
        return pa.array(plain)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        pass
    if all(value is None or order_of(value) == "numbers" for value in plain):
        try:
            return pa.array([None if value is None else decimal_of(value) for value in plain])
        except (pa.ArrowInvalid, ArithmeticError):  # More digits than a decimal has.
            pass
    return pa.array([None if value is None else str(value) for value in plain])


def _plain(value: Any, declared: pa.DataType) -> Any:
    """Types of databases that Arrow has no like of; what a contract calls text in the form of text."""
    if isinstance(value, Decimal) and value.is_nan():
        return None
    is_text = isinstance(value, uuid.UUID) or (pa.types.is_string(declared) and isinstance(value, (Decimal, date)))
    return str(value) if is_text else value


def order_of(value: Any) -> str:
    """The kind of values among which a value has a place; of another kind they cannot be compared with it."""
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return "NaN" if math.isnan(value) else "numbers"
    if isinstance(value, datetime):
        return "timestamps" if value.tzinfo else "timestamps without a time zone"
    return {str: "text", date: "dates"}.get(type(value), type(value).__name__)


def disorder(values: Iterable[Any]) -> list[str]:
    """The kinds of a cursor's values, unless they have an order."""
    kinds = sorted({order_of(value) for value in values if value is not None})
    ordered = len(kinds) <= 1 and set(kinds) <= {
        "numbers",
        "text",
        "dates",
        "timestamps",
        "timestamps without a time zone",
    }
    return [] if ordered else kinds
