"""A code location for tests: the real sources and features, and the flights model with limits that a few days reach."""

from datetime import timedelta

import dagster as dg

from ct_assets.core.drift import DriftLimits
from ct_assets.core.gate import GatePolicy
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.spec import EstimatorSpec, ModelSpec
from ct_assets.defs.features.flights import FEATURE_SETS
from ct_assets.defs.models.flight_delay.spec import SPEC
from ct_assets.defs.sources.contracts import SOURCES
from ct_assets.lib.domains import build_sources
from ct_assets.lib.features import build_features
from ct_assets.lib.liveness import in_process_alive
from ct_assets.lib.model import build_model
from ct_assets.lib.recovery import Retries, build_recovery
from ct_assets.resources.feast import FeastResource
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import RegistryResource

RETRIES = Retries(attempts=60, seconds=0.5, longest=4.0)
"""As many attempts as the shipped ones, and more, as one after the other is killed here; with short waits."""

SMALL = SPEC.model_copy(
    update={
        "label": SPEC.label.model_copy(update={"delay": timedelta(hours=12)}),
        "estimator": EstimatorSpec(
            path=SPEC.estimator.path, params={"max_iter": 20, "learning_rate": 0.1, "min_samples_leaf": 40}
        ),
        "evaluation_days": 1,
        "drift_window_days": 1,
        # Days differ by nature, and only a shift out of the reference's range reaches this PSI.
        "drift": DriftLimits(psi_warn=5, psi_drift=9, missing_warn=1, missing_drift=1, history_days=0),
        "policy": RetrainPolicy(first_training_rows=1_500, schedule_days=None, drift_share=0.1, cooldown_days=0),
        "gate": GatePolicy(tolerance=0.2, floor=0.5, slice_tolerance=0.5, min_rows=300),
    }
)


def location(spec: ModelSpec) -> dg.Definitions:
    """Everything with this model."""
    lake = LakeResource()
    return dg.Definitions.merge(
        build_sources(SOURCES, minimum_interval_seconds=1),
        *(build_features(features) for features in FEATURE_SETS),
        build_model(spec, FEATURE_SETS, minimum_interval_seconds=1),
        build_recovery(spec.owner, RETRIES, minimum_interval_seconds=1),
        dg.Definitions(
            resources={"lake": lake, "feast": FeastResource(), "registry": RegistryResource()},
            executor=in_process_alive,
        ),
    )


defs = location(SMALL)
