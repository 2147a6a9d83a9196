"""Training sets: point-in-time-correct snapshots, named by their content."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.core.inputs import model_inputs
from ct_assets.core.spec import ModelSpec
from ct_assets.lake.dataset import to_parquet
from ct_assets.lake.examples import DAY, INSTANT, matured_before, partition_of, read_events, read_labels, with_features
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.paths import write_atomically

if TYPE_CHECKING:
    from feast import FeatureStore


FEATURES_DIGEST = "features_digest"
"""Column of scored events that names the definitions their features were made by."""


@dataclass(frozen=True)
class FeatureVersions:
    """Definitions of a feature service.

    Attributes:
        views: View name to the digest of its definition.
        digest: One digest for all of them.
    """

    views: dict[str, str]
    digest: str


@dataclass(frozen=True)
class TrainingSet:
    """One snapshot: labelled examples, the newest of them kept for the gate.

    Attributes:
        digest: SHA-256 of the rows; names the snapshot.
        model: Name of the model.
        as_of: What was known when; ISO 8601 in UTC.
        split_at: Examples predicted from here on are kept for the gate, not trained on.
        train_rows: Examples to train on.
        holdout_rows: Examples kept for the gate.
        positives: Positive labels among the examples to train on.
        feature_service: Where the features came from.
        feature_versions: Its views with the digests of their definitions.
    """

    digest: str
    model: str
    as_of: str
    split_at: str
    train_rows: int
    holdout_rows: int
    positives: int
    feature_service: str
    feature_versions: dict[str, str]


def build_training_set(
    lake: Lake,
    store: "FeatureStore",
    spec: ModelSpec,
    as_of: pd.Timestamp,
    first: pd.Timestamp,
    features: FeatureVersions,
) -> TrainingSet:
    """Take a snapshot of all matured examples known at `as_of`.

    Args:
        lake: Where events and labels are, and where the snapshot goes.
        store: Where the features come from.
        spec: The model.
        as_of: Nothing that was known later enters.
        first: Start of history.
        features: Definitions of the service's views.

    Raises:
        ValueError: No example has matured yet.
    """
    end = matured_before(spec, as_of)
    examples = _examples(lake, store, spec, first, end, features.digest)
    labels = read_labels(lake, spec, as_of)
    examples = examples.merge(labels[[spec.events.id_column, "label"]], on=spec.events.id_column)
    if examples.empty:
        raise ValueError(
            f"no example of {spec.name} has matured by {as_of}: labels take {spec.label.delay}; wait for them, "
            f"or check the sources {spec.events.source!r} and {spec.label.source!r}"
        )
    split_at = end - spec.evaluation_days * DAY
    inputs = model_inputs(spec, examples)
    keys = [spec.events.id_column, "event_timestamp"]
    frame = pd.concat([examples[keys], inputs, examples["label"].astype("int8")], axis=1)
    payload = to_parquet(pa.Table.from_pandas(frame, preserve_index=False))
    train = frame["event_timestamp"] < split_at
    snapshot = TrainingSet(
        digest=hashlib.sha256(payload).hexdigest(),
        model=spec.name,
        as_of=as_of.isoformat(),
        split_at=split_at.isoformat(),
        train_rows=int(train.sum()),
        holdout_rows=int((~train).sum()),
        positives=int(frame.loc[train, "label"].sum()),
        feature_service=spec.feature_service,
        feature_versions=features.views,
    )
    folder = _folder(lake, snapshot.digest)
    if not (folder / "data.parquet").exists():
        write_atomically(folder / "data.parquet", payload)
    # One set of rows can be the snapshot of two moments, when nothing matured in between.
    write_atomically(folder / "manifest.json", json.dumps(asdict(snapshot), indent=2).encode())
    return snapshot


def _examples(
    lake: Lake, store: "FeatureStore", spec: ModelSpec, first: pd.Timestamp, end: pd.Timestamp, digest: str
) -> pd.DataFrame:
    """Every event from `first` to `end` with its features.

    What was known at the moment of a prediction does not change, so the features that Feast gave when an event was
    scored are taken as they are; events that were never scored, or with other definitions, are joined anew.
    """
    joined = _joined(lake, spec, first, end, digest)
    events = read_events(lake, spec, first, end, besides=joined[spec.events.id_column])
    if events.empty:
        return joined
    columns = list(joined.columns)
    parts = [joined, with_features(store, spec, events).reindex(columns=columns)]
    whole = pd.concat([part for part in parts if len(part)])
    return whole.sort_values(["event_timestamp", spec.events.id_column], ignore_index=True)


def _joined(lake: Lake, spec: ModelSpec, first: pd.Timestamp, end: pd.Timestamp, digest: str) -> pd.DataFrame:
    """Events with the features that Feast gave when they were scored, as far as the definitions are today's."""
    name = f"{spec.name}/scored"
    window = Window(partition_of(first), partition_of(end - INSTANT))
    columns = [spec.events.id_column, "event_timestamp", *spec.inputs]
    if end <= first or not lake.dataset(name).files(window.first, window.last):
        return pd.DataFrame(columns=columns)
    sql = f"""
SELECT {", ".join(f'"{c}"' for c in columns)} FROM "{name}"
WHERE event_timestamp >= $start AND event_timestamp < $end AND {FEATURES_DIGEST} = $digest
ORDER BY event_timestamp, {spec.events.id_column}
"""
    return lake.query(sql, {name: window}, end, {"start": first, "end": end, "digest": digest}).to_pandas()


def load_training_set(lake: Lake, digest: str) -> TrainingSet:
    """Read a snapshot's manifest."""
    return TrainingSet(**json.loads((_folder(lake, digest) / "manifest.json").read_text()))


def read_examples(lake: Lake, snapshot: TrainingSet, part: Literal["train", "holdout"]) -> pd.DataFrame:
    """Rows of a snapshot, ordered by the moment of prediction."""
    split_at = pd.Timestamp(snapshot.split_at)
    bound = ("event_timestamp", "<" if part == "train" else ">=", split_at)
    return pq.read_table(_folder(lake, snapshot.digest) / "data.parquet", filters=[bound]).to_pandas()


def _folder(lake: Lake, digest: str) -> Path:
    return lake.home / "training_sets" / digest
