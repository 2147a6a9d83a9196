"""The sensor that lets the registry's aliases follow the ledger: a process died in between, or somebody moved one."""

import dagster as dg

from ct_assets.core.ledger import TRAINING
from ct_assets.core.spec import ModelSpec
from ct_assets.lib.automation import DAEMON_ONLY
from ct_assets.lib.promotion import reconcile_aliases
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import RegistryResource


def reconciliation_sensor(spec: ModelSpec, minimum_interval_seconds: int = 30) -> dg.SensorDefinition:
    """A sensor that compares the champion's aliases of a model and its segments with the ledger.

    Args:
        spec: The model.
        minimum_interval_seconds: Time between two looks.
    """

    @dg.sensor(
        name=f"{spec.name}_reconciliation",
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Lets the alias `champion` follow the ledger where it does not, and reports it.",
        tags=DAEMON_ONLY,
    )
    def reconciliation(
        context: dg.SensorEvaluationContext, lake: LakeResource, registry: RegistryResource
    ) -> dg.SkipReason:
        # The registry takes seconds to open, and holds nothing before the first training.
        found = reconcile_aliases(lake, registry, spec.name) if lake.ledger().newest([TRAINING], spec.name) else []
        for each in found:
            context.log.warning(each)
        return dg.SkipReason("; ".join(found) or "every alias agrees with the ledger")

    return reconciliation
