"""What the assets of a model share: keys, partitions, group, owner, tags."""

from typing import Any

import dagster as dg

from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.lake.releases import Releases
from ct_assets.resources.lake import LakeResource


def model_key(spec: ModelSpec, asset: str) -> dg.AssetKey:
    """Key of one of a model's assets."""
    return dg.AssetKey([spec.name, asset])


MODEL_TAG = "ct/model"
"""Tag of a model's assets; a group of sources may have the model's name."""
RETRAIN_DUE = "retrain_due"
"""Asset that stands for the lines of a segmented model that are to be trained."""


def lines_of(spec: ModelSpec) -> dg.DynamicPartitionsDefinition:
    """One partition for each line of a segmented model."""
    return dg.DynamicPartitionsDefinition(name=f"{spec.name}_lines")


def of_lines(spec: ModelSpec) -> dict[str, Any]:
    """What the assets share that a model has once for each of its lines: partitions, if there are several."""
    return {"partitions_def": lines_of(spec)} if spec.segment_by else {}


def line_of(context: dg.AssetExecutionContext, spec: ModelSpec) -> Line:
    """The line that a run is about."""
    return Line.of(spec.name, context.partition_key) if spec.segment_by else Line(spec.name)


def model_tags(spec: ModelSpec) -> dict[str, str]:
    """Tags of a model's assets: how much depends on them, and whose they are."""
    return {"tier": spec.tier, MODEL_TAG: spec.name}


def common(spec: ModelSpec, asset: str, kinds: set[str]) -> dict[str, Any]:
    """What all assets of a model share."""
    return {
        "name": asset,
        "key_prefix": spec.name,
        "group_name": spec.name,
        "owners": [spec.owner],
        "kinds": kinds,
        "tags": model_tags(spec),
    }


def releases_of(lake: LakeResource, line: Line) -> Releases:
    """The releases of a line under the resource's home."""
    return Releases(lake.path, line, lake.ledger())


def newest_made(context: dg.AssetExecutionContext, key: dg.AssetKey, name: str) -> str | None:
    """What the newest materialization of an asset, in the run's partition, says under a name; None if there is none."""
    wanted = dg.AssetRecordsFilter(key, asset_partitions=[context.partition_key] if context.has_partition_key else None)
    found = context.instance.fetch_materializations(wanted, limit=1).records
    made = found[0].asset_materialization if found else None
    return None if made is None or name not in made.metadata else str(made.metadata[name].value)
