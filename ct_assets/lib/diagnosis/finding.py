"""What a check finds: where, what is there, what was expected, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "skipped", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis.

    Attributes:
        level: How bad it is; only an error stops anything.
        check: Name of the check.
        where: File and field.
        found: What is there.
        expected: What should be there.
        remedy: What to do.
        model: The model that it is about; empty for the deployment.
    """

    level: Level
    check: str
    where: str
    found: str = ""
    expected: str = ""
    remedy: str = ""
    model: str = ""

    def __str__(self) -> str:
        parts = (self.found, self.expected and f"expected {self.expected}", self.remedy)
        return f"{self.where}: " + "; ".join(part for part in parts if part)


class CannotTellError(Exception):
    """A check that has nothing to look at, or depends on what another check has found broken already."""


class DefinitionError(ValueError):
    """Mistakes in a model's definition, all of them at once."""

    def __init__(self, name: str, findings: Iterable[Finding]) -> None:
        told = [f"  {finding}" for finding in findings]
        super().__init__("\n".join([f"model {name!r} has {len(told)} mistake(s):", *told]))
