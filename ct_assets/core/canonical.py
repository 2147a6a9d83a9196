"""One JSON form per value, so that a digest of it means the same everywhere.

Keys are sorted, there is no white space, text is ASCII, and JSON has neither NaN nor infinity: both become null.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from functools import singledispatch
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel


@singledispatch
def plain(value: Any, where: str = "value") -> Any:
    """The JSON equivalent of `value`, built of dict, list, str, int, float, bool and None only.

    NumPy scalars and arrays, pandas missing values, pydantic models and dataclasses are unfolded. Timestamps become
    ISO 8601 text in UTC (naive ones are taken as UTC), durations become seconds. NaN and infinity become None.

    Parameters: `where` names the value in an error message.
    Raises TypeError for a value without a JSON form, naming where it is.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)}
    raise TypeError(
        f"{where} is a {type(value).__name__}, which has no JSON form; pass text, numbers, timestamps, lists or dicts"
    )


def canonical_json(value: Any) -> str:
    """The one JSON text of `value` (see `plain`)."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def iso_utc(moment: datetime) -> str:
    """ISO 8601 text in UTC of a moment; a naive one is taken as UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return aware.astimezone(UTC).isoformat()


@plain.register(str)
@plain.register(int)
@plain.register(type(None))
def _as_is(value: Any, _where: str = "value") -> Any:
    return value


@plain.register(type(pd.NaT))
@plain.register(type(pd.NA))
def _missing(_value: Any, _where: str = "value") -> None:
    return None


@plain.register(float)
@plain.register(np.floating)
def _number(value: Any, _where: str = "value") -> float | None:
    return float(value) if math.isfinite(value) else None


@plain.register(np.generic)
def _scalar(value: Any, where: str = "value") -> Any:
    return plain(value.item(), where)


@plain.register(np.datetime64)
def _numpy_moment(value: Any, where: str = "value") -> Any:
    return plain(pd.Timestamp(value), where)


@plain.register(np.timedelta64)
def _numpy_duration(value: Any, where: str = "value") -> Any:
    return plain(pd.Timedelta(value), where)


@plain.register(datetime)
def _moment(value: Any, _where: str = "value") -> str:
    return iso_utc(value)


@plain.register(date)
def _day(value: Any, _where: str = "value") -> str:
    return str(value.isoformat())


@plain.register(timedelta)
def _duration(value: Any, _where: str = "value") -> float:
    return float(value.total_seconds())


@plain.register(Enum)
def _enum(value: Any, where: str = "value") -> Any:
    return plain(value.value, where)


@plain.register(PurePath)
def _path(value: Any, _where: str = "value") -> str:
    return str(value.as_posix())


@plain.register(Mapping)
def _mapping(value: Any, where: str = "value") -> dict[str, Any]:
    return {_key(key, where): plain(item, f"{where}.{key}") for key, item in value.items()}


@plain.register(BaseModel)
def _model(value: Any, where: str = "value") -> dict[str, Any]:
    return {name: plain(getattr(value, name), f"{where}.{name}") for name in type(value).model_fields}


@plain.register(list)
@plain.register(tuple)
@plain.register(np.ndarray)
@plain.register(pd.Series)
@plain.register(pd.Index)
def _sequence(value: Any, where: str = "value") -> list[Any]:
    return [plain(item, f"{where}[{position}]") for position, item in enumerate(value)]


@plain.register(set)
@plain.register(frozenset)
def _set(value: Any, where: str = "value") -> list[Any]:
    return sorted((plain(item, where) for item in value), key=canonical_json)


def _key(key: Any, where: str) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return str(key)
    if isinstance(key, date):
        return str(plain(key, where))
    raise TypeError(f"{where} has a key {key!r} of type {type(key).__name__}; keys must be text, integers or dates")
