"""`scored`: a model's events with their features and the champion's predictions."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

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
from ct_assets.lake.examples import MATURES, read_events, scored_name, with_features
from ct_assets.lake.frames import to_frame
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.releases import Releases
from ct_assets.lake.training_set import FEATURES_DIGEST
from ct_assets.lib.closing import calendar_key
from ct_assets.lib.conditions import on_closed_partition
from ct_assets.lib.features import FeatureSet, feature_key
from ct_assets.lib.model_assets import common, releases_of
from ct_assets.lib.parity import compare_day
from ct_assets.lib.parity_check import parity_check, parity_result
from ct_assets.lib.partitions import arrival_partitions, end_of, start_of
from ct_assets.lib.sources import arrow_schema
from ct_assets.resources.feast import FeastResource, service_versions, versions_digest
from ct_assets.resources.lake import LakeResource
from ct_assets.serving.features import FeatureReader

if TYPE_CHECKING:
    from feast import FeatureStore


def build_scored(spec: ModelSpec, domain: Domain, feature_sets: Sequence[FeatureSet]) -> dg.AssetsDefinition:
    """`scored`: the day's events with their features and the champion's predictions."""
    arriving = [dg.AssetKey(spec.events.source)]
    arriving += [feature_key(next(iter(features.views))) for features in feature_sets if features.source.daily]
    calendar, views = calendar_key(domain), [view for features in feature_sets for view in features.views]
    daily, reference = (
        [feature_key(view) for features in feature_sets for view in features.views if features.source.daily is kind]
        for kind in (True, False)
    )

    @cache
    def reader(store: "FeatureStore") -> FeatureReader:
        return FeatureReader(store, spec)

    @dg.asset(
        **common(spec, "scored", {"feast", "scikitlearn"}),
        deps=[spec.events.source, *daily, *reference, calendar],
        description="Events whose prediction was due then, with features as known then and the champion's score.",
        partitions_def=arrival_partitions(domain),
        automation_condition=on_closed_partition(calendar, arriving, reference=reference),
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=spec.freshness.scored),
        check_specs=[parity_check(spec)],
    )
    def scored(context: dg.AssetExecutionContext, lake: LakeResource, feast: FeastResource) -> dg.MaterializeResult:
        releases = releases_of(lake, Line(spec.name))
        for view in views:
            # A source that has been silent since the beginning has no rows of features, and they are missing.
            lake.lake().dataset(f"features/{view}", "event_timestamp").begin()
        if not lake.lake().has_rows(spec.events.source, Window()):
            return dg.MaterializeResult(
                metadata={"dagster/row_count": 0, "champion": "none yet"}, check_results=[parity_result(spec, [])]
            )
        store, partition = feast.store(), context.partition_key
        events = joined_day(lake.lake(), store, spec, partition)
        table, version = score_day(lake.lake(), store, releases, spec, partition, events)
        lake.lake().dataset(scored_name(spec), "event_timestamp").write(partition, table)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": table.num_rows,
                "dagster/column_schema": arrow_schema(table.schema),
                "champion": version or "none yet",
            },
            check_results=[_parity(lake.lake(), reader(store), spec, domain, partition, events)],
        )

    return scored


def score_day(
    lake: Lake, store: Any, releases: Releases, spec: ModelSpec, partition: str, events: pd.DataFrame | None = None
) -> tuple[pa.Table, str | None]:
    """Score the events of one arrival partition with the releases that were champions when it began.

    Args:
        lake: Where the events are.
        store: Where the features come from.
        releases: Those of the model; a segment's own champion is found through them.
        spec: The model.
        partition: The arrival partition.
        events: Its events with their features, as of `joined_day`, if they are at hand.

    Returns:
        The rows, and the version of the model's own champion; without a champion the predictions are missing.
    """
    start = start_of(partition)
    events = joined_day(lake, store, spec, partition) if events is None else events
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


def joined_day(lake: Lake, store: Any, spec: ModelSpec, partition: str) -> pd.DataFrame:
    """The events of an arrival partition with their features."""
    return with_features(store, spec, to_frame(read_events(lake, spec, start_of(partition), end_of(partition))))


def _parity(
    lake: Lake, reader: FeatureReader, spec: ModelSpec, domain: Domain, partition: str, events: pd.DataFrame
) -> dg.AssetCheckResult:
    """The day's check of online features; whatever keeps it from comparing fails it, and not the scoring."""
    try:
        return parity_result(spec, compare_day(lake, reader, spec, domain, partition, events))
    except Exception as error:
        return parity_result(spec, [], f"{type(error).__name__}: {error}")


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
