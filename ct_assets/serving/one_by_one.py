"""A batch of which some rows fail: what the others give, and which ones they are."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

MOST_CALLS = 128
"""Calls spent on finding rows that fail: about ten of a thousand. Rows that were not told apart by then all failed."""


def one_by_one(
    compute: Callable[[list[int]], Sequence[T]], rows: list[int]
) -> tuple[dict[int, T], dict[int, Exception]]:
    """Compute something for rows together, and by halves where that fails.

    Args:
        compute: Gives one result a row, or raises.
        rows: Numbers of the rows.

    Returns:
        The results, and the errors, by row.
    """
    found: dict[int, T] = {}
    failed: dict[int, Exception] = {}
    calls, parts = 0, [rows]
    while parts:
        part = parts.pop()
        calls += 1
        try:
            found |= zip(part, compute(part), strict=True)
        except Exception as error:
            if len(part) == 1 or calls > MOST_CALLS:
                failed |= dict.fromkeys(part, error)
            else:
                parts += [part[: len(part) // 2], part[len(part) // 2 :]]
    return found, failed
