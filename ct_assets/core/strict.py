"""What people write: frozen once read, and every unknown name told with the nearest known one."""

import re
from collections.abc import Iterable
from datetime import timedelta
from difflib import get_close_matches
from typing import Annotated, Any

from pandas import Timedelta
from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

_NUMBER = re.compile(r"\s*[+-]?[\d.]+\s*$")


def _duration(value: Any) -> Any:
    """Read `36 hours` as well as ISO 8601; a number alone would be taken for seconds, or as text for nanoseconds."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or _NUMBER.match(value):
        raise ValueError(f"{value!r} is no duration, as it has no unit; expected such as '36 hours' or '30 days'")
    try:
        return Timedelta(value).to_pytimedelta()
    except ValueError as error:
        raise ValueError(f"{value!r} is no duration; expected such as '36 hours' or '30 days'") from error


Duration = Annotated[timedelta, BeforeValidator(_duration)]


class Strict(BaseModel):
    """Base of everything that a team writes about its model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_fields(cls, values: Any) -> Any:
        for name in values if isinstance(values, dict) else ():
            if name not in cls.model_fields:
                raise ValueError(unknown("field", str(name), cls.model_fields))
        return values


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """An error message for a name that is none: the nearest one that is, and all."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    return (
        f"unknown {what} {name!r}{f', did you mean {near[0]!r}?' if near else ';'} expected one of {', '.join(names)}"
    )
