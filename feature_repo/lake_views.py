"""Entities and feature views over the lake, as every model describes them.

A source's path is relative to the lake and names a dataset's manifest; the offline store reads the files listed there.
Every row carries `created`, the moment it was known, and historical retrieval always filters by it.
"""

from collections.abc import Mapping
from datetime import timedelta

from feast import FeatureView, Field, FileSource
from feast.data_format import ParquetFormat
from feast.entity import Entity
from feast.types import FeastType, String
from feast.value_type import ValueType


def text_entity(name: str, description: str) -> Entity:
    """What features are about: one join key of text, so no store has to combine several."""
    return Entity(name=name, join_keys=[name], value_type=ValueType.STRING, description=description)


def lake_view(
    name: str,
    entity: Entity,
    *,
    ttl: timedelta,
    features: Mapping[str, FeastType],
    description: str,
    upstream: str,
    owner: str,
) -> FeatureView:
    """The view whose rows a `FeatureSet` computes under the same name.

    Args:
        name: Of the view and of its dataset below `features/`.
        entity: Its one join key.
        ttl: How long a row is good for; zero for ever.
        features: Feature name to type.
        description: One sentence for the catalog.
        upstream: Source that the rows are computed from.
        owner: `team:name` or an e-mail address.
    """
    source = FileSource(
        name=name,
        path=f"features/{name}/manifest.json",
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    return FeatureView(
        name=name,
        entities=[entity],
        ttl=ttl,
        source=source,
        schema=[Field(name=entity.join_key, dtype=String), *(Field(name=n, dtype=t) for n, t in features.items())],
        description=description,
        owner=owner,
        tags={"upstream": upstream, "dagster/asset_key": f"features/{name}"},
    )
