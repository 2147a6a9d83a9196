"""Resources on their embedded defaults."""

import dagster as dg

from ct_assets.lib.liveness import in_process_alive
from ct_assets.resources.duckdb import InMemoryDuckDB
from ct_assets.resources.feast import FeastResource
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import RegistryResource


@dg.definitions
def resources() -> dg.Definitions:
    """DuckDB, the lake, the feature store and the model registry under `$CT_HOME`; steps run in their run's process.

    A process of its own for each step would import Feast again for seconds of work.
    """
    duckdb = InMemoryDuckDB()
    lake = LakeResource(duckdb=duckdb)
    return dg.Definitions(
        resources={
            "duckdb": duckdb,
            "lake": lake,
            "feast": FeastResource(lake=lake),
            "registry": RegistryResource(lake=lake),
        },
        executor=in_process_alive,
    )
