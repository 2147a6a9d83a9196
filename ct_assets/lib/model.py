"""From a `ModelSpec` to all of a model's assets and the sensor that automates them."""

from collections.abc import Sequence

import dagster as dg

from ct_assets.core.spec import ModelSpec
from ct_assets.lib.automation import automation_sensor
from ct_assets.lib.features import FeatureSet
from ct_assets.lib.model_data import build_scored
from ct_assets.lib.monitoring import build_monitoring
from ct_assets.lib.training import build_training_assets


def build_model(
    spec: ModelSpec, feature_sets: Sequence[FeatureSet], minimum_interval_seconds: int = 10
) -> dg.Definitions:
    """Everything the platform does for one model.

    Args:
        spec: The model.
        feature_sets: Where the views of its feature service are computed.
        minimum_interval_seconds: Time between two ticks of its sensor.
    """
    return dg.Definitions(
        assets=[
            build_scored(spec, feature_sets),
            build_monitoring(spec),
            *build_training_assets(spec),
        ],
        sensors=[automation_sensor(spec.name, minimum_interval_seconds)],
    )
