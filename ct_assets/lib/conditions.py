"""Automation conditions: when an asset is due. Each says why it has the form it has.

No condition filters checks with `.allow()` or `.ignore()`: on a local graph that would take the gate's checks away from
every other asset (see the scenario tests).
"""

import dagster as dg

AC = dg.AutomationCondition


def _unhandled(trigger: dg.AutomationCondition) -> dg.AutomationCondition:
    """`trigger` has fired since the partition was last requested or made.

    A partition that is missing counts as fired from the first look on: `since_last_handled()` forgets what was there
    when the daemon started, and a backlog would wait for ever.
    """
    handled = AC.newly_requested() | AC.newly_updated()
    return (trigger | AC.missing().newly_true()).since(handled)


def on_arrival() -> dg.AutomationCondition:
    """A batch has landed for this partition.

    Latched until handled, so a batch that lands while the partition is being taken in is not forgotten.
    """
    landed = _unhandled(AC.any_deps_match(AC.newly_updated()))
    return (landed & ~AC.any_deps_missing() & ~AC.in_progress()).with_label("a batch has landed")


def on_accepted_data() -> dg.AutomationCondition:
    """Upstream data of this partition is new and every contract holds.

    Requested together with its upstream where possible: the blocking check inside the run then stops bad data. After
    a failed check it waits until the check is green again.
    """
    fresh = _unhandled(AC.any_deps_match(AC.newly_updated() | AC.will_be_requested()))
    return (
        fresh
        & ~AC.any_deps_missing()
        & ~AC.any_deps_in_progress()
        & ~AC.in_progress()
        & AC.all_deps_blocking_checks_passed()
    ).with_label("accepted data is new")


def retrain_is_due(decision: dg.AssetKey) -> dg.AutomationCondition:
    """The newest retrain decision says that the model is no longer current.

    The latch is on the decision's materialization and the check only filters it: the bare check would ask for a
    training at every tick, and its first failure alone would never ask again while drift persists.
    """
    decided = AC.asset_matches(decision, AC.newly_updated()).since_last_handled()
    due = AC.asset_matches(decision, AC.any_checks_match(AC.check_failed()))
    return (decided & due & ~AC.in_progress()).with_label("a retrain is due")


def on_new_input() -> dg.AutomationCondition:
    """Something upstream was made anew, or is being made in the same run.

    No bootstrap term: what is missing downstream of a training waits for the next training.
    """
    fresh = AC.any_deps_match(AC.newly_updated() | AC.will_be_requested()).since_last_handled()
    return (fresh & ~AC.any_deps_missing() & ~AC.any_deps_in_progress() & ~AC.in_progress()).with_label("input is new")


def gate_passed() -> dg.AutomationCondition:
    """The newest evaluation passed every check of its gate.

    Evaluated a tick after the evaluation, when its verdict stands; a rejected challenger leaves the run green and this
    condition false.
    """
    judged = AC.any_deps_match(AC.newly_updated()).since_last_handled()
    passed = AC.all_deps_match(AC.all_checks_match(AC.check_passed()))
    return (judged & passed & ~AC.any_deps_in_progress() & ~AC.in_progress()).with_label("the gate has passed")
