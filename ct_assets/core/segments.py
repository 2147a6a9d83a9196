"""Models by segment: the pooled model and one line of champions for each segment that has enough data."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote

#: What stays readable in names of partitions, folders and registered models; all of them allow these.
_PLAIN = " _-"
_POOLED = "(pooled)"
#: Its partition is the name of a folder, for which most file systems have 255 bytes.
_LONGEST = 200

SERVED_BY = "served_by"
"""Column of a segmented model's scored events with the partition of the line that scored each."""


@dataclass(frozen=True)
class Line:
    """One succession of champions: a model's own, or that of one of its segments.

    Attributes:
        model: Name of the model.
        segment: Value of the segment column; None for the model's own, which serves every segment without one.
    """

    model: str
    segment: str | None = None

    @property
    def name(self) -> str:
        """What ledger and messages call it: `repurchase`, `repurchase/United Kingdom`."""
        return self.model if self.segment is None else f"{self.model}/{self.segment}"

    @property
    def folder(self) -> str:
        """Its folder among those of all models: `repurchase`, `repurchase/segments/United Kingdom`."""
        return self.model if self.segment is None else f"{self.model}/segments/{self.partition}"

    @property
    def registered(self) -> str:
        """Its name in the model registry, which allows no slash: `repurchase`, `repurchase--United Kingdom`."""
        return self.model if self.segment is None else f"{self.model}--{self.partition}"

    @property
    def partition(self) -> str:
        """Its partition of the assets that exist once for each line."""
        return _POOLED if self.segment is None else quote(self.segment, safe=_PLAIN).replace(".", "%2E")

    @property
    def may_begin(self) -> bool:
        """Whether it can have champions: a segment has to have a name, and one that a folder can have."""
        return self.segment != "" and len(self.partition) <= _LONGEST

    @classmethod
    def named(cls, name: str) -> Self:
        """The line of that `name`."""
        model, slash, segment = name.partition("/")
        return cls(model, segment if slash else None)

    @classmethod
    def of(cls, model: str, partition: str) -> Self:
        """The line that a partition stands for."""
        return cls(model, None if partition == _POOLED else unquote(partition))
