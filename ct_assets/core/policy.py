"""When to retrain: a pure function of evidence in event time, so a replay of the past decides the same."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import available_timezones

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from ct_assets.core.metrics import advantage, higher_is_better
from ct_assets.core.strict import Strict

Blocked = Literal["cooldown", "too_few_labels", "untrainable"]

#: Every decision gives a reason for each of these, in this order.
TRIGGERS = ("bootstrap", "schedule", "stale_champion", "new_labels", "drift", "performance", "manual")


class RetrainPolicy(Strict):
    """What makes a retrain due. A trigger whose limit is None is off."""

    first_training_rows: int = Field(default=5000, ge=1, description="known labels needed for the first training")
    schedule_days: float | None = Field(default=30.0, gt=0, description="since the last training")
    new_label_rows: int | None = Field(default=None, ge=1, description="labels that became known since then")
    drift_share: float | None = Field(default=None, gt=0, le=1, description="share of drifted columns")
    performance_metric: str = Field(default="auc", description="of the champion; when left out, the task's own")
    performance_drop: float | None = Field(
        default=None,
        gt=0,
        description="smallest loss that counts, absolute, against the champion's evaluation; it also has to be larger "
        "than what days differ by (5 % false alarms in a year of daily looks)",
    )
    performance_window_days: float = Field(
        default=14.0, gt=0, description="newest matured days that performance is measured over"
    )
    performance_min_rows: int = Field(default=500, ge=1, description="fewer labelled rows do not show a drop")
    cooldown_days: float = Field(default=7.0, ge=0, description="rest after a training, whatever its outcome")
    max_champion_age_days: float | None = Field(
        default=None, gt=0, description="age of what the champion was trained on from which on a retrain is due"
    )
    decide_at: str = Field(
        default="0 0 * * *",
        description="when it is decided, as a cron of five fields such as `0 6 * * MON`: on a schedule live, and in "
        "event time in a replay, whether or not something has arrived",
    )
    decide_timezone: str = Field(default="UTC", description="time zone of `decide_at`, such as `Europe/Berlin`")

    @field_validator("decide_at")
    @classmethod
    def _is_a_cron(cls, cron: str) -> str:
        if len(cron.split()) != 5 or not re.fullmatch(r"[\dA-Za-z*/,\- ]+", cron):
            raise ValueError(f"{cron!r} is no cron expression; expected five fields, such as '0 6 * * MON'")
        return cron

    @field_validator("decide_timezone")
    @classmethod
    def _is_a_time_zone(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError(f"{name!r} is no time zone; expected one such as 'UTC' or 'Europe/Berlin'")
        return name

    @field_validator("performance_metric")
    @classmethod
    def _has_a_direction(cls, metric: str) -> str:
        higher_is_better(metric)
        return metric


class Evidence(BaseModel):
    """What was known at `as_of`. All moments carry a time zone; none may lie after `as_of` (ValidationError).

    `last_training_as_of` is of the last training, promoted or rejected; `last_training_labels` its number of labels.
    Performance is of the champion, over the policy's window and at its evaluation, both over the segments that it
    serves; `performance_margin` is the loss that chance alone may show, `performance_baseline` what the naive model
    achieves on the rows of the window. `untrainable` says why a training could not end in a judged model; it is looked
    at once one would be due. `silent` has a sentence for each source that has sent nothing for longer than
    it should: that nothing arrives is evidence too. `label_gaps` says so where too many of the newest mature events
    have no label in time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    as_of: AwareDatetime
    known_labels: int = Field(ge=0)
    champion_as_of: AwareDatetime | None = None
    last_training_as_of: AwareDatetime | None = None
    last_training_labels: int | None = None
    drifted_share: float | None = None
    drifted_columns: tuple[str, ...] = ()
    performance_now: float | None = None
    performance_reference: float | None = None
    performance_rows: int = 0
    performance_days: int = 0
    performance_margin: float | None = None
    performance_baseline: float | None = None
    manual_request: bool = False
    manual_reason: str = ""
    manual_number: int | None = None
    untrainable: str = ""
    silent: tuple[str, ...] = ()
    label_gaps: str = ""

    @model_validator(mode="after")
    def _nothing_from_the_future(self) -> "Evidence":
        for name in ("champion_as_of", "last_training_as_of"):
            moment = getattr(self, name)
            if moment is not None and moment > self.as_of:
                raise ValueError(f"{name} {moment.isoformat()} is after as_of {self.as_of.isoformat()}")
        return self

    @property
    def trained_at(self) -> datetime | None:
        """The last training: the champion's or a later one that was rejected."""
        moments = [m for m in (self.champion_as_of, self.last_training_as_of) if m is not None]
        return max(moments, default=None)


class Decision(BaseModel):
    """Whether to retrain, and why.

    `triggers` fired; `reasons` has one sentence for each of TRIGGERS, for a block, and for
    sources that are silent. `next_due` is the earliest event
    time at which a retrain comes due without new evidence: `as_of` itself if due now, None if time alone never does it.
    """

    model_config = ConfigDict(frozen=True)
    retrain: bool
    triggers: tuple[str, ...]
    reasons: dict[str, str]
    blocked_by: Blocked | None
    next_due: datetime | None


def decide(policy: RetrainPolicy, evidence: Evidence) -> Decision:
    """Is a retrain due?

    A trigger fires at its limit, not beyond it. A first training waits for `first_training_rows` known labels, even
    if asked for by hand, and any training for examples that it can learn from and be judged on; the cool-down, counted
    from the last training, holds back everything but a manual request.
    """
    outcomes = {name: _TRIGGERS[name](policy, evidence) for name in TRIGGERS}
    fired = tuple(name for name, (fires, _) in outcomes.items() if fires)
    reasons = {name: reason for name, (_, reason) in outcomes.items()}
    if evidence.silent:
        reasons["silence"] = "; ".join(evidence.silent)
    if evidence.label_gaps:
        reasons["labels"] = evidence.label_gaps
    rest_ends = _after(evidence.trained_at, policy.cooldown_days)
    blocked: Blocked | None = None
    if evidence.champion_as_of is None and evidence.known_labels < policy.first_training_rows:
        blocked = "too_few_labels"
        reasons[blocked] = f"{_label_gap(policy, evidence)}; no training before that"
    elif fired and "manual" not in fired and rest_ends is not None and evidence.as_of < rest_ends:
        blocked = "cooldown"
        reasons[blocked] = (
            f"trained {_days(evidence)} days ago, cool-down {policy.cooldown_days:g} days: due again at "
            f"{rest_ends.isoformat()}, or at once by a manual request"
        )
    elif fired and evidence.untrainable:
        blocked = "untrainable"
        reasons[blocked] = f"not yet: {evidence.untrainable}"
    retrain = bool(fired) and blocked is None
    return Decision(
        retrain=retrain,
        triggers=fired,
        reasons=reasons,
        blocked_by=blocked,
        next_due=evidence.as_of if retrain else _next_due(policy, evidence, blocked, rest_ends),
    )


def shows_loss(
    policy: RetrainPolicy, now: float | None, reference: float | None, margin: float | None, rows: int
) -> bool:
    """Whether a champion has lost what the policy allows, and more than chance shows; False where nobody can say."""
    drop = policy.performance_drop
    if drop is None or now is None or reference is None or margin is None or rows < policy.performance_min_rows:
        return False
    return -advantage(policy.performance_metric, now, reference) >= max(drop, margin)


def _next_due(
    policy: RetrainPolicy, evidence: Evidence, blocked: Blocked | None, rest_ends: datetime | None
) -> datetime | None:
    if blocked == "cooldown":
        return rest_ends
    if blocked in ("too_few_labels", "untrainable"):
        return None
    limits = ((evidence.trained_at, policy.schedule_days), (evidence.champion_as_of, policy.max_champion_age_days))
    due = [since + timedelta(days=days) for since, days in limits if since is not None and days is not None]
    return max(min(due), rest_ends or min(due)) if due else None


def _bootstrap(policy: RetrainPolicy, evidence: Evidence) -> tuple[bool, str]:
    if evidence.champion_as_of is not None:
        return False, "there is a champion; without one this would have fired"
    if evidence.known_labels < policy.first_training_rows:
        return False, _label_gap(policy, evidence)
    return True, f"no champion yet, {evidence.known_labels} labels known (needed: {policy.first_training_rows})"


def _schedule(policy: RetrainPolicy, evidence: Evidence) -> tuple[bool, str]:
    due = None if policy.schedule_days is None else _after(evidence.trained_at, policy.schedule_days)
    if policy.schedule_days is None:
        return False, "off: the policy has no schedule_days"
    if due is None:
        return False, "never trained: the schedule starts with the first training"
    past = f"last training {_days(evidence)} days ago, schedule every {policy.schedule_days:g} days"
    return evidence.as_of >= due, past if evidence.as_of >= due else f"{past}: fires at {due.isoformat()}"


def _stale_champion(policy: RetrainPolicy, evidence: Evidence) -> tuple[bool, str]:
    limit, champion = policy.max_champion_age_days, evidence.champion_as_of
    if limit is None:
        return False, "off: the policy has no max_champion_age_days"
    if champion is None:
        return False, "no champion yet, which could be too old"
    text = f"the champion learned from what was known {(evidence.as_of - champion) / timedelta(days=1):.4g} days ago"
    text += f" (limit {limit:g})"
    due = champion + timedelta(days=limit)
    return evidence.as_of >= due, text if evidence.as_of >= due else f"{text}: fires at {due.isoformat()}"


def _new_labels(policy: RetrainPolicy, evidence: Evidence) -> tuple[bool, str]:
    if policy.new_label_rows is None:
        return False, "off: the policy has no new_label_rows"
    before = evidence.last_training_labels
    if before is None:
        return False, "never trained: there is no earlier number of labels to compare with"
    new = evidence.known_labels - before
    text = f"{new} labels became known since the last training (limit {policy.new_label_rows})"
    if new >= policy.new_label_rows:
        return True, text
    return False, f"{text}; {policy.new_label_rows - new} more would have flipped it"


def _drift(policy: RetrainPolicy, evidence: Evidence) -> tuple[bool, str]:
    if policy.drift_share is None:
        return False, "off: the policy has no drift_share"
    if evidence.drifted_share is None:
        return False, "no drift report; one would have been judged"
    named = f": {', '.join(evidence.drifted_columns)}" if evidence.drifted_columns else ""
    text = f"{evidence.drifted_share:.1%} of columns drifted (limit {policy.drift_share:.1%}){named}"
    if evidence.drifted_share >= policy.drift_share:
        return True, text
    return False, f"{text}; a share of {policy.drift_share:.1%} would have flipped it"


def _performance(policy: RetrainPolicy, evidence: Evidence) -> tuple[bool, str]:
    if policy.performance_drop is None:
        return False, "off: the policy has no performance_drop"
    now, reference, metric = evidence.performance_now, evidence.performance_reference, policy.performance_metric
    margin, rows = evidence.performance_margin, evidence.performance_rows
    if now is None or reference is None:
        return False, f"no {metric} of the champion to compare; labels for its predictions would have been judged"
    if rows < policy.performance_min_rows:
        missing = policy.performance_min_rows - rows
        return False, f"only {rows} labelled rows; {missing} more would have been judged"
    loss = -advantage(metric, now, reference)
    text = f"{metric} {now:.6g} against {reference:.6g} at its evaluation, a loss of {loss:.4g}"
    if margin is None:
        return (
            False,
            f"{text}; what days differ by is not known: labels of more days, or more of the rarer class, would "
            "have been judged",
        )
    text += (
        f" (limit {policy.performance_drop:g}; {margin:.4g} by chance, {rows} rows of {evidence.performance_days} days)"
    )
    if shows_loss(policy, now, reference, margin, rows):
        return True, text
    sign = -1 if higher_is_better(metric) else 1
    flip = reference + sign * max(policy.performance_drop, margin)
    return False, f"{text}; {metric} {flip:.6g} would have flipped it"


def _manual(policy: RetrainPolicy, evidence: Evidence) -> tuple[bool, str]:  # noqa: ARG001  same shape as the others
    if evidence.manual_request:
        return True, f"asked for by hand: {evidence.manual_reason or 'no reason given'}"
    return False, "not asked for by hand; a request would have flipped it"


_TRIGGERS: dict[str, Callable[[RetrainPolicy, Evidence], tuple[bool, str]]] = {
    "bootstrap": _bootstrap,
    "schedule": _schedule,
    "stale_champion": _stale_champion,
    "new_labels": _new_labels,
    "drift": _drift,
    "performance": _performance,
    "manual": _manual,
}


def _label_gap(policy: RetrainPolicy, evidence: Evidence) -> str:
    missing = policy.first_training_rows - evidence.known_labels
    return (
        f"{evidence.known_labels} labels known, {policy.first_training_rows} needed for a first training: "
        f"{missing} more would have flipped it"
    )


def _after(moment: datetime | None, days: float) -> datetime | None:
    return None if moment is None else moment + timedelta(days=days)


def _days(evidence: Evidence) -> str:
    elapsed = evidence.as_of - (evidence.trained_at or evidence.as_of)
    return f"{elapsed / timedelta(days=1):.4g}"
