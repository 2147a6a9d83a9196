"""The page of every field of a spec, written from the fields themselves."""

import types
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

HEAD = """# Every field of a spec

A model is a `defs.yaml` of these fields, or the same in Python. Unknown names are errors. The page is written by
`ct spec > docs/spec.md` from the code that reads the fields; a test holds the two together.
"""
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than", "min_length": "at least"}
_SIMPLE = {str: "text", int: "whole number", float: "number", bool: "true or false", timedelta: "duration", Any: "any"}


def spec_page(model: type[BaseModel]) -> str:
    """Every field of a model and of its parts: name, type, default, meaning and what is allowed.

    Args:
        model: What a `defs.yaml` is read into.

    Returns:
        Markdown.
    """
    parts = [(name, part) for name, field in model.model_fields.items() if (part := _part(field.annotation))]
    sections = [_section("The model", model), *(_section(f"`{name}`", part) for name, part in parts)]
    return "\n".join([HEAD, *sections])


def _section(title: str, model: type[BaseModel]) -> str:
    rows = [_row(name, field) for name, field in model.model_fields.items()]
    table = ["| field | type | default | meaning |", "|---|---|---|---|", *rows]
    return "\n".join([f"## {title}", "", _about(model), "", *table, ""])


def _about(model: type[BaseModel] | None) -> str:
    """What the docstring of a part says first."""
    return " ".join(((model and model.__doc__) or "").split("\n\n", maxsplit=1)[0].split())


def _row(name: str, field: FieldInfo) -> str:
    bounds = "; ".join(_bounds(field))
    kind = f"[fields](#{name})" if _part(field.annotation) else _kind(field.annotation)
    typed = f"{kind}, {bounds}" if bounds else kind
    cells = (f"`{name}`", typed, _default(field), field.description or _about(_part(field.annotation)))
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _part(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, if it holds one."""
    kinds = (annotation, *get_args(annotation))
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(each) for each in arguments if each is not types.NoneType)
    if origin is tuple or origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"mapping of {_kind(arguments[0])} to {_kind(arguments[1])}"
    return _SIMPLE.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _bounds(field: FieldInfo) -> Iterator[str]:
    """What the values may be."""
    for rule in field.metadata:
        for name, words in _BOUNDS.items():
            if (bound := getattr(rule, name, None)) is not None:
                told = f"{bound:g}" if isinstance(bound, int | float) else f"`{bound}`"
                yield f"{words} {told}" if name != "min_length" else f"{words} {told} of them"
        if pattern := getattr(rule, "pattern", None):
            yield f"as `{pattern}`"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None or field.default is PydanticUndefined:
        return "none"
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, tuple):
        return ", ".join(f"`{each}`" for each in value) or "none"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"
