"""Online store of the past: answers what another one had at a timestamp, from rows that it was given."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from feast import Entity
from feast.feature_view import FeatureView
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from typing_extensions import override

Row = tuple[datetime | None, Mapping[str, Value] | None]
"""Event time and values by feature, as an online store answers."""


class AsOfOnlineStore(OnlineStore):
    """Read-only; not for several threads.

    Args:
        rows: By view, the row of each key (as of `key_bytes`) at each timestamp.

    Attributes:
        at: The timestamp that is answered for.
    """

    def __init__(self, rows: Mapping[str, Mapping[tuple[bytes, datetime], Row]]) -> None:
        self.rows = rows
        self.at: datetime | None = None

    @override
    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Any]:
        """The row of each key at `at`, or (None, None)."""
        assert self.at is not None, "say which timestamp is asked about"
        rows = self.rows.get(table.name, {})
        return [rows.get((key_bytes(key), self.at), (None, None)) for key in entity_keys]

    @override
    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Refused: nobody writes into the past."""
        raise NotImplementedError("an online store of the past is read-only")

    @override
    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Nothing to do."""

    @override
    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Nothing to do."""


def key_bytes(key: EntityKey) -> bytes:
    """A key as bytes, the same for equal keys."""
    return key.SerializeToString(deterministic=True)
