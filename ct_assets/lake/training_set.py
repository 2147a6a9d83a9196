"""Training sets: point-in-time-correct snapshots, named by their content."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from ct_assets.core import canonical
from ct_assets.core.division import divide
from ct_assets.core.inputs import model_inputs
from ct_assets.core.schema_versions import newer_schema
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.strategies import reachable
from ct_assets.core.strict import unknown
from ct_assets.core.tasks import Task, task_of
from ct_assets.lake.engine import quoted
from ct_assets.lake.evaluation_window import Growth, division_of, evaluation_window, label_problem
from ct_assets.lake.examples import (
    INSTANT,
    MATURES,
    day_of,
    has_events,
    matured_before,
    maturing,
    maturity,
    newest_versions,
    read_events,
    read_labels,
    scored_name,
    with_features,
)
from ct_assets.lake.frames import to_frame
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.paths import write_atomically
from ct_assets.lake.row_blocks import read_blocks, write_blocks

if TYPE_CHECKING:
    from feast import FeatureStore


MANIFEST = "manifest.json"
"""File of a snapshot's folder that describes it; written last."""

FEATURES_DIGEST = "features_digest"
"""Column of scored events that names the definitions their features were made by."""

SCHEMA_VERSION = 2


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
    """One snapshot: the labelled examples that a training uses, the newest of them kept for the gate.

    Its manifest is sealed as it was stored: later code may add attributes, and reads older manifests and newer ones.

    Attributes:
        rows_digest: SHA-256 of the rows: of the digests of their blocks.
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
        holdout_starts: First prediction of the holdout: every example to train on was mature then.
        embargoed: Examples left out because they were not.
        late: Mature events whose first label came after their maturity.
        blocks: Digests of the files with the rows, each those of a week of events.
        schema_version: Of the manifest.
        evaluation_days: Days of newest labels that the examples for the gate are of, at least those that the spec
            declares; 0 where it was not noted.
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
    holdout_starts: str = ""
    embargoed: int = 0
    late: int = 0
    blocks: Sequence[str] = ()
    schema_version: int = SCHEMA_VERSION
    evaluation_days: int = 0

    @cached_property
    def digest(self) -> str:
        """Names the snapshot: one of all that its manifest holds, as the same rows can be divided at another moment."""
        return canonical.digest(asdict(self))


def build_training_set(
    lake: Lake,
    store: "FeatureStore",
    spec: ModelSpec,
    as_of: pd.Timestamp,
    first: pd.Timestamp,
    features: FeatureVersions,
    segment: str | None = None,
    growth: Growth | None = None,
) -> TrainingSet:
    """Take a snapshot of the matured examples known at `as_of` that the strategy uses, or of those of one segment.

    Args:
        lake: Where events and labels are, and where the snapshot goes.
        store: Where the features come from.
        spec: The model.
        as_of: Nothing that was known later enters.
        first: Start of history.
        features: Definitions of the service's views.
        segment: Value of the segment column; None for all.
        growth: How the evaluation window may grow; None while the declared one is enough.

    Raises:
        ValueError: No example has matured yet, a label is none that the task knows, or too many events have no label
            in time.
    """
    line = Line(spec.name, segment)
    mature = _mature(lake, store, spec, as_of, first, features.digest, segment)
    told = _told(lake, spec, as_of, first, mature) if len(mature) else mature.assign(label=None)
    without = int(told["label"].isna().sum())
    if spec.label.absent is not None and without:
        told["label"] = told["label"].where(told["label"].notna(), spec.label.absent)
    labelled = told["label"].notna().to_numpy(dtype=bool)
    if not labelled.any():
        raise ValueError(
            f"no example of {line.name} has matured by {as_of}: {spec.label.told()}, and {len(mature)} mature events "
            f"have none; wait for them, or check the sources {spec.events.source!r} and {spec.label.source!r}"
        )
    days = evaluation_window(spec, told[labelled], as_of, growth).days
    split_by, split_at = division_of(spec, as_of, days)
    _refuse_gaps(spec, line, told, split_by, split_at)
    examples, told = mature[labelled].reset_index(drop=True), told[labelled].reset_index(drop=True)
    division = divide(told["event_timestamp"], told["matures"], split_at, split_by == MATURES)
    task = task_of(spec)
    keys = examples[[spec.events.id_column, "event_timestamp"]].assign(**{MATURES: told["matures"]})
    own_weight = [spec.weight] if spec.weight and spec.weight not in spec.inputs else []
    label = task.stored(told["label"])
    frame = pd.concat([keys, model_inputs(spec, examples), examples[own_weight], label], axis=1)
    older = np.flatnonzero(division.train)
    train = older[reachable(spec.strategy, examples["event_timestamp"].iloc[older])]
    # From the first on that is used, those under the embargo as well: the next snapshots share the files with them.
    rows = frame.iloc[train[0] if len(train) else 0 :]
    blocks = write_blocks(_blocks(lake), pa.Table.from_pandas(rows, preserve_index=False))
    snapshot = TrainingSet(
        rows_digest=hashlib.sha256("\n".join(blocks).encode()).hexdigest(),
        model=line.name,
        as_of=as_of.isoformat(),
        split_at=split_at.isoformat(),
        train_rows=len(train),
        holdout_rows=int(division.holdout.sum()),
        positives=_positives(task, label.iloc[train]),
        feature_service=spec.feature_service,
        feature_versions=features.views,
        unlabelled=without if spec.label.absent is None else 0,
        absent=0 if spec.label.absent is None else without,
        split_by=split_by,
        holdout_starts=division.starts.isoformat(),
        embargoed=division.embargoed,
        late=int((told["came"] > told["matures"]).sum()),
        blocks=blocks,
        evaluation_days=days,
    )
    write_atomically(_folder(lake, snapshot.digest) / MANIFEST, json.dumps(asdict(snapshot), indent=2).encode())
    return snapshot


def _refuse_gaps(spec: ModelSpec, line: Line, told: pd.DataFrame, split_by: str, split_at: pd.Timestamp) -> None:
    if problem := label_problem(spec, told, split_by, split_at):
        raise ValueError(f"no training set of {line.name}: {problem}")


def _mature(
    lake: Lake,
    store: "FeatureStore",
    spec: ModelSpec,
    as_of: pd.Timestamp,
    first: pd.Timestamp,
    digest: str,
    segment: str | None,
) -> pd.DataFrame:
    """Every mature event from `first` on with its features; of an event that was announced again, the last."""
    if not has_events(lake, spec, first, matured_before(spec, as_of)):
        return pd.DataFrame()
    examples = _examples(lake, store, spec, first, as_of, digest, segment)
    if spec.weight and spec.weight not in spec.inputs and len(examples):
        examples = _with_weights(lake, spec, first, as_of, examples)
    return examples


def _told(lake: Lake, spec: ModelSpec, as_of: pd.Timestamp, first: pd.Timestamp, mature: pd.DataFrame) -> pd.DataFrame:
    """What is known of the labels of mature events, in their order.

    Returns:
        `event_timestamp`, `matures`, `came` (when the first label did), and `label` or none.
    """
    id_column = spec.events.id_column
    told = mature[[id_column, "event_timestamp"]].assign(matures=maturity(spec, mature))
    labels = read_labels(lake, spec, as_of, first)
    return told.merge(labels[[id_column, "label", "came"]], on=id_column, how="left")


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
    scored are taken as they are; events that were never scored, or with other definitions, are joined again.
    """
    end, id_column = matured_before(spec, as_of), spec.events.id_column
    own = [MATURES] if spec.label.reach is None else []
    joined = _joined(lake, spec, first, as_of, digest, segment, [*own, *spec.inputs])
    # To which segment an event belongs may be known only once it was joined, so those of all of them are known ones.
    known = joined if segment is None else _joined(lake, spec, first, as_of, digest, None, ())
    pairs = [id_column, "event_timestamp"]
    scored = pa.Table.from_pandas(known[pairs], preserve_index=False) if len(known) else None
    events = to_frame(read_events(lake, spec, first, end, scored, matured_by=as_of))
    if events.empty:
        versions, whole = known[pairs], joined
    else:
        versions = pd.concat([part[pairs] for part in (known, events) if len(part)], ignore_index=True)
        columns = list(joined.columns)
        again = with_features(store, spec, events)
        # As they were scored: beside texts, numbers that stand for categories would become other texts.
        again = again.assign(**model_inputs(spec, again)).reindex(columns=columns)
        parts = [joined, again if segment is None else again[again[spec.segment_by] == segment]]
        if not any(map(len, parts)):
            return joined
        whole = pd.concat([part for part in parts if len(part)])
        whole = whole.sort_values(["event_timestamp", id_column], ignore_index=True)
    if versions[id_column].duplicated().any():
        whole = whole.merge(newest_versions(versions, id_column)[pairs], on=pairs)
    return whole


def _with_weights(
    lake: Lake, spec: ModelSpec, first: pd.Timestamp, as_of: pd.Timestamp, examples: pd.DataFrame
) -> pd.DataFrame:
    """The examples with their weights, from the events: what was scored holds only what the model reads."""
    events = to_frame(read_events(lake, spec, first, matured_before(spec, as_of)))
    if spec.weight not in events:
        raise ValueError(f"weight: {unknown('column of the events or input', str(spec.weight), events.columns)}")
    pairs = [spec.events.id_column, "event_timestamp"]
    return examples.merge(events[[*pairs, spec.weight]], on=pairs, how="left")


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
    window = Window(day_of(first), day_of(end - INSTANT))
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
    return to_frame(lake.query(sql, {name: window}, end, asked))


def load_training_set(lake: Lake, digest: str) -> TrainingSet:
    """Read a snapshot's manifest; what later code may have added to it is passed over.

    Raises:
        FileNotFoundError: There is no such snapshot.
        ValueError: The manifest is not the one that the digest names, or a newer version of the code wrote it.
    """
    path = _folder(lake, digest) / MANIFEST
    content = json.loads(path.read_text())
    if problem := newer_schema(content, SCHEMA_VERSION):
        raise ValueError(f"{path} {problem}")
    if (found := canonical.digest(content)) != digest:
        raise ValueError(f"{path} was changed: its digest is {found}, and not {digest}; train again")
    names = {field.name for field in fields(TrainingSet)}
    snapshot = TrainingSet(**{name: value for name, value in content.items() if name in names})
    # It is the stored manifest that has it, whatever this code knows of it.
    vars(snapshot)["digest"] = digest
    return snapshot


def read_examples(
    lake: Lake, snapshot: TrainingSet, part: Literal["train", "holdout"], columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Rows of a snapshot, ordered by the moment of prediction; all columns unless some are named.

    The holdout is what has matured last; every row to train on was mature at its first prediction.

    Raises:
        ValueError: The rows are not those that were judged.
    """
    newest = (snapshot.split_by, ">=", pd.Timestamp(snapshot.split_at))
    starts = pd.Timestamp(snapshot.holdout_starts or snapshot.split_at)
    files = {_blocks(lake) / f"{digest}.parquet": digest for digest in snapshot.blocks}
    bounds = [(MATURES, "<=", starts)] if part == "train" else [newest, ("event_timestamp", ">=", starts)]
    if not snapshot.blocks:
        # Of the first version: one file a snapshot, divided at one moment.
        files = {_folder(lake, snapshot.digest) / "data.parquet": snapshot.rows_digest}
        bounds = [(snapshot.split_by, "<", newest[2]) if part == "train" else newest]
    return to_frame(read_blocks(files, bounds, columns, snapshot.digest))


def _folder(lake: Lake, digest: str) -> Path:
    return lake.home / "training_sets" / digest


def _blocks(lake: Lake) -> Path:
    return lake.home / "training_sets" / "rows"
