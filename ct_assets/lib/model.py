"""From a `ModelSpec` to all of a model's assets and the sensor that automates them."""

from collections.abc import Sequence

import dagster as dg

from ct_assets.core.spec import ModelSpec
from ct_assets.lake.contract import Domain
from ct_assets.lib.automation import automation_sensor
from ct_assets.lib.features import FeatureSet
from ct_assets.lib.monitoring import build_monitoring
from ct_assets.lib.scoring import build_scored
from ct_assets.lib.training import build_training_assets, retrain_due_asset


def build_model(
    spec: ModelSpec, feature_sets: Sequence[FeatureSet], minimum_interval_seconds: int = 10
) -> dg.Definitions:
    """Everything the platform does for one model.

    Args:
        spec: The model.
        feature_sets: Where the views of its feature service are computed.
        minimum_interval_seconds: Time between two ticks of its sensor.

    Raises:
        ValueError: The feature sets name no source that arrives by days, or sources of several domains.
    """
    domain = _domain_of(spec, feature_sets)
    return dg.Definitions(
        assets=[
            build_scored(spec, domain, feature_sets),
            build_monitoring(spec, domain),
            *([retrain_due_asset(spec)] if spec.segment_by else []),
            *build_training_assets(spec, domain),
        ],
        sensors=[automation_sensor(spec.name, minimum_interval_seconds)],
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
