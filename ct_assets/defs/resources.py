"""Resources on their embedded defaults."""

import dagster as dg

from ct_assets.lib.liveness import in_process_alive
from ct_assets.resources.feast import FeastResource
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import RegistryResource


@dg.definitions
def resources() -> dg.Definitions:
    """DuckDB, the lake, the feature store and the model registry under `$CT_HOME`; steps run in their run's process.

    A process of its own for each step would import Feast again for seconds of work.
    """
    lake = LakeResource()
    return dg.Definitions(
        resources={
            "duckdb": lake,
            "lake": lake,
            "feast": FeastResource(),
            "registry": RegistryResource(),
        },
        executor=in_process_alive,
    )
