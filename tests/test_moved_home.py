"""A home is a folder: moved to another place, with nothing left at the first, all of its stores work on."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from ct_assets.core.ledger import Ledger
from ct_assets.lake.lake import Lake
from ct_assets.lib.features import publish
from ct_assets.lib.instance import open_instance
from ct_assets.resources.feast import feature_store
from ct_assets.resources.registry import CHALLENGER, RegistryResource

NOON = pd.Timestamp("2013-03-01T12:00Z")
PLANES = {"tailnum": ["N1", "N2"], "event_timestamp": NOON, "created": NOON}


def registry_of(home: Path) -> RegistryResource:
    return RegistryResource(home=str(home))


def train(home: Path, training: str) -> Path:
    """Register a model; where its file lies."""
    tags = {"training": training, "artifact_digest": training}
    return Path(registry_of(home).register("m", {"model.skops": training.encode()}, tags, {}, {}).artifact)


def plane_rows() -> pa.Table:
    frame = pd.DataFrame({**PLANES, "year_built": [1990.0, 2000.0], "seats": [50.0, 150.0], "engines": [2.0, 2.0]})
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for name in ("event_timestamp", "created"):
        column = table[name].cast(pa.timestamp("us", "UTC"))
        table = table.set_column(table.column_names.index(name), name, column)
    return table


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[Path]:
    """A home that was written to at another place, which is gone."""
    home, other = tmp_path / "a home", tmp_path / "elsewhere" / "home"
    publish(Lake(home), feature_store(home), "plane", "all", plane_rows(), "digest")
    train(home, "first")
    Ledger(home / "ledger" / "decisions.jsonl").append("skip", "m", datetime(2013, 3, 1, tzinfo=UTC), {}, key="k")
    with open_instance(home) as instance:
        instance.add_dynamic_partitions("lines", ["one"])
    other.parent.mkdir()
    shutil.copytree(home, other)
    shutil.rmtree(home)
    yield other
    assert not home.exists()


def test_its_registry_has_the_models_and_takes_new_ones(moved: Path) -> None:
    first = registry_of(moved).get("m", CHALLENGER)
    assert first is not None
    assert Path(first.artifact).is_relative_to(moved)
    assert Path(first.artifact).read_bytes() == b"first"
    second = train(moved, "second")
    assert second.is_relative_to(moved)
    assert second.read_bytes() == b"second"


def test_its_features_are_retrieved_offline_and_online(moved: Path) -> None:
    store = feature_store(moved)
    asked = pd.DataFrame({"tailnum": ["N2", "N1"], "event_timestamp": [NOON, NOON]})
    found = store.get_historical_features(asked, ["plane:seats"], filter_by_created_timestamp=True).to_df()
    assert dict(zip(found["tailnum"], found["seats"], strict=True)) == {"N1": 50.0, "N2": 150.0}
    online = store.get_online_features(["plane:seats"], [{"tailnum": "N2"}, {"tailnum": "N3"}]).to_dict()
    assert online["seats"] == [150.0, None]


def test_its_lake_ledger_and_dagster_storage_go_on(moved: Path) -> None:
    lake = Lake(moved)
    lake.dataset("features/plane", "event_timestamp").write("2013-03-02", plane_rows())
    assert lake.dataset("features/plane").rows() == 4
    ledger = Ledger(moved / "ledger" / "decisions.jsonl")
    assert ledger.append("skip", "m", datetime(2013, 3, 2, tzinfo=UTC), {}).seq == 2
    assert ledger.find("k") is not None
    assert ledger.verify() == 2
    with open_instance(moved) as instance:
        assert instance.get_dynamic_partitions("lines") == ["one"]
