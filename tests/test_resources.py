"""DuckDB is a resource of the definitions, and what queries the lake goes through it."""

from pathlib import Path

import dagster as dg
import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from dagster_duckdb import DuckDBResource

from ct_assets.definitions import defs
from ct_assets.lake.lake import Window
from ct_assets.resources.duckdb import InMemoryDuckDB
from ct_assets.resources.feast import FeastResource
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import RegistryResource


def test_the_lake_of_the_definitions_is_queried_by_their_duckdb() -> None:
    resources = defs().resources or {}
    assert isinstance(resources["duckdb"], DuckDBResource)
    lake = resources["lake"]
    assert lake is resources["duckdb"]
    shown = defs().get_repository_def().get_top_level_resources()
    assert {"duckdb", "lake", "feast", "registry"} <= shown.keys()


def test_an_asset_queries_the_lake_with_the_threads_that_duckdb_was_given(tmp_path: Path) -> None:
    lake = LakeResource(home=str(tmp_path), threads=3)
    known_at = pa.array([pd.Timestamp("2020-01-01", tz="UTC")], pa.timestamp("us", "UTC"))
    lake.lake().dataset("numbers").write("2020-01-01", pa.table({"n": [7], "known_at": known_at}))
    found = {}

    @dg.asset
    def answer(lake: LakeResource, duckdb: InMemoryDuckDB) -> None:
        sql = "SELECT n, current_setting('threads') AS threads FROM numbers"
        [found["lake"]] = (
            lake.lake().query(sql, {"numbers": Window()}, pd.Timestamp("2021-01-01", tz="UTC")).to_pylist()
        )
        with duckdb.get_connection() as connection:
            found["own"] = connection.execute("SELECT current_setting('TimeZone')").fetchone()

    assert dg.materialize([answer], resources={"lake": lake, "duckdb": InMemoryDuckDB()}).success
    assert found == {"lake": {"n": 7, "threads": 3}, "own": ("UTC",)}


def test_a_lake_of_its_own_has_a_duckdb_by_default(tmp_path: Path) -> None:
    lake, found = LakeResource(home=str(tmp_path)), list[str]()

    @dg.sensor(target="*")
    def look(lake: LakeResource) -> None:
        with lake.lake().connect() as connection:
            found.extend(connection.execute("SELECT current_setting('TimeZone')").fetchone() or ())

    with dg.build_sensor_context(resources={"lake": lake}, definitions=dg.Definitions(sensors=[look])) as context:
        look(context)
    assert found == ["UTC"]


def test_feast_and_the_registry_take_the_home_of_a_lake(tmp_path: Path) -> None:
    lake = LakeResource(home=str(tmp_path))
    assert RegistryResource(lake=lake).path == FeastResource(lake=lake).path == tmp_path
    with dg.build_resources({"feast": FeastResource(lake=lake), "registry": RegistryResource(lake=lake)}) as opened:
        assert opened.feast.path == opened.registry.path == tmp_path


def test_a_connection_is_closed_when_its_query_fails() -> None:
    with pytest.raises(duckdb.CatalogException), InMemoryDuckDB().get_connection() as connection:
        connection.execute("SELECT * FROM nothing")
    with pytest.raises(duckdb.ConnectionException, match="closed"):
        connection.execute("SELECT 1")
