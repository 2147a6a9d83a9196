"""From landing to lake: every file that arrived is accepted, quarantined with its reasons, or known already.

The order of the steps makes a crash harmless: rows are stored before the landing file moves away, so a file that is
met again is recognized by its digest and only its move is finished.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.core.drift import upstream_change
from ct_assets.core.profile import Profile, profile
from ct_assets.lake.contract import Source, contract_breaches
from ct_assets.lake.dataset import WHOLE, Dataset
from ct_assets.lake.formats import ARROW_TYPES, UnreadableError, read
from ct_assets.lake.lake import Lake
from ct_assets.lake.landing import Landed, Landing
from ct_assets.lake.paths import write_atomically

MAX_NAME = 200
"""Longest name of a landing file, in bytes, that is kept as it is."""

HISTORY_DAYS = 14
"""How many earlier arrival days a batch is compared with."""


@dataclass(frozen=True)
class Batch:
    """What became of one file that arrived."""

    source: str
    partition: str
    name: str
    digest: str
    status: Literal["accepted", "duplicate", "quarantined"]
    rows: int
    reasons: tuple[str, ...] = ()


def ingest(lake: Lake, source: Source, partition: str) -> list[Batch]:
    """Take in every complete file that has landed for `partition`.

    Args:
        lake: Where accepted rows go.
        source: The contract that a batch must keep.
        partition: Arrival day, or `WHOLE` for a reference table.

    Returns:
        One `Batch` a file, in name order. Nothing is dropped: accepted and duplicate files move to `archive/`,
        rejected ones to `quarantine/`, each next to its reasons.
    """
    landing = Landing(lake.home, source)
    batches, rejected = [], []
    for name in landing.names(partition):
        landed = landing.read(partition, name)
        batch = _take_in(lake, source, landing, landed)
        batches.append(batch)
        if batch.status == "quarantined":
            rejected.append((landed, batch))
    # Last, so that each note lists what was accepted beside it.
    for landed, batch in rejected:
        _quarantine(lake, landing, landed, batch)
    if source.daily and batches:
        landing.tidy(partition)
    return batches


def open_rejections(lake: Lake, source: Source, partition: str) -> list[str]:
    """Why the contract of a partition is broken: rejected files that nothing accepted later has made up for.

    Returns:
        One line per reason, with the file's name. A file that was moved out of quarantine by hand no longer counts.
    """
    held = {f.digest for f in lake.dataset(source.name).partition(partition)}
    found = sorted(_quarantined(lake.home, source.name, partition).glob("*.json"))
    notes = [json.loads(note.read_text()) for note in found if note.with_suffix("").exists()]
    return [
        f"{note['file']}: {reason}" for note in notes if held <= set(note["accepted"]) for reason in note["reasons"]
    ]


def _take_in(lake: Lake, source: Source, landing: Landing, landed: Landed) -> Batch:
    """Accept a file or recognize it; one to be rejected is only judged."""
    partition, name, payload = landed.partition, landed.name, landed.payload
    digest = hashlib.sha256(payload).hexdigest()
    dataset = lake.dataset(source.name)
    archived = _archived(lake.home, source.name, partition, name, digest)
    known = {f.digest: f for f in dataset.partition(partition)}.get(digest)
    if known:
        # A file that is stored but not yet archived was interrupted between the two, and is no second delivery.
        interrupted = known.name == name and (not archived.exists() or landing.was_moving(landed, archived))
        _move(landing, landed, archived)
        status: Literal["accepted", "duplicate"] = "accepted" if interrupted else "duplicate"
        return Batch(source.name, partition, name, digest, status, known.rows)
    table, reasons = _read(source, payload)
    rows = table.num_rows if table is not None else 0
    rewritten: list[str] = []
    if table is not None:
        reasons = contract_breaches(source, table.to_pandas())
    if table is not None and not reasons:
        table = _conform(source, table)
        if not source.daily:
            table, rewritten = _news(dataset, source, table)
        reasons = (
            rewritten
            or _ahead_of_time(source, table)
            or _other_days(source, partition, table)
            or _surprises(dataset, source, partition, table)
            or _repetitions(dataset, source, partition, table)
        )
    if table is None or reasons:
        return Batch(source.name, partition, name, digest, "quarantined", rows, tuple(reasons))
    if source.stable:
        _store_profile(dataset, source, partition, digest, table)
    dataset.write(partition, table, digest, name=name, append=True)
    _move(landing, landed, archived)
    return Batch(source.name, partition, name, digest, "accepted", rows)


def _read(source: Source, payload: bytes) -> tuple[pa.Table | None, list[str]]:
    try:
        return read(source, payload), []
    except UnreadableError as error:
        return None, [str(error)]


def _conform(source: Source, table: pa.Table) -> pa.Table:
    """The contract's columns in its order, timestamps in microseconds UTC, text in the one form of text."""
    table = table.select(list(source.schema.columns))
    declared = {name: str(column.dtype) for name, column in source.schema.columns.items()}
    fields = [pa.field(column.name, _stored_type(column.type, declared[column.name])) for column in table.schema]
    return table.cast(pa.schema(fields))


def _stored_type(kind: pa.DataType, declared: str) -> pa.DataType:
    if pa.types.is_null(kind):
        # A column without any value says nothing of its type.
        return ARROW_TYPES.get(declared, pa.timestamp("us", "UTC") if "datetime" in declared else pa.string())
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC")
    is_text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_dictionary(kind)
    return pa.string() if is_text else kind


def _other_days(source: Source, partition: str, table: pa.Table) -> list[str]:
    """Rows that did not become known on their arrival day: features would never see them, or see the future."""
    if not source.daily or "known_at" not in table.column_names:
        return []
    start = pd.Timestamp(partition, tz="UTC")
    known = table["known_at"].to_pandas()
    outside = known[(known < start) | (known >= start + pd.Timedelta(days=1))]
    if outside.empty:
        return []
    return [
        f"column known_at: {len(outside)} row(s) lie outside of {partition} (UTC), such as {outside.iloc[0]}; expected "
        "rows that became known on the day of their folder: land them in the right one, or mend the sender's clock"
    ]


def _surprises(dataset: Dataset, source: Source, partition: str, table: pa.Table) -> list[str]:
    """Columns declared stable that moved overnight: a change at the sender, such as another unit."""
    history = _history(dataset, partition) if source.stable else None
    if history is None:
        return []
    batch = profile(table.select(list(source.stable)).to_pandas(), None)
    return [change.detail for change in upstream_change(history, batch, list(source.stable))]


def _repetitions(dataset: Dataset, source: Source, partition: str, table: pa.Table) -> list[str]:
    """Rows that an earlier batch of the day has brought already; taken in again, they would count twice."""
    reasons = []
    keys = table.select(list(source.key))
    for file in dataset.partition(partition) if source.daily else []:
        (path,) = dataset.paths([file])
        known = pq.read_table(path, columns=list(source.key))
        if repeated := keys.join(known, list(source.key), join_type="left semi").num_rows:
            reasons.append(
                f"{repeated} rows have a key {', '.join(source.key)} that {file.name} brought already; expected "
                "new rows: ask the sender for those that are missing"
            )
    return reasons


def _news(dataset: Dataset, source: Source, table: pa.Table) -> tuple[pa.Table, list[str]]:
    """The rows of a reference table that are not held yet; one that is sent again whole brings what changed.

    What was known at a moment stays as it was: a row that changes comes with a later `known_at`.
    """
    paths = dataset.paths(dataset.partition(WHOLE))
    if not paths:
        return table, []
    known = pd.concat([pq.read_table(path).to_pandas() for path in paths])
    batch = table.to_pandas()
    columns = list(batch.columns)
    new = batch.merge(known.drop_duplicates(), "left", columns, indicator=True)["_merge"].eq("left_only").to_numpy()
    key = list(source.key)
    newest = known.groupby(key, as_index=False)["known_at"].max()
    changed = batch[new].merge(newest, on=key, suffixes=("", "_held"))
    rewritten = changed[changed["known_at"] <= changed["known_at_held"]]
    reasons = (
        [
            f"{len(rewritten)} row(s) differ from what is held and are not known later than that, the first for "
            f"{', '.join(str(rewritten.iloc[0][c]) for c in key)}; expected a later known_at for a row that changed: "
            "stamp it with the moment of the change"
        ]
        if len(rewritten)
        else []
    )
    return table.filter(pa.array(new)), reasons


def _ahead_of_time(source: Source, table: pa.Table) -> list[str]:
    """Rows of a reference table that claim to be known in the future: online they would hide every true one."""
    if source.daily or "known_at" not in table.column_names:
        return []
    known = table["known_at"].to_pandas()
    ahead = known[known > pd.Timestamp.now("UTC") + pd.Timedelta(days=1)]
    if ahead.empty:
        return []
    return [
        f"column known_at: {len(ahead)} row(s) lie in the future, such as {ahead.iloc[0]}; expected moments that have "
        "passed: mend the sender's clock"
    ]


def _history(dataset: Dataset, partition: str) -> Profile | None:
    first = (pd.Timestamp(partition) - pd.Timedelta(days=HISTORY_DAYS)).date().isoformat()
    paths = [
        _profile_path(dataset, f.partition, f.digest)
        for f in dataset.files(first, partition)
        if f.partition < partition
    ]
    profiles = [Profile.from_json(p.read_text()) for p in paths if p.exists()]
    return Profile.merged(profiles) if profiles else None


def _store_profile(dataset: Dataset, source: Source, partition: str, digest: str, table: pa.Table) -> None:
    content = profile(table.select(list(source.stable)).to_pandas(), None).to_json()
    write_atomically(_profile_path(dataset, partition, digest), content.encode())


def _profile_path(dataset: Dataset, partition: str, digest: str) -> Path:
    return dataset.root / partition / f"{digest[:32]}.profile.json"


def _quarantine(lake: Lake, landing: Landing, landed: Landed, batch: Batch) -> None:
    # The note has the whole name.
    target = _quarantined(lake.home, batch.source, batch.partition) / f"{batch.digest[:12]}-{_short(batch.name)}"
    note = {
        "source": batch.source,
        "partition": batch.partition,
        "file": batch.name,
        "digest": batch.digest,
        "rows": batch.rows,
        "reasons": list(batch.reasons),
        "accepted": [f.digest for f in lake.dataset(batch.source).partition(batch.partition)],
    }
    write_atomically(target.with_name(target.name + ".json"), json.dumps(note, indent=2).encode())
    _move(landing, landed, target)


def _archived(home: Path, source: str, partition: str, name: str, digest: str) -> Path:
    """Where a file is kept; under its digest too when another one of its name is there already."""
    target = _folder(home / "archive", source, partition) / name
    if _short(name) != name or (target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() != digest):
        target = target.with_name(f"{digest[:12]}-{_short(name)}")
    return target


def _short(name: str) -> str:
    """A name that the file system takes with what is put around it here; a bucket takes longer ones."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= MAX_NAME else encoded[-60:].decode(errors="ignore")


def _quarantined(home: Path, source: str, partition: str) -> Path:
    return _folder(home / "quarantine", source, partition)


def _move(landing: Landing, landed: Landed, target: Path) -> None:
    landing.move(landed, target)


def _folder(root: Path, source: str, partition: str) -> Path:
    return root / source if partition == WHOLE else root / source / partition
