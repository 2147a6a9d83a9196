"""Examining a model before anything runs: every mistake of the person who adds it, in their words.

A check is a function that yields what it finds; to add one, write it and name it in `CHECKS`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ct_assets.lib.diagnosis.arrived import (
    ARRIVALS,
    EVENTS_IN_TIME,
    LATER,
    WINDOWS,
    events_are_known_in_time,
    every_source_sends_each_day,
    rows_wait_for_their_moment,
    windows_are_read_whole,
)
from ct_assets.lib.diagnosis.deployment import DEPLOYMENT_CHECKS, Deployment
from ct_assets.lib.diagnosis.estimator import (
    PATH,
    SPLITS,
    TRIAL,
    declared_splits_are_in_time_order,
    it_can_be_trained,
    path_is_there,
    splits_are_in_time_order,
)
from ct_assets.lib.diagnosis.finding import CannotTellError, DefinitionError, Finding
from ct_assets.lib.diagnosis.inputs import (
    ENTITIES,
    INPUTS,
    SERVICE,
    VIEWS,
    entities_cover_the_keys,
    inputs_are_there,
    inputs_can_be_there,
    service_can_be_there,
    service_is_declared,
    views_are_as_declared,
    views_are_computed,
)
from ct_assets.lib.diagnosis.model import Examined
from ct_assets.lib.diagnosis.queries import (
    EVENTS,
    FEATURES,
    LABELS,
    SOURCES,
    events_bind,
    features_bind,
    labels_bind,
    sources_exist,
)
from ct_assets.lib.diagnosis.rules import RULES, rules_make_sense
from ct_assets.lib.diagnosis.time_travel import (
    EVENTS_AHEAD,
    ONE_EACH,
    TIME,
    events_do_not_look_ahead,
    labels_are_one_each,
    nothing_is_known_too_early,
)
from ct_assets.lib.diagnosis.volume import VOLUME, rules_suit_the_volume

__all__ = [
    "CHECKS",
    "DEPLOYMENT_CHECKS",
    "CannotTellError",
    "DefinitionError",
    "Deployment",
    "Examined",
    "Finding",
    "examine",
    "examine_deployment",
    "refuse_mistakes",
]

Check = Callable[[Examined], Iterator[Finding]]

LOADING: Mapping[str, Check] = {
    SOURCES: sources_exist,
    EVENTS: events_bind,
    LABELS: labels_bind,
    FEATURES: features_bind,
    PATH: path_is_there,
    SPLITS: declared_splits_are_in_time_order,
}
"""Checks that take milliseconds and import nothing: made whenever definitions are loaded."""

CHECKS: Mapping[str, Check] = {
    **LOADING,
    SPLITS: splits_are_in_time_order,
    SERVICE: service_is_declared,
    VIEWS: views_are_computed,
    f"{VIEWS} and SQL": views_are_as_declared,
    INPUTS: inputs_are_there,
    ENTITIES: entities_cover_the_keys,
    TIME: nothing_is_known_too_early,
    EVENTS_AHEAD: events_do_not_look_ahead,
    ONE_EACH: labels_are_one_each,
    ARRIVALS: every_source_sends_each_day,
    LATER: rows_wait_for_their_moment,
    EVENTS_IN_TIME: events_are_known_in_time,
    WINDOWS: windows_are_read_whole,
    TRIAL: it_can_be_trained,
    RULES: rules_make_sense,
    VOLUME: rules_suit_the_volume,
}
"""All checks of a model, in the order in which a person would mend what they find."""


def examine(model: Examined, checks: Mapping[str, Check] = CHECKS) -> list[Finding]:
    """What the checks find; a check that finds nothing is `ok`, one that cannot tell `skipped`."""
    return [replace(f, model=model.spec.name) for name, check in checks.items() for f in _made(name, check, model)]


def examine_deployment(deployment: Deployment) -> list[Finding]:
    """What the checks of a deployment find."""
    return [finding for name, check in DEPLOYMENT_CHECKS.items() for finding in _made(name, check, deployment)]


def refuse_mistakes(model: Examined, feast_files: Iterable[Path]) -> None:
    """Stop a model from loading that can never run.

    Args:
        model: What is loaded.
        feast_files: Where Feast's views are declared, which are read and not imported.

    Raises:
        DefinitionError: Names every mistake.
    """
    files = list(feast_files)
    checks = {
        **LOADING,
        SERVICE: lambda m: service_can_be_there(m, files),
        INPUTS: lambda m: inputs_can_be_there(m, files),
    }
    if found := [finding for finding in examine(model, checks) if finding.level == "error"]:
        raise DefinitionError(model.spec.name, found)


def _made(name: str, check: Callable[[Any], Iterator[Finding]], subject: Any) -> list[Finding]:
    promise = (check.__doc__ or "").strip().splitlines()[0] if check.__doc__ else ""
    try:
        return list(check(subject)) or [Finding("ok", name, name, promise)]
    except CannotTellError as error:
        return [Finding("skipped", name, name, str(error))]
    except Exception as error:
        # One check that breaks must not hide what the others find.
        told = f"this check broke: {type(error).__name__}: {error}"
        return [Finding("error", name, name, told, "a check that ends", "report it with the model's files")]
