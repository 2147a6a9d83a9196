"""What people write: frozen once read, and every unknown name told with the nearest known one."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Strict(BaseModel):
    """Base of everything that a team writes about its model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
