"""Training sets: point-in-time-correct snapshots, named by their content."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.core import canonical
from ct_assets.core.inputs import model_inputs
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.strict import unknown
from ct_assets.core.tasks import Task, task_of
from ct_assets.lake.dataset import to_parquet
from ct_assets.lake.engine import quoted
from ct_assets.lake.examples import (
    DAY,
    INSTANT,
    MATURES,
    has_events,
    matured_before,
    maturing,
    partition_of,
    read_events,
    read_labels,
    refuse_repeated,
    scored_name,
    with_features,
)
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.paths import write_atomically

if TYPE_CHECKING:
    from feast import FeatureStore


MANIFEST = "manifest.json"
"""File of a snapshot's folder that describes it; written last."""

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

    All of it is in the digest: a further attribute gives stored snapshots other names, and they cannot be read then.

    Attributes:
        rows_digest: SHA-256 of the rows.
        model: Name of the model.
        as_of: What was known when; ISO 8601 in UTC.
        split_at: Examples from here on are kept for the gate, not trained on.
        train_rows: Examples to train on.
        holdout_rows: Examples kept for the gate.
        positives: Positive labels among the examples to train on; None if the task is not binary.
        feature_service: Where the features came from.
        feature_versions: Its views with the digests of their definitions.
        unlabelled: Mature events that no label had come for, which are left out.
        absent: Those that were given the label that the spec has for this case.
        split_by: Column that `split_at` divides.
    """

    rows_digest: str
    model: str
    as_of: str
    split_at: str
    train_rows: int
    holdout_rows: int
    positives: int | None
    feature_service: str
    feature_versions: dict[str, str]
    unlabelled: int = 0
    absent: int = 0
    split_by: str = "event_timestamp"

    @property
    def digest(self) -> str:
        """Names the snapshot: one of everything above, as the same rows can be divided at another moment."""
        return canonical.digest(self)


def build_training_set(
    lake: Lake,
    store: "FeatureStore",
    spec: ModelSpec,
    as_of: pd.Timestamp,
    first: pd.Timestamp,
    features: FeatureVersions,
    segment: str | None = None,
) -> TrainingSet:
    """Take a snapshot of all matured examples known at `as_of`, or of those of one segment.

    Args:
        lake: Where events and labels are, and where the snapshot goes.
        store: Where the features come from.
        spec: The model.
        as_of: Nothing that was known later enters.
        first: Start of history.
        features: Definitions of the service's views.
        segment: Value of the segment column; None for all.

    Raises:
        ValueError: No example has matured yet, or a label is none that the task knows.
    """
    line = Line(spec.name, segment)
    examples, without = _labelled(lake, store, spec, as_of, first, features.digest, segment)
    if examples.empty:
        raise ValueError(
            f"no example of {line.name} has matured by {as_of}: {spec.label.told()}, and {without} mature events "
            f"have none; wait for them, or check the sources {spec.events.source!r} and {spec.label.source!r}"
        )
    inputs = model_inputs(spec, examples)
    keys = [spec.events.id_column, "event_timestamp"]
    if spec.label.reach is None:
        # Of the newest predictions only those that mature fast are mature: what is newest is told by maturity alone.
        keys, split_by, split_at = [*keys, MATURES], MATURES, as_of - spec.evaluation_days * DAY
    else:
        split_by, split_at = "event_timestamp", matured_before(spec, as_of) - spec.evaluation_days * DAY
    task = task_of(spec)
    own_weight = examples[[spec.weight]] if spec.weight and spec.weight not in spec.inputs else examples[[]]
    frame = pd.concat([examples[keys], inputs, own_weight, task.stored(examples["label"])], axis=1)
    payload = to_parquet(pa.Table.from_pandas(frame, preserve_index=False))
    train = frame[split_by] < split_at
    snapshot = TrainingSet(
        rows_digest=hashlib.sha256(payload).hexdigest(),
        model=line.name,
        as_of=as_of.isoformat(),
        split_at=split_at.isoformat(),
        train_rows=int(train.sum()),
        holdout_rows=int((~train).sum()),
        positives=_positives(task, frame.loc[train, "label"]),
        feature_service=spec.feature_service,
        feature_versions=features.views,
        unlabelled=without if spec.label.absent is None else 0,
        absent=0 if spec.label.absent is None else without,
        split_by=split_by,
    )
    folder = _folder(lake, snapshot.digest)
    # Also when it is there: what is made again is the same, unless somebody changed it.
    write_atomically(folder / "data.parquet", payload)
    write_atomically(folder / MANIFEST, json.dumps(asdict(snapshot), indent=2).encode())
    return snapshot


def _labelled(
    lake: Lake,
    store: "FeatureStore",
    spec: ModelSpec,
    as_of: pd.Timestamp,
    first: pd.Timestamp,
    digest: str,
    segment: str | None,
) -> tuple[pd.DataFrame, int]:
    """Every mature event from `first` on with its features and its label, and how many had none."""
    if not has_events(lake, spec, first, matured_before(spec, as_of)):
        return pd.DataFrame(), 0
    examples = _examples(lake, store, spec, first, as_of, digest, segment)
    if examples.empty:
        return examples, 0
    # Of different days, an event that comes twice was scored twice.
    refuse_repeated(spec, examples[spec.events.id_column])
    if spec.weight and spec.weight not in spec.inputs:
        examples = _with_weights(lake, spec, first, as_of, examples)
    labels = read_labels(lake, spec, as_of, first)[[spec.events.id_column, "label"]]
    examples = examples.merge(labels, on=spec.events.id_column, how="left")
    missing = examples["label"].isna()
    if spec.label.absent is None:
        return examples[~missing].reset_index(drop=True), int(missing.sum())
    return examples.assign(label=examples["label"].where(~missing, spec.label.absent)), int(missing.sum())


def _positives(task: Task, label: pd.Series) -> int | None:
    return int(label.sum()) if task.name == "binary" else None


def _examples(
    lake: Lake,
    store: "FeatureStore",
    spec: ModelSpec,
    first: pd.Timestamp,
    as_of: pd.Timestamp,
    digest: str,
    segment: str | None,
) -> pd.DataFrame:
    """Every event from `first` on that is mature at `as_of`, with its features; of one segment, if one is named.

    What was known at the moment of a prediction does not change, so the features that Feast gave when an event was
    scored are taken as they are; events that were never scored, or with other definitions, are joined anew.
    """
    end = matured_before(spec, as_of)
    own = [MATURES] if spec.label.reach is None else []
    joined = _joined(lake, spec, first, as_of, digest, segment, [*own, *spec.inputs])
    # To which segment an event belongs may be known only once it was joined, so those of all of them are known ones.
    known = joined if segment is None else _joined(lake, spec, first, as_of, digest, None, ())
    events = read_events(lake, spec, first, end, known[spec.events.id_column], matured_by=as_of).to_pandas()
    if events.empty:
        return joined
    columns = list(joined.columns)
    anew = with_features(store, spec, events)
    # As they were scored: beside texts, numbers that stand for categories would become other texts.
    anew = anew.assign(**model_inputs(spec, anew)).reindex(columns=columns)
    parts = [joined, anew if segment is None else anew[anew[spec.segment_by] == segment]]
    if not any(map(len, parts)):
        return joined
    whole = pd.concat([part for part in parts if len(part)])
    return whole.sort_values(["event_timestamp", spec.events.id_column], ignore_index=True)


def _with_weights(
    lake: Lake, spec: ModelSpec, first: pd.Timestamp, as_of: pd.Timestamp, examples: pd.DataFrame
) -> pd.DataFrame:
    """The examples with their weights, from the events: what was scored holds only what the model reads."""
    events = read_events(lake, spec, first, as_of).to_pandas()
    if spec.weight not in events:
        raise ValueError(f"weight: {unknown('column of the events or input', str(spec.weight), events.columns)}")
    return examples.merge(events[[spec.events.id_column, spec.weight]], on=spec.events.id_column, how="left")


def _joined(
    lake: Lake,
    spec: ModelSpec,
    first: pd.Timestamp,
    as_of: pd.Timestamp,
    digest: str,
    segment: str | None,
    further: Collection[str],
) -> pd.DataFrame:
    """Mature events with what was noted when they were scored, as far as the definitions are today's.

    `further` names the columns that are wanted beside id and time.
    """
    name, end = scored_name(spec), matured_before(spec, as_of)
    window = Window(partition_of(first), partition_of(end - INSTANT))
    columns = [spec.events.id_column, "event_timestamp", *further]
    if not lake.has_rows(name, window):
        return pd.DataFrame(columns=columns)
    of_segment = "" if segment is None else f"AND {quoted(str(spec.segment_by))} = $segment "
    sql = f"""
SELECT {", ".join(map(quoted, columns))} FROM "{name}"
WHERE event_timestamp >= $start AND {maturing(spec)} < $as_of AND {FEATURES_DIGEST} = $digest {of_segment}
ORDER BY event_timestamp, {quoted(spec.events.id_column)}
"""
    asked = {"start": first, "as_of": as_of, "digest": digest} | ({} if segment is None else {"segment": segment})
    return lake.query(sql, {name: window}, end, asked).to_pandas()


def load_training_set(lake: Lake, digest: str) -> TrainingSet:
    """Read a snapshot's manifest.

    Raises:
        FileNotFoundError: There is no such snapshot.
        ValueError: The manifest is not the one that the digest names.
    """
    path = _folder(lake, digest) / MANIFEST
    found = TrainingSet(**json.loads(path.read_text()))
    if found.digest != digest:
        raise ValueError(f"{path} was changed: its digest is {found.digest}, and not {digest}; train again")
    return found


def read_examples(
    lake: Lake, snapshot: TrainingSet, part: Literal["train", "holdout"], columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Rows of a snapshot, ordered by the moment of prediction; all columns unless some are named.

    The holdout is what has matured last.

    Raises:
        ValueError: The rows are not those that were judged.
    """
    split_at = pd.Timestamp(snapshot.split_at)
    bound = (snapshot.split_by, "<" if part == "train" else ">=", split_at)
    path = _folder(lake, snapshot.digest) / "data.parquet"
    payload = path.read_bytes()
    if hashlib.sha256(payload).hexdigest() != snapshot.rows_digest:
        raise ValueError(f"{path} was changed: its rows are not those of training set {snapshot.digest}; train again")
    return pq.read_table(pa.BufferReader(payload), columns=columns and list(columns), filters=[bound]).to_pandas()


def _folder(lake: Lake, digest: str) -> Path:
    return lake.home / "training_sets" / digest
