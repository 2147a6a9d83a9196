"""Whether a model's rules can work together for the number of rows that really arrives."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from math import ceil, floor

from ct_assets.core.spec import ModelSpec

LONG = 365
"""Days of waiting beyond which something practically never happens."""


@dataclass(frozen=True)
class Volume:
    """How many examples a model gets.

    Attributes:
        a_day: Labelled events a day.
        measured_on: What that was counted on, in words.
        rarer_share: Share of the second most frequent class; None for labels without classes, or unknown ones.
        days: Days of the whole record, where it has an end.
    """

    a_day: float
    measured_on: str
    rarer_share: float | None = None
    days: int | None = None

    def of(self, days: float) -> str:
        """What so many days bring, in words."""
        return f"{days:g} days bring about {self.a_day * days:,.0f} labelled events ({self.a_day:,.4g} a day)"

    def until(self, rows: float) -> int:
        """Days until so many labelled events are there."""
        return ceil(rows / self.a_day)


@dataclass(frozen=True)
class Shortage:
    """Rules that cannot work together for a volume.

    Attributes:
        field: The one to change first.
        found: What is there, with the figures.
        expected: What would be needed.
        remedy: The value that works.
        hopeless: Whether it never works, however long one waits.
    """

    field: str
    found: str
    expected: str
    remedy: str
    hopeless: bool = False


def shortages(spec: ModelSpec, volume: Volume) -> Iterator[Shortage]:
    """What a model's rules ask for and the volume does not bring.

    Args:
        spec: The model.
        volume: What arrives; more than nothing a day.
    """
    yield from _evaluation(spec, volume)
    yield from _first_training(spec, volume)
    policy = spec.policy
    if policy.new_label_rows is not None and (days := volume.until(policy.new_label_rows)) < policy.cooldown_days:
        yield Shortage(
            "policy.new_label_rows",
            f"{policy.new_label_rows:,} new labels are there after {days} days, and the rest after a training takes "
            f"{policy.cooldown_days:g}",
            "new_label_rows to take longer than cooldown_days",
            "it is due at the end of each rest, whatever the data say: new_label_rows: "
            f"{ceil(policy.cooldown_days * volume.a_day)} or more",
        )
    window = policy.performance_window_days
    if policy.performance_drop is not None and volume.a_day * window < policy.performance_min_rows:
        yield Shortage(
            "policy.performance_window_days",
            f"{volume.of(window)}, and performance_min_rows wants {policy.performance_min_rows:,}",
            "a window that brings as many",
            f"a loss is never seen: performance_window_days: {volume.until(policy.performance_min_rows)}, or "
            f"performance_min_rows: {max(floor(volume.a_day * window), 1)}",
        )
    if spec.slices and volume.a_day * spec.evaluation_days < spec.gate.min_slice_rows:
        yield Shortage(
            "gate.min_slice_rows",
            f"{volume.of(spec.evaluation_days)}, and min_slice_rows wants {spec.gate.min_slice_rows:,} of one slice",
            "fewer rows of a slice than are judged in all",
            "no slice is ever judged: min_slice_rows: "
            f"{max(floor(volume.a_day * spec.evaluation_days / 4), 1)}, or evaluation_days: "
            f"{volume.until(spec.gate.min_slice_rows)}",
        )
    longest = volume.days or LONG
    if spec.segment_by is not None and volume.until(spec.segments.min_labels) > longest:
        yield Shortage(
            "segments.min_labels",
            f"{volume.of(longest)} of all segments, and a segment needs {spec.segments.min_labels:,}",
            "labels that the largest segments have within a year",
            f"no segment gets a model of its own: min_labels: {max(floor(volume.a_day * longest / 4), 1)}",
        )


def _evaluation(spec: ModelSpec, volume: Volume) -> Iterator[Shortage]:
    gate, days, rarer = spec.gate, spec.evaluation_days, volume.rarer_share
    needed = volume.until(gate.min_rows)
    if needed > days:
        yield Shortage(
            "evaluation_days",
            f"{volume.of(days)}, and the gate wants {gate.min_rows:,} (gate.min_rows)",
            "days that bring as many",
            "a first verdict is inconclusive, and the days grow with it: evaluation_days: "
            f"{needed}, or gate.min_rows: {max(floor(volume.a_day * days), 1)}",
        )
    if rarer and (needed := ceil(gate.min_class_rows / (volume.a_day * rarer))) > days:
        yield Shortage(
            "evaluation_days",
            f"{volume.of(days)}, {rarer:.2%} of them of the rarer class: about {volume.a_day * days * rarer:.1f}, and "
            f"the gate wants {gate.min_class_rows} (gate.min_class_rows)",
            "days that bring as many",
            f"a first verdict is inconclusive, and the days grow with it: evaluation_days: {needed}",
        )


def _first_training(spec: ModelSpec, volume: Volume) -> Iterator[Shortage]:
    first, reach = spec.policy.first_training_rows, spec.label.reach or timedelta(0)
    days = volume.until(first)
    history = spec.evaluation_days + ceil(2 * reach / timedelta(days=1))
    if volume.days is not None and max(days, history) + ceil(reach / timedelta(days=1)) > volume.days:
        yield Shortage(
            "policy.first_training_rows",
            f"{first:,} labels for a first training are there after {days} days, and it needs a history of {history} "
            f"(evaluation_days and twice the time to maturity); the record ends after {volume.days}",
            "a first training within the record",
            "no model is ever trained: first_training_rows: "
            f"{max(floor(volume.a_day * volume.days / 4), 1)}, or fewer evaluation_days",
            hopeless=True,
        )
    elif days > LONG:
        yield Shortage(
            "policy.first_training_rows",
            f"{first:,} labels for a first training are there after {days:,} days ({volume.a_day:,.4g} a day)",
            "labels that are there within a year",
            f"nothing serves before: first_training_rows: {max(floor(volume.a_day * LONG / 4), 1)}",
        )
    elif days < history:
        yield Shortage(
            "policy.first_training_rows",
            f"{first:,} labels are there after {days} days, and a first training needs a history of {history} days: "
            f"{spec.evaluation_days} to judge on (evaluation_days) and twice the {reach} to maturity",
            "labels that take longer to come than that history",
            f"decisions until then say untrainable: first_training_rows: {ceil(history * volume.a_day)} says it too",
        )
