"""The evaluation window: which of the newest labels are kept from training for the gate.

It is `evaluation_days` long. Where the gate could not judge by so many (too few rows, or of the rarer class), it
grows until it can: a rare class needs more days than somebody thought when the days were declared.
"""

from bisect import bisect_left
from dataclasses import dataclass

import pandas as pd

from ct_assets.core.division import Division, divide
from ct_assets.core.gate import enough_rows
from ct_assets.core.label_gaps import LabelGaps
from ct_assets.core.spec import ModelSpec
from ct_assets.core.strategies import reachable
from ct_assets.core.tasks import task_of
from ct_assets.lake.examples import DAY, MATURES, matured_before


@dataclass(frozen=True)
class Growth:
    """That the window may grow, and what bounds it.

    Attributes:
        learned_until: Up to here, what the challenger will be compared with has learned from labels; None if there is
            nothing to compare with.
    """

    learned_until: pd.Timestamp | None = None


def division_of(spec: ModelSpec, as_of: pd.Timestamp, days: int) -> tuple[str, pd.Timestamp]:
    """By which column the newest examples are told, and from where on they are kept for the gate.

    Args:
        spec: The model.
        as_of: What was known when.
        days: Length of the evaluation window.
    """
    if spec.label.reach is None:
        # Of the newest predictions only those that mature fast are mature: what is newest is told by maturity alone.
        return MATURES, as_of - days * DAY
    return "event_timestamp", matured_before(spec, as_of) - days * DAY


@dataclass(frozen=True)
class EvaluationWindow:
    """How much is judged on.

    Attributes:
        days: Its length.
        shortage: Why that is known to be too little for a verdict; empty if it is not.
    """

    days: int
    shortage: str = ""


def evaluation_window(
    spec: ModelSpec, labelled: pd.DataFrame, as_of: pd.Timestamp, growth: Growth | None
) -> EvaluationWindow:
    """The fewest days, from those of the spec on, with rows enough for a verdict.

    It grows only as far as no more examples are judged on than remain to learn from, both counted without those that
    what serves has learned from already; so it never reaches back into these, and a challenger always has news.

    Args:
        spec: The model.
        labelled: `event_timestamp`, `matures` and `label` of the mature examples with a label.
        as_of: What was known when.
        growth: What bounds it; None while it has not been too short.
    """
    declared = spec.evaluation_days
    if growth is None or labelled.empty:
        return EvaluationWindow(declared)
    task, predicted, matures = task_of(spec), labelled["event_timestamp"], labelled["matures"]
    labels, until = labelled["label"].reset_index(drop=True), growth.learned_until
    news = (predicted >= (predicted.min() if until is None else until)).to_numpy(dtype=bool)

    def divided(days: int) -> Division:
        split_by, split_at = division_of(spec, as_of, days)
        return divide(predicted, matures, split_at, split_by == MATURES)

    def is_too_long(days: int) -> bool:
        parts = divided(days)
        used = labels[parts.train].iloc[reachable(spec.strategy, predicted[parts.train])]
        more = parts.holdout.sum() > (parts.train & news).sum()
        return bool(more or (parts.holdout & ~news).any() or used.nunique() < task.fewest_values)

    def shortage(days: int) -> str:
        judged = labels[divided(days).holdout & news]
        encoded, problem = task.encode(judged)
        check = enough_rows(task, len(judged), encoded, spec.gate)
        return problem or ("" if check.passed else check.detail)

    longest = int((as_of - min(predicted.min(), matures.min())) / DAY) + 1
    days = range(declared, max(declared, longest) + 1)
    allowed = days[: max(bisect_left(days, x=True, key=is_too_long), 1)]
    chosen = allowed[min(bisect_left(allowed, x=True, key=lambda days: not shortage(days)), len(allowed) - 1)]
    missing = shortage(chosen)
    if not missing:
        return EvaluationWindow(chosen)
    return EvaluationWindow(
        chosen,
        f"a verdict was inconclusive, and of what is new the evaluation window may have {chosen} days by now, as no "
        f"more is judged on than is left to learn from: {missing}",
    )


def label_problem(spec: ModelSpec, told: pd.DataFrame, split_by: str, split_at: pd.Timestamp) -> str:
    """Why labels are no picture of the events that matured; empty if they are.

    The events that are judged on and those that the strategy looks at are held against the limit by themselves.

    Args:
        spec: The model.
        told: `event_timestamp`, `matures` and `came` of the mature events, as `LabelGaps` counts them.
        split_by: As `division_of` has it.
        split_at: Likewise.
    """
    newest = told["matures" if split_by == MATURES else "event_timestamp"] >= split_at
    older = told[~newest]
    older = older.iloc[reachable(spec.strategy, older["event_timestamp"])]
    for events, what in ((told[newest], "to judge a challenger on"), (older, "to learn from")):
        if problem := LabelGaps.of(events).problem(spec.label):
            return f"{problem} (the events {what})"
    return ""
