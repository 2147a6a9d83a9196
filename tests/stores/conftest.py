from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureStore, RepoConfig


@pytest.fixture
def open_store(tmp_path: Path) -> Callable[..., FeatureStore]:
    """Opens the same repository, registry and online file each time it is called, with our two stores by default."""

    def build(**overrides: Any) -> FeatureStore:
        settings: dict[str, Any] = {
            "project": "test",
            "provider": "local",
            "repo_path": tmp_path,
            "registry": {"registry_type": "sql", "path": f"sqlite:///{tmp_path}/registry.db"},
            "offline_store": {"type": "ct_assets.stores.asof_duckdb.AsofDuckDBOfflineStore", "threads": 2},
            "online_store": {"type": "ct_assets.stores.row_sqlite.RowSqliteOnlineStore", "path": "online.db"},
            "materialization": {"pull_latest_features": True, "online_write_batch_size": 10_000},
            "entity_key_serialization_version": 3,
        }
        return FeatureStore(config=RepoConfig(**settings | overrides))

    return build
