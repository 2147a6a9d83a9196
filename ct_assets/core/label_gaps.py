"""Mature events without a label in time: too many of them, and the examples are those whose label came fast."""

from dataclasses import dataclass
from datetime import timedelta

import pandas as pd

from ct_assets.core.spec import LabelSpec

FEWEST = 100
"""A share of fewer events says nothing."""


@dataclass(frozen=True)
class LabelGaps:
    """How the labels of some mature events came.

    Attributes:
        events: Mature events.
        unlabelled: Those that no label has come for.
        late: Those whose first label came after their maturity; one that says the same as `absent` is no news.
        usual: By when 95 of 100 labels had come, counted from the prediction; None without any.
    """

    events: int
    unlabelled: int
    late: int
    usual: timedelta | None

    @classmethod
    def of(cls, mature: pd.DataFrame) -> "LabelGaps":
        """Count the labels of mature events.

        Args:
            mature: One row an event: `event_timestamp`, `matures`, and `came`, when its first label became known;
                missing where none has.
        """
        came = mature["came"]
        took = (came - mature["event_timestamp"]).dropna().sort_values()
        usual = took.iloc[int(0.95 * len(took))].ceil("s").to_pytimedelta() if len(took) else None
        return cls(len(mature), int(came.isna().sum()), int((came > mature["matures"]).sum()), usual)

    def problem(self, label: LabelSpec) -> str:
        """What is wrong with them, in words; empty if they suffice.

        Where the want of a label is one too (`absent`), only labels that came say whether they came in time.
        """
        of, kind = (self.events, "mature events") if label.absent is None else (self.events - self.unlabelled, "labels")
        missing = self.late + (self.unlabelled if label.absent is None else 0)
        if of < FEWEST or missing <= label.max_unlabelled * of:
            return ""
        figures = f"{self.late} ({self.late / of:.1%}) came after maturity"
        if label.absent is None:
            figures = f"{self.unlabelled} ({self.unlabelled / of:.1%}) have no label and those of {figures}"
        usual = "" if self.usual is None else f"; 95 of 100 labels that came had come within {self.usual}"
        cure = "" if label.horizon else f"raise `label.{'delay' if label.delay else 'matures_at'}`, "
        absent = "" if label.absent is not None else "give `label.absent` if no label is one too, "
        return (
            f"of {of} {kind} {figures}; expected at most {label.max_unlabelled:.0%} (`label.max_unlabelled`): the rest "
            f"is what was known fast, and no picture of all{usual}. Land the labels that are missing, {cure}{absent}or "
            "raise the limit"
        )
