"""Automation conditions: when an asset is due. Each says why it has the form it has.

No condition filters checks with `.allow()` or `.ignore()`: on a local graph that would take the gate's checks away from
every other asset (see the scenario tests).
"""

from collections.abc import Collection

import dagster as dg

AC = dg.AutomationCondition


def _latched(trigger: dg.AutomationCondition) -> dg.AutomationCondition:
    """`trigger` has fired since the partition was last requested and since it was last made.

    Two latches and not one that either of the two resets, as `since_last_handled()` is: what fires and is handled
    between two ticks is put in order by its timestamps, and Dagster's OR has none. A trigger that comes right after a
    run would be lost.
    """
    return trigger.since(AC.newly_requested()) & trigger.since(AC.newly_updated())


def _backlog(there: dg.AutomationCondition | None = None) -> dg.AutomationCondition:
    """The partition is missing since the first look, and was neither requested nor made.

    A latch forgets what was there when the daemon started, and a backlog would wait for ever.

    Args:
        there: What has to hold at that look. Where it cannot begin to hold later without news from upstream, this
            spares every later look the partitions that nothing has come for yet.
    """
    missing = AC.missing().newly_true()
    return (missing if there is None else missing & there).since(AC.newly_requested() | AC.newly_updated())


def _renewed(besides: Collection[dg.AssetKey] = ()) -> dg.AutomationCondition:
    """Something upstream, `besides` these, was made anew, or is about to be made in the same run.

    The second needs no latch: where something holds it back now, the first fires when upstream is there.
    """
    made, requested = (AC.any_deps_match(what) for what in (AC.newly_updated(), AC.will_be_requested()))
    if besides:
        others = dg.AssetSelection.assets(*besides)
        made, requested = made.ignore(others), requested.ignore(others)
    return _latched(made) | requested


def on_arrival() -> dg.AutomationCondition:
    """A batch has landed for this partition.

    Latched until requested, and not until made: a batch that lands while the partition is being taken in may come too
    late for that run, and the next one finds it. A run that finds nothing changes nothing.
    """
    landed = AC.any_deps_match(AC.newly_updated()).since(AC.newly_requested()) | _backlog(~AC.any_deps_missing())
    return (landed & ~AC.any_deps_missing() & ~AC.in_progress()).with_label("a batch has landed")


def on_accepted_data(reference: Collection[dg.AssetKey] = ()) -> dg.AutomationCondition:
    """Upstream data of this partition is new and every contract holds.

    Requested together with its upstream where possible: the blocking check inside the run then stops bad data. After
    a failed check it waits until the check is green again.

    Args:
        reference: Upstream tables without partitions. They have to be there, but a new one is no news about any past
            day, and would ask for all of them.
    """
    fresh = _renewed(besides=reference) | _backlog()
    return (
        fresh
        & ~AC.any_deps_missing()
        & ~AC.any_deps_in_progress()
        & ~AC.in_progress()
        & AC.all_deps_blocking_checks_passed()
    ).with_label("accepted data is new")


def on_closed_partition(
    calendar: dg.AssetKey,
    arriving: Collection[dg.AssetKey],
    needed: Collection[dg.AssetKey] = (),
    reference: Collection[dg.AssetKey] = (),
) -> dg.AutomationCondition:
    """The arrival partition is closed, and upstream data of it is new.

    A source that is late or silent holds nothing back: once the partition is closed, what it would have brought is
    missing, and asks again when it comes. Only what is there and on its way is waited for: a batch that has been taken
    in, and rows of an accepted one that have yet to be computed.

    Args:
        calendar: The asset whose partitions are the closed ones.
        arriving: Upstream assets that are made of what arrives, one of those that are made together.
        needed: Upstream assets that are always made, and have to be there.
        reference: Upstream tables without partitions. They have to be there, but a new one is no news about any past
            day, and would ask for all of them.
    """
    # Of a run that was killed, a check has neither passed nor failed: it is made again, and waited for.
    rejected = AC.any_deps_match(AC.any_checks_match(AC.check_failed(), blocking_only=True))
    accepted = AC.any_deps_match(~AC.missing()) & ~rejected
    ready = ~AC.asset_matches(calendar, AC.missing())
    for key in (*needed, *reference):
        ready &= ~AC.asset_matches(key, AC.missing() & ~AC.will_be_requested())
    for key in arriving:
        ready &= ~AC.asset_matches(key, AC.missing() & accepted)
    fresh = _renewed(besides=reference) | _backlog()
    return (fresh & ready & ~AC.any_deps_in_progress() & ~AC.in_progress()).with_label(
        "the arrival partition is closed"
    )


def on_decision_time(due: dg.AssetKey) -> dg.AutomationCondition:
    """The time of a decision was reported as passed, or the decision as asked for again.

    What the decision is made of has partitions of another kind, so that all it depends on has been looked at before
    the report.
    """
    reported = _latched(AC.asset_matches(due, AC.newly_updated()))
    return (reported & ~AC.in_progress()).with_label("a decision is due")


def retrain_is_due(decision: dg.AssetKey) -> dg.AutomationCondition:
    """The newest retrain decision says that the model is no longer current.

    The latch is on the decision's materialization and the check only filters it: the bare check would ask for a
    training at every tick, and its first failure alone would never ask again while drift persists.
    """
    decided = _latched(AC.asset_matches(decision, AC.newly_updated()))
    due = AC.asset_matches(decision, AC.any_checks_match(AC.check_failed()))
    return (decided & due & ~AC.in_progress()).with_label("a retrain is due")


def segment_retrain_is_due() -> dg.AutomationCondition:
    """A retrain of this segment was reported as due.

    What is reported is the event itself, by segment: the decisions are made for all of them in one daily step, whose
    check could not say which.
    """
    reported = _latched(AC.any_deps_match(AC.newly_updated()))
    return (reported & ~AC.in_progress()).with_label("a retrain of the segment is due")


def on_new_input() -> dg.AutomationCondition:
    """Something upstream was made anew, or is being made in the same run.

    No bootstrap term: what is missing downstream of a training waits for the next training.
    """
    return (_renewed() & ~AC.any_deps_missing() & ~AC.any_deps_in_progress() & ~AC.in_progress()).with_label(
        "input is new"
    )


def gate_passed() -> dg.AutomationCondition:
    """The newest evaluation passed every check of its gate.

    Evaluated a tick after the evaluation, when its verdict stands; a rejected challenger leaves the run green and this
    condition false. The first look takes what stands by then, as no later decision asks for a promotion again: another
    process may have judged and died, or have lost what it remembered. What was promoted is not promoted twice.
    """
    judged = _latched(AC.any_deps_match(AC.newly_updated())) | _latched(AC.initial_evaluation())
    passed = AC.all_deps_match(AC.all_checks_match(AC.check_passed()))
    return (judged & passed & ~AC.any_deps_in_progress() & ~AC.in_progress()).with_label("the gate has passed")
