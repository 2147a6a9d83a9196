"""From a `ModelSpec` to all of a model's assets and the sensor that automates them."""

from collections.abc import Sequence

import dagster as dg

from ct_assets.core.spec import ModelSpec
from ct_assets.lake.contract import Domain, Source
from ct_assets.lib.automation import automation_sensor
from ct_assets.lib.decision_times import build_decision_schedule, build_decision_sensor, decision_due_asset
from ct_assets.lib.features import FeatureSet
from ct_assets.lib.model_assets import MODEL_TAG
from ct_assets.lib.monitoring import build_monitoring
from ct_assets.lib.reconciliation import reconciliation_sensor
from ct_assets.lib.scoring import build_scored
from ct_assets.lib.silence import freshness_of
from ct_assets.lib.training import build_training_assets, retrain_due_asset


def build_model(
    spec: ModelSpec,
    feature_sets: Sequence[FeatureSet],
    minimum_interval_seconds: int = 10,
    sources: Sequence[Source] = (),
) -> dg.Definitions:
    """Everything the platform does for one model.

    Args:
        spec: The model.
        feature_sets: Where the views of its feature service are computed.
        minimum_interval_seconds: Time between two ticks of its sensors.
        sources: Contracts of what it reads for events and labels, which say how long a source may be silent.

    Raises:
        ValueError: The feature sets name no source that arrives by days, or sources of several domains.
    """
    domain = _domain_of(spec, feature_sets)
    named = {spec.events.source, spec.label.source}
    read = [each for each in sources if each.name in named] + [features.source for features in feature_sets]
    target = dg.AssetSelection.groups(spec.name) & dg.AssetSelection.tag(MODEL_TAG, spec.name)
    return dg.Definitions(
        assets=[
            build_scored(spec, domain, feature_sets),
            decision_due_asset(spec, domain),
            build_monitoring(spec, domain, freshness_of(spec, read)),
            *([retrain_due_asset(spec)] if spec.segment_by else []),
            *build_training_assets(spec, domain),
        ],
        sensors=[
            automation_sensor(f"{spec.name}_automation", target, minimum_interval_seconds),
            build_decision_sensor(spec, domain, minimum_interval_seconds),
            reconciliation_sensor(spec),
        ],
        schedules=[build_decision_schedule(spec, domain)],
    )


def _domain_of(spec: ModelSpec, feature_sets: Sequence[FeatureSet]) -> Domain:
    """The domain whose days the model lives by."""
    found = {each.source.name: each.source.domain for each in feature_sets if each.source.daily}
    if len(set(found.values())) != 1:
        told = ", ".join(f"{source} of {domain.name}" for source, domain in found.items()) or "no daily source"
        raise ValueError(
            f"the feature sets of {spec.name} read {told}; expected daily sources of one domain, whose days the model "
            "lives by"
        )
    return next(iter(found.values()))
