"""Checks of policy and gate: rules that contradict each other or leave a door open."""

from collections.abc import Iterator
from datetime import timedelta

from ct_assets.lib.diagnosis.finding import Finding
from ct_assets.lib.diagnosis.model import Examined

RULES = "policy and gate"


def rules_make_sense(model: Examined) -> Iterator[Finding]:
    """Policy and gate fit each other and the label's delay."""
    spec, policy, gate = model.spec, model.spec.policy, model.spec.gate
    if policy.schedule_days is not None and policy.cooldown_days > policy.schedule_days:
        yield _warn(
            model,
            "policy.cooldown_days",
            f"{policy.cooldown_days:g} days of rest, and a schedule of {policy.schedule_days:g}",
            "a rest shorter than the schedule",
            "the schedule waits for the rest to end; shorten it, or lengthen the schedule",
        )
    off = (policy.schedule_days, policy.new_label_rows, policy.drift_share, policy.performance_drop)
    if all(limit is None for limit in off):
        yield _warn(
            model,
            "policy",
            "no trigger but the first training and requests by hand",
            "at least one of schedule_days, new_label_rows, drift_share, performance_drop",
            "the model will grow old unseen",
        )
    if policy.first_training_rows <= gate.min_rows:
        yield _warn(
            model,
            "policy.first_training_rows",
            f"{policy.first_training_rows} labels for the first training, of which the gate wants {gate.min_rows}",
            "more labels than gate.min_rows: both come out of the same",
            "raise first_training_rows, or lower gate.min_rows",
        )
    if gate.floor is None and not gate.beat_baseline:
        yield _warn(
            model,
            "gate.floor",
            "no floor, and the baseline need not be beaten",
            "one of gate.floor and gate.beat_baseline",
            "the first model has no champion to compare with, so it may serve however bad it is",
        )
    delay = spec.label.reach
    source = model.sources.get(spec.events.source)
    domain = source.domain if source else None
    if domain and domain.last_day is None and delay is not None and delay > timedelta(days=domain.quiet_days):
        yield _warn(
            model,
            "label",
            f"labels take {delay}, longer than the quiet_days of group {domain.name} ({domain.quiet_days})",
            "quiet_days of the group that are at least as long",
            "raise Domain.quiet_days: after the last arrivals, labels mature on days that are left out",
        )
    window = timedelta(days=policy.performance_window_days)
    if policy.performance_drop is not None and delay is not None and delay > window:
        yield _warn(
            model,
            "policy.performance_window_days",
            f"labels take {delay}, longer than the window of {policy.performance_window_days:g} days",
            "a window that is longer than the delay",
            "a loss is seen a delay late, on a window that has long passed",
        )
    if policy.performance_drop is not None and policy.performance_metric != gate.metric:
        yield _warn(
            model,
            "policy.performance_metric",
            f"{policy.performance_metric}, while the gate judges by {gate.metric}",
            "the same metric",
            "a retrain may be asked for that the gate sees no reason for",
        )


def _warn(model: Examined, field: str, found: str, expected: str, remedy: str) -> Finding:
    return Finding("warning", RULES, model.at(field), found, expected, remedy)
