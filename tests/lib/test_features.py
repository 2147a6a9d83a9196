"""The assets of feature views: what their checks say."""

from datetime import date

import dagster as dg
import pandas as pd
import pandera.pandas as pn
import pyarrow as pa
import pytest

from ct_assets.lake.contract import Domain, Source
from ct_assets.lake.declaration import DeclarationError
from ct_assets.lib.features import FeatureSet, FeatureSql, build_features
from ct_assets.resources.feast import FeastResource
from ct_assets.resources.lake import LakeResource

DAY = "2024-03-01"
VALUES = (
    "temperature",
    "dew_point",
    "humidity",
    "wind_direction",
    "wind_speed",
    "precipitation",
    "pressure",
    "visibility",
)


@pytest.mark.parametrize("name", ["two words", "../weather", ""])
def test_a_view_whose_name_is_no_name_is_refused(name: str) -> None:
    sql = {name: FeatureSql("SELECT 1", ("origin",))}
    schema = pn.DataFrameSchema({"origin": pn.Column(object), "known_at": pn.Column("datetime64[us, UTC]")})
    source = Source("stations", schema, ("origin",), "Readings", "team:test")
    with pytest.raises(
        DeclarationError, match="features of source 'stations', view .*expected letters, digits and '_'"
    ):
        FeatureSet(source, sql, "team:test")


@pytest.mark.parametrize(
    ("origins", "passed", "share"), [(["JFK", None, "LGA", None], False, 0.5), (["JFK"], True, 0.0)]
)
def test_rows_without_a_key_are_a_warning_with_figures(tmp_path, origins, passed, share):
    schema = pn.DataFrameSchema(
        {"origin": pn.Column(object, nullable=True), "known_at": pn.Column("datetime64[us, UTC]")}, strict=False
    )
    domain = Domain("stations", date(2024, 1, 1), date(2024, 12, 31))
    source = Source("stations", schema, ("known_at",), "Readings", "team:test", domain)
    sql = f"""
SELECT origin, known_at AS event_timestamp, known_at AS created, {", ".join(f"1.5 AS {name}" for name in VALUES)}
FROM stations WHERE known_at >= $start AND known_at < $end
"""
    features = FeatureSet(source, {"weather": FeatureSql(sql, ("origin",))}, "team:test")
    lake = LakeResource(home=str(tmp_path))
    times = [pd.Timestamp(f"{DAY}T0{hour}:00Z") for hour in range(len(origins))]
    rows = {"origin": pa.array(origins, pa.string()), "known_at": pa.array(times, pa.timestamp("us", "UTC"))}
    lake.lake().dataset("stations").write(DAY, pa.table(rows))
    result = dg.materialize(
        [*build_features(features).assets, dg.AssetSpec("stations")],
        partition_key=DAY,
        resources={"lake": lake, "feast": FeastResource(lake=lake)},
    )
    assert result.success
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.severity) == ("keys_present", passed, dg.AssetCheckSeverity.WARN)
    assert check.metadata["share"].value == share
    assert (check.description or "").startswith("" if passed else "2 of 4 rows of view weather have no entity key")


def test_views_that_are_made_together_are_all_there_when_the_first_is_reported(tmp_path):
    """A process that is killed between two reports leaves nothing out of what is made of the first one."""
    schema = pn.DataFrameSchema({"origin": pn.Column(object), "known_at": pn.Column("datetime64[us, UTC]")})
    source = Source("stations", schema, ("known_at",), "Readings", "team:test", Domain("stations", date(2024, 1, 1)))
    rows = "known_at AS event_timestamp, known_at AS created FROM stations WHERE known_at >= $start AND known_at < $end"
    sql = {
        "weather": FeatureSql(f"SELECT origin, {', '.join(f'1.5 AS {name}' for name in VALUES)}, {rows}", ("origin",)),
        "origin_load": FeatureSql(f"SELECT origin AS origin_hour, 7 AS scheduled_departures, {rows}", ("origin",)),
    }
    lake = LakeResource(home=str(tmp_path))
    arrived = {"origin": pa.array(["JFK"]), "known_at": pa.array([pd.Timestamp(DAY, tz="UTC")])}
    lake.lake().dataset("stations").write(DAY, pa.table(arrived))
    (assets,) = build_features(FeatureSet(source, sql, "team:test")).assets or ()
    assert isinstance(assets, dg.AssetsDefinition)
    with dg.build_asset_context(partition_key=DAY) as context:
        reports = assets.op.compute_fn.decorated_fn(context, lake, FeastResource(lake=lake))
        assert next(reports).asset_key == dg.AssetKey(["features", "weather"])
        assert all(lake.lake().dataset(f"features/{view}").partition(DAY) for view in sql)
        assert len(list(reports)) == 1
