"""Daily assets of a model: its events scored by the champion, and how they turned out."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa

from ct_assets.core.inputs import model_inputs
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import task_of
from ct_assets.core.training import predict
from ct_assets.lake.contract import Domain
from ct_assets.lake.examples import DAY, INSTANT, MATURES, read_events, with_features
from ct_assets.lake.lake import Lake
from ct_assets.lake.paths import write_atomically
from ct_assets.lake.releases import Releases
from ct_assets.lake.training_set import FEATURES_DIGEST
from ct_assets.lib.conditions import on_accepted_data
from ct_assets.lib.features import FeatureSet, feature_key
from ct_assets.lib.outcomes import labels_known, read_outcomes, unlabelled
from ct_assets.lib.partitions import arrival_days, end_of
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
    if spec.label.reach is None:
        keys[MATURES] = events[MATURES]
    frame = pd.concat([keys, model_inputs(spec, events)], axis=1)
    task = task_of(spec)
    predictions = predict(spec, releases.load(champion, spec), frame) if champion else task.unknown(len(frame))
    frame = pd.concat([frame, task.frame(predictions).set_index(frame.index)], axis=1)
    frame["model_version"] = pd.Series([champion.version if champion else None] * len(frame), dtype="object")
    frame[FEATURES_DIGEST] = versions_digest(service_versions(store, spec.feature_service))
    # Columns of text have no values to tell their type from on a day without events, or without a champion.
    found = pa.Schema.from_pandas(frame, preserve_index=False)
    schema = pa.schema([f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in found])
    return pa.Table.from_pandas(frame, schema=schema, preserve_index=False), champion.version if champion else None


def performance_report(lake: Lake, releases: Releases, spec: ModelSpec, partition: str) -> dict[str, Any]:
    """The champion's metric over the newest matured cohorts, next to what its verdict promised.

    Only events old enough to have their label count: fast labels alone would paint a rosy picture. What they say so far
    is `provisional`: it is shown, and nothing is decided by it.

    Raises:
        ValueError: A label is none that the task knows.
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
    start = as_of - policy.performance_window_days * DAY
    matured, young = read_outcomes(lake, spec, as_of, start, as_of), read_outcomes(lake, spec, as_of, as_of)
    reference = releases.verdict(champion.verdict).metrics["challenger"].get(policy.performance_metric)
    return {
        **empty,
        **_figures(spec, matured[matured["model_version"] == champion.version]),
        "reference": reference,
        "champion": champion.version,
        "unlabelled": unlabelled(lake, spec, start, as_of, len(matured)),
        "corrected": int((matured["versions"] > 1).sum()),
        "provisional": _figures(spec, young[young["model_version"] == champion.version]),
    }


def _figures(spec: ModelSpec, rows: pd.DataFrame) -> dict[str, Any]:
    task = task_of(spec)
    labels = task.codes(task.stored(rows["label"]))
    now = task.measure(spec.policy.performance_metric, labels, task.array(rows)) if len(rows) else math.nan
    described = task.describe(labels) if len(rows) else {}
    return {
        "now": None if math.isnan(now) else now,
        "rows": len(rows),
        "label_rate": described.get("prevalence"),
        **{name: value for name, value in described.items() if name == "mean_label"},
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
