"""The page of the spec says what the code reads."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from ct_assets.components.continuous_training import ModelFile
from ct_assets.core.spec_page import spec_page
from ct_assets.core.strict import Strict

PAGE = Path(__file__).parents[2] / "docs" / "spec.md"


class Sieve(Strict):
    """What is let through."""

    mesh: float = Field(0.5, gt=0, le=2, description="Width of a hole.")


class Kitchen(Strict):
    """A kitchen.

    What follows is for those who read code.
    """

    kind: Literal["gas", "coal"] = Field(description="What burns | smokes.")
    names: tuple[str, ...] = Field((), min_length=1, description="Who cooks.")
    rest: timedelta | None = Field(None, description="Between two meals.")
    open: bool = Field(True, description="Whether it is.")
    sieve: Sieve = Sieve()


def test_a_page_has_a_line_for_each_field() -> None:
    lines = spec_page(Kitchen).splitlines()
    assert "| `kind` | `gas` or `coal` | required | What burns \\| smokes. |" in lines
    assert "| `names` | list of text, at least 1 of them | none | Who cooks. |" in lines
    assert "| `rest` | duration | none | Between two meals. |" in lines
    assert "| `open` | true or false | `true` | Whether it is. |" in lines
    assert "| `sieve` | [fields](#sieve) | its defaults | What is let through. |" in lines
    assert "| `mesh` | number, more than 0; at most 2 | `0.5` | Width of a hole. |" in lines
    assert "A kitchen." in lines


def test_the_page_is_that_of_the_code() -> None:
    assert PAGE.read_text() == spec_page(ModelFile), "write it again: ct spec > docs/spec.md"


def test_every_field_says_what_it_is_for() -> None:
    silent = [line for line in spec_page(ModelFile).splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert silent == []
