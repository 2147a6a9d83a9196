"""What pydantic finds wrong with a spec, in the words of the person who wrote it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ct_assets.core.strict import unknown


@dataclass(frozen=True)
class Mistake:
    """One field that is not as it should be.

    Attributes:
        path: The field, from the outermost to its own name or position.
        found: What is there.
        expected: What may be there.
    """

    path: tuple[str | int, ...]
    found: str
    expected: str

    @property
    def field(self) -> str:
        """The field as people write it, such as `label.delay`."""
        return ".".join(str(part) for part in self.path) or "the whole"


def mistakes(error: ValidationError, model: type[BaseModel]) -> Iterator[Mistake]:
    """Every mistake of a validation, one a field.

    Args:
        error: What pydantic raised.
        model: What was validated; its descriptions tell what a missing field is for.
    """
    for detail in error.errors(include_url=False):
        if detail["type"] == "default_factory_not_called":
            # Of a default that depends on another field, whose own mistake is told.
            continue
        path = detail["loc"]
        yield Mistake(path, *_in_words(detail, description(model, path)))


def description(model: type[BaseModel], path: tuple[str | int, ...]) -> str:
    """What a field is for; empty when nobody said."""
    fields, told = _fields_of(model), ""
    for part in path:
        if part not in fields:
            break
        field = fields[str(part)]
        told, fields = field.description or "", _fields_of(field.annotation)
    return told


def _fields_of(annotation: Any) -> Mapping[str, Any]:
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each.model_fields
    return {}


def _in_words(detail: Mapping[str, Any], told: str) -> tuple[str, str]:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        return "nothing", told or "a value"
    if kind in ("literal_error", "enum"):
        return unknown("value", str(value), re.findall(r"'([^']*)'", context["expected"])), told
    if kind == "value_error":
        return str(context["error"]), told
    wanted = str(detail["msg"]).removeprefix("Input should be ").removeprefix("Value ")
    return _short(value), wanted + (f" ({told})" if told else "")


def _short(value: Any, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else text[:most] + " …"
