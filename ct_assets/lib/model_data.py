"""Daily assets of a model: its events scored by the champion, and how they turned out."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.core.inputs import model_inputs
from ct_assets.core.metrics import metrics_for
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.training import PREDICTION, predict
from ct_assets.lake.contract import Domain
from ct_assets.lake.examples import (
    DAY,
    INSTANT,
    label_lookback_days,
    matured_before,
    partition_of,
    read_events,
    read_labels,
    with_features,
)
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.paths import write_atomically
from ct_assets.lake.releases import Releases
from ct_assets.lake.training_set import FEATURES_DIGEST
from ct_assets.lib.conditions import on_accepted_data
from ct_assets.lib.features import FeatureSet, feature_key
from ct_assets.lib.partitions import arrival_days, day_before, end_of
from ct_assets.lib.sources import arrow_schema
from ct_assets.resources.feast import FeastResource, service_versions, versions_digest
from ct_assets.resources.lake import LakeResource


def model_key(spec: ModelSpec, asset: str) -> dg.AssetKey:
    """Key of one of a model's assets."""
    return dg.AssetKey([spec.name, asset])


def common(spec: ModelSpec, asset: str, kinds: set[str]) -> dict[str, Any]:
    """What all assets of a model share."""
    return {
        "name": asset,
        "key_prefix": spec.name,
        "group_name": spec.name,
        "owners": [spec.owner],
        "kinds": kinds,
        "tags": {"tier": spec.tier},
    }


def releases_of(lake: LakeResource, spec: ModelSpec) -> Releases:
    """The releases of a model under the resource's home."""
    return Releases(lake.path, Line(spec.name), lake.ledger())


def build_scored(spec: ModelSpec, domain: Domain, feature_sets: Sequence[FeatureSet]) -> dg.AssetsDefinition:
    """`scored`: the day's events with their features and the champion's predictions."""
    daily, reference = (
        [feature_key(view) for features in feature_sets for view in features.views if features.source.daily is kind]
        for kind in (True, False)
    )

    @dg.asset(
        **common(spec, "scored", {"feast", "scikitlearn"}),
        deps=[spec.events.source, *daily, *reference],
        description="Events whose prediction was due that day, with features as known then and the champion's score.",
        partitions_def=arrival_days(domain),
        automation_condition=on_accepted_data(reference),
    )
    def scored(context: dg.AssetExecutionContext, lake: LakeResource, feast: FeastResource) -> dg.MaterializeResult:
        table, version = score_day(lake.lake(), feast.store(), releases_of(lake, spec), spec, context.partition_key)
        lake.lake().dataset(f"{spec.name}/scored", "event_timestamp").write(context.partition_key, table)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": table.num_rows,
                "dagster/column_schema": arrow_schema(table.schema),
                "champion": version or "none yet",
            }
        )

    return scored


def score_day(
    lake: Lake, store: Any, releases: Releases, spec: ModelSpec, partition: str
) -> tuple[pa.Table, str | None]:
    """Score the events of one day with the release that was champion when the day began.

    Returns:
        The rows, and the champion's version; without a champion the predictions are missing.
    """
    start, end = pd.Timestamp(partition, tz="UTC"), end_of(partition)
    events = with_features(store, spec, read_events(lake, spec, start, end))
    champion = releases.champion_at(start)
    keys = events[[spec.events.id_column, "event_timestamp"]].assign(known_at=events["event_timestamp"])
    frame = pd.concat([keys, model_inputs(spec, events)], axis=1)
    if champion is None:
        frame[PREDICTION] = pd.Series(dtype="float64")
    else:
        frame[PREDICTION] = predict(spec, releases.load(champion, spec), frame)
    frame["model_version"] = pd.Series([champion.version if champion else None] * len(frame), dtype="object")
    frame[FEATURES_DIGEST] = versions_digest(service_versions(store, spec.feature_service))
    schema = pa.Schema.from_pandas(frame, preserve_index=False)
    schema = schema.set(schema.get_field_index("model_version"), pa.field("model_version", pa.string()))
    return pa.Table.from_pandas(frame, schema=schema, preserve_index=False), champion.version if champion else None


def join_outcomes(lake: Lake, spec: ModelSpec, partition: str) -> pa.Table:
    """Labels that have arrived and are not yet counted, each with what was predicted; O(arrived rows).

    Those are the labels of the day, and those of days around it that had nothing to be joined with: a day that could
    not be scored in its turn, as one of its sources came late, is made up for when it is, or by the day after.
    """
    id_column, reach = spec.events.id_column, label_lookback_days(spec)
    first = day_before(partition, reach)
    known = f"{spec.name}/performance"
    others = [f for f in lake.dataset(known).files(day_before(first, reach), day_before(partition, -reach))]
    last = max([partition, *(f.partition for f in others)])
    labels = read_labels(lake, spec, end_of(last), first)
    columns = ", ".join([id_column, "event_timestamp", PREDICTION, "model_version", *spec.slices])
    scored = lake.query(
        f'SELECT {columns} FROM "{spec.name}/scored"',
        {f"{spec.name}/scored": Window(day_before(first, reach), partition)},
        end_of(partition),
    ).to_pandas()
    counted = [
        pq.read_table(path, columns=[id_column])[id_column]
        for path in lake.dataset(known).paths(f for f in others if f.partition != partition)
    ]
    joined = labels.merge(scored, on=id_column).sort_values(["event_timestamp", id_column], ignore_index=True)
    joined = joined[~joined[id_column].isin(pa.chunked_array(counted).to_pandas() if counted else [])]
    table = pa.Table.from_pandas(joined, preserve_index=False)
    # A day without a champion has no version to tell the type of the column from.
    return table.set_column(
        table.schema.get_field_index("model_version"), "model_version", table["model_version"].cast(pa.string())
    )


def labels_known(lake: Lake, spec: ModelSpec, as_of: pd.Timestamp) -> int:
    """How many outcomes of scored events had become known by a moment."""
    dataset = lake.dataset(f"{spec.name}/performance")
    files = dataset.files(last=partition_of(as_of - INSTANT))
    # Only a day that was scored late holds labels that became known later.
    late = [f for f in files if f.max_time and pd.Timestamp(f.max_time) > as_of]
    early = sum(f.rows for f in files) - sum(f.rows for f in late)
    moments = [pq.read_table(path, columns=["known_at"])["known_at"].to_pandas() for path in dataset.paths(late)]
    return early + sum(int((known <= as_of).sum()) for known in moments)


def performance_report(lake: Lake, releases: Releases, spec: ModelSpec, partition: str) -> dict[str, Any]:
    """The champion's metric over the newest matured cohorts, next to what its verdict promised.

    Only events old enough to have their label count: fast labels alone would paint a rosy picture.
    """
    as_of, policy = end_of(partition), spec.policy
    champion = releases.champion_at(as_of - INSTANT)
    empty = {
        "labels_known": labels_known(lake, spec, as_of),
        "now": None,
        "reference": None,
        "rows": 0,
        "label_rate": None,
    }
    if champion is None:
        return empty
    end = matured_before(spec, as_of)
    start = end - policy.performance_window_days * DAY
    sql = f"""
SELECT label, {PREDICTION}, event_timestamp FROM "{spec.name}/performance"
WHERE event_timestamp >= $start AND event_timestamp < $end AND model_version = $version ORDER BY event_timestamp
"""
    rows = lake.query(
        sql,
        {f"{spec.name}/performance": Window(partition_of(start), partition)},
        as_of,
        {"start": start, "end": end, "version": champion.version},
    ).to_pandas()
    reference = releases.verdict(champion.verdict).metrics["challenger"].get(policy.performance_metric)
    now = metrics_for(spec.task).one[policy.performance_metric](rows["label"], rows[PREDICTION]) if len(rows) else None
    return empty | {
        "now": None if now is None or math.isnan(now) else now,
        "reference": reference,
        "rows": len(rows),
        "label_rate": float(rows["label"].mean()) if len(rows) else None,
        "champion": champion.version,
    }


def save_report(lake: Lake, spec: ModelSpec, kind: str, partition: str, report: dict[str, Any]) -> None:
    """Keep a day's report next to the lake."""
    write_atomically(_report_path(lake, spec, kind, partition), json.dumps(report, indent=1).encode())


def read_report(lake: Lake, spec: ModelSpec, kind: str, partition: str) -> dict[str, Any]:
    """Read a day's report; empty when there is none."""
    path = _report_path(lake, spec, kind, partition)
    return json.loads(path.read_text()) if path.exists() else {}


def _report_path(lake: Lake, spec: ModelSpec, kind: str, partition: str) -> Path:
    return lake.home / "monitoring" / spec.name / kind / f"{partition}.json"
