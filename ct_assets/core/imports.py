"""Objects by import path, as files name them."""

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


def imported(field: str, paths: Iterable[str], kind: type[T]) -> list[T]:
    """What import paths name, each one object or a sequence of them.

    Args:
        field: Where they are written.
        paths: The import paths.
        kind: What each has to name.

    Raises:
        ValueError: One names nothing that can be imported, or something else.
    """
    found: list[T] = []
    expected = f"expected the import path of a {kind.__name__} or of a sequence of them"
    for path in paths:
        module, _, name = path.rpartition(".")
        try:
            named: Any = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"{field}: {path!r} cannot be imported ({error}); {expected}") from error
        several = [named] if isinstance(named, kind) else named
        if not isinstance(several, Sequence) or not all(isinstance(each, kind) for each in several):
            raise ValueError(f"{field}: {path!r} is a {type(named).__name__}; {expected}")
        found += several
    return found
