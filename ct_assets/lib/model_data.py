"""Daily assets of a model: its events scored by the champion, and how they turned out."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ct_assets.core.inputs import model_inputs
from ct_assets.core.segments import SERVED_BY, Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import task_of
from ct_assets.core.training import predict
from ct_assets.lake.contract import Domain
from ct_assets.lake.examples import DAY, INSTANT, MATURES, maturity, read_events, with_features
from ct_assets.lake.lake import Lake
from ct_assets.lake.paths import write_atomically
from ct_assets.lake.releases import Release, Releases
from ct_assets.lake.training_set import FEATURES_DIGEST
from ct_assets.lib.conditions import on_accepted_data
from ct_assets.lib.features import FeatureSet, feature_key
from ct_assets.lib.label_counts import labels_of_lines, unlabelled
from ct_assets.lib.outcomes import read_outcomes
from ct_assets.lib.partitions import arrival_days, end_of
from ct_assets.lib.sources import arrow_schema
from ct_assets.resources.feast import FeastResource, service_versions, versions_digest
from ct_assets.resources.lake import LakeResource


def model_key(spec: ModelSpec, asset: str) -> dg.AssetKey:
    """Key of one of a model's assets."""
    return dg.AssetKey([spec.name, asset])


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


def releases_of(lake: LakeResource, line: Line) -> Releases:
    """The releases of a line under the resource's home."""
    return Releases(lake.path, line, lake.ledger())


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
        releases = releases_of(lake, Line(spec.name))
        table, version = score_day(lake.lake(), feast.store(), releases, spec, context.partition_key)
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
    """Score the events of one day with the releases that were champions when the day began.

    Args:
        lake: Where the events are.
        store: Where the features come from.
        releases: Those of the model; a segment's own champion is found through them.
        spec: The model.
        partition: The day.

    Returns:
        The rows, and the version of the model's own champion; without a champion the predictions are missing.
    """
    start, end = pd.Timestamp(partition, tz="UTC"), end_of(partition)
    events = with_features(store, spec, read_events(lake, spec, start, end))
    keys = events[[spec.events.id_column, "event_timestamp"]].assign(known_at=events["event_timestamp"])
    if spec.label.reach is None:
        keys[MATURES] = events[MATURES]
    frame = pd.concat([keys, model_inputs(spec, events)], axis=1)
    task = task_of(spec)
    predictions = task.unknown(len(frame))
    serving = pd.DataFrame({"model_version": None, SERVED_BY: None}, index=frame.index, dtype="object")
    for part, rows in _by_line(spec, releases, frame, start):
        champion = part.champion_at(start)
        if champion is not None:
            predictions[rows] = predict(spec, part.load(champion, spec), frame.iloc[rows])
            serving.iloc[rows] = [champion.version, part.line.partition]
    frame = pd.concat([frame, task.frame(predictions).set_index(frame.index)], axis=1)
    frame["model_version"] = serving["model_version"]
    if spec.segment_by is not None:
        frame[SERVED_BY] = serving[SERVED_BY]
    frame[FEATURES_DIGEST] = versions_digest(service_versions(store, spec.feature_service))
    # Columns of text have no values to tell their type from on a day without events, or without a champion.
    found = pa.Schema.from_pandas(frame, preserve_index=False)
    schema = pa.schema([f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in found])
    own = releases.champion_at(start)
    return pa.Table.from_pandas(frame, schema=schema, preserve_index=False), own.version if own else None


def _by_line(
    spec: ModelSpec, releases: Releases, frame: pd.DataFrame, at: pd.Timestamp
) -> Iterator[tuple[Releases, npt.NDArray[np.intp]]]:
    """Whose champion scores which rows: those of a segment its own, if it has one."""
    left = np.ones(len(frame), dtype=bool)
    if spec.segment_by is not None:
        for segment, found in frame.groupby(spec.segment_by, sort=True).indices.items():
            rows = np.asarray(found)
            own = Releases(releases.home, Line(spec.name, str(segment)), releases.ledger)
            if own.champion_at(at) is not None:
                left[rows] = False
                yield own, rows
    yield releases, np.flatnonzero(left)


def performance_report(lake: Lake, releases: Releases, spec: ModelSpec, partition: str) -> dict[str, Any]:
    """The champion's metric over the newest matured cohorts, next to what its verdict promised.

    Only events old enough to have their label count: fast labels alone would paint a rosy picture. What they say so far
    is `provisional`: it is shown, and nothing is decided by it.

    Raises:
        ValueError: A label is none that the task knows.
    """
    labels = labels_of_lines(lake, spec, end_of(partition))
    return performance_reports(lake, [releases], spec, partition, labels)[releases.line]


def performance_reports(
    lake: Lake, lines: Sequence[Releases], spec: ModelSpec, partition: str, labels: Mapping[Line, int]
) -> dict[Line, dict[str, Any]]:
    """The same for some of a model's lines, whose outcomes are read once; `labels` as of `labels_of_lines`."""
    as_of = end_of(partition)
    start = as_of - spec.policy.performance_window_days * DAY
    champions = {each.line: each.champion_at(as_of - INSTANT) for each in lines}
    outcomes: tuple[pd.DataFrame, pd.DataFrame] | None = None
    if any(champions.values()):
        known_outcomes = read_outcomes(lake, spec, as_of, start)
        mature = maturity(spec, known_outcomes) < as_of
        outcomes = known_outcomes[mature], known_outcomes[~mature]
    reports = {}
    for each in lines:
        champion = champions[each.line]
        report: dict[str, Any] = {
            "labels_known": labels.get(each.line, 0),
            "now": None,
            "reference": None,
            "rows": 0,
            "label_rate": None,
        }
        if champion is not None and outcomes is not None:
            report |= _of_champion(lake, each, champion, spec, as_of, outcomes)
        reports[each.line] = report
    return reports


def _of_champion(
    lake: Lake,
    releases: Releases,
    champion: Release,
    spec: ModelSpec,
    as_of: pd.Timestamp,
    outcomes: tuple[pd.DataFrame, pd.DataFrame],
) -> dict[str, Any]:
    line, policy = releases.line, spec.policy
    matured, young = (_of_segment(spec, line, each) for each in outcomes)
    mine, young = (each[_scored_by(spec, line, champion, each)] for each in (matured, young))
    reference = releases.verdict(champion.verdict).metrics["challenger"].get(policy.performance_metric)
    report = {
        **_figures(spec, mine),
        "reference": reference,
        "champion": champion.version,
        "corrected": int((matured["versions"] > 1).sum()),
        "provisional": _figures(spec, young),
    }
    if line.segment is None:
        start = as_of - policy.performance_window_days * DAY
        report["unlabelled"] = unlabelled(lake, spec, start, as_of, len(matured))
    return report


def _of_segment(spec: ModelSpec, line: Line, rows: pd.DataFrame) -> pd.DataFrame:
    return rows if line.segment is None else rows[rows[spec.segment_by] == line.segment]


def _scored_by(spec: ModelSpec, line: Line, champion: Release, rows: pd.DataFrame) -> "pd.Series[bool]":
    """Versions are numbered by line."""
    same = rows["model_version"] == champion.version
    return same if spec.segment_by is None else same & (rows[SERVED_BY] == line.partition)


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


def save_report(lake: Lake, spec: ModelSpec, kind: str, partition: str, report: Mapping[str, Any]) -> None:
    """Keep a day's report next to the lake; that of a model with segments holds one for each line, by partition."""
    write_atomically(_report_path(lake, spec, kind, partition), json.dumps(report, indent=1).encode())


def read_report(lake: Lake, spec: ModelSpec, kind: str, partition: str, line: Line) -> dict[str, Any]:
    """Read a line's part of a day's report; empty when there is none."""
    found = read_reports(lake, spec, kind, partition)
    return found if spec.segment_by is None else found.get(line.partition, {})


def read_reports(lake: Lake, spec: ModelSpec, kind: str, partition: str) -> dict[str, Any]:
    """Read a day's whole report; empty when there is none."""
    path = _report_path(lake, spec, kind, partition)
    return json.loads(path.read_text()) if path.exists() else {}


def _report_path(lake: Lake, spec: ModelSpec, kind: str, partition: str) -> Path:
    return lake.home / "monitoring" / spec.name / kind / f"{partition}.json"
