"""The examples that the main job can run: how long, and what to compare with."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

DEFAULT = "flight_delay"


@dataclass(frozen=True)
class Example:
    """A model with a recorded feed.

    Attributes:
        model: Name of the model and of its recording.
        days: How many recorded days a demo takes, unless told otherwise.
        arm: What a model retrained by the calendar is called.
        every: How often that one is retrained, as a pandas offset.
        sabotage_from: The first promotion after this day is followed by a training on shuffled labels.
    """

    model: str
    days: int
    arm: str
    every: str
    sabotage_from: date

    def folder(self, home: Path) -> Path:
        """Where the demo keeps its progress and its summary; the main example right under `demo/`."""
        return home / "demo" if self.model == DEFAULT else home / "demo" / self.model


EXAMPLES: Mapping[str, Example] = {
    example.model: example
    for example in (
        Example(DEFAULT, days=365, arm="monthly", every="MS", sabotage_from=date(2013, 2, 1)),
        Example("repurchase", days=739, arm="fortnightly", every="14D", sabotage_from=date(2010, 2, 1)),
        Example("household_power", days=400, arm="monthly", every="MS", sabotage_from=date(2007, 2, 1)),
    )
}


def example_of(name: str) -> Example:
    """The example of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in EXAMPLES:
        raise ValueError(f"there is no example {name!r}; examples: {', '.join(EXAMPLES)}")
    return EXAMPLES[name]
