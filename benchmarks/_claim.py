"""What every benchmark hands in: a table to read, and one line of JSON to keep."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

CHECKOUT = Path(__file__).parents[1]

Figure = float | int | str | bool | None


@dataclass(frozen=True)
class Claim:
    """One claim and whether it held.

    Attributes:
        name: Name of the module that measures it.
        figures: What was measured; durations are medians in seconds, ratios say by how much the first is larger.
        goal: What the figures are to reach, in words.
        ok: Whether they do.
    """

    name: str
    figures: dict[str, Figure]
    goal: str
    ok: bool


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose first column holds names and the others figures."""
    made = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(
            *("" if cell is None else f"{cell:,.3f}" if isinstance(cell, float) else str(cell) for cell in row)
        )
    return made


def publish(claim: Claim, tables: Sequence[Table]) -> NoReturn:
    """Print the tables and, as the last line, the claim as JSON; exit with 1 when it did not hold."""
    console = Console()
    for each in tables:
        console.print(each)
    verdict = "[green]holds[/]" if claim.ok else "[red]does not hold[/]"
    console.print(f"goal: {claim.goal}: {verdict}", highlight=False)
    sys.stdout.flush()
    print(json.dumps(asdict(claim)), flush=True)
    sys.exit(0 if claim.ok else 1)


def last_line(output: str) -> Claim:
    """Read back what `publish` printed.

    Raises:
        ValueError: The output does not end in a claim.
    """
    lines = output.strip().splitlines()
    try:
        return Claim(**json.loads(lines[-1]))
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"the benchmark's output ends in {lines[-1:]}; expected one JSON object with name, figures, goal, ok"
        ) from error


def alternating(arms: Sequence[str], repetitions: int) -> Iterator[str]:
    """Each arm once a repetition, in an order that turns round, so that a slow spell of the machine hits all alike."""
    for i in range(repetitions):
        yield from arms if i % 2 == 0 else reversed(arms)
