"""From landing to lake: every file that arrived is accepted, quarantined with its reasons, or known already.

The order of the steps makes a crash harmless: rows are stored before the landing file moves away, so a file that is
met again is recognized by its digest and only its move is finished.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd
import pandera.pandas as pn
import pyarrow as pa
import pyarrow.compute as pc

from ct_assets.lake import stability
from ct_assets.lake.columns import TIMESTAMP, Content, shown
from ct_assets.lake.contract import Source, contract_breaches
from ct_assets.lake.dataset import WHOLE, Dataset
from ct_assets.lake.engine import fetch, quoted
from ct_assets.lake.formats import UnreadableError, read
from ct_assets.lake.lake import Lake
from ct_assets.lake.landing import Landed, Landing, kept_folder, shortened
from ct_assets.lake.periods import end_of, start_of
from ct_assets.lake.quarantine import Quarantine, rejected


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
        partition: Arrival partition, or `WHOLE` for a reference table.

    Returns:
        One `Batch` a file, in name order. Nothing is dropped: accepted and duplicate files move to `archive/`,
        rejected ones to `quarantine/`, each next to its reasons; one that is being written to stays.

    Raises:
        OSError, MemoryError: At once; the other files are taken in at the next attempt.
        Exception: Any other one that a file met, the first, when the other files have been taken in.
    """
    landing = Landing(lake.home, source)
    batches = []
    failures: list[Exception] = []
    for name in landing.names(partition):
        try:
            # Another process that takes in the same file would find its rows, and call them a repetition.
            with lake.dataset(source.name).exclusive():
                landed = landing.read(partition, name)
                if landed is not None:
                    batches.append(_take_in(lake, source, landing, landed))
        except (OSError, MemoryError):
            # Of the disk or the process: the files beside it would meet the same.
            raise
        except Exception as error:
            error.add_note(f"while {name} of source {source.name!r} was taken in for {partition}")
            failures.append(error)
    if source.daily and batches:
        landing.tidy(partition)
    if failures:
        raise failures[0]
    return batches


def open_rejections(lake: Lake, source: Source, partition: str) -> list[str]:
    """Why the contract of a partition is broken: rejected files whose rows have not come, and that nobody closed.

    Returns:
        One line per reason, with the file's name. A file that was moved out of quarantine by hand no longer counts.
    """
    found = Quarantine(lake.home, source).open(lake.dataset(source.name), partition)
    return [f"{rejection.file} ({rejection.id}): {reason}" for rejection in found for reason in rejection.reasons]


def judge(lake: Lake, source: Source, partition: str, content: Content) -> tuple[pa.Table, list[str]]:
    """Hold a file against its contract and against what has been accepted before.

    Returns:
        The rows that it would add to the lake, and every reason to reject it.
    """
    dataset, table = lake.dataset(source.name), content.table
    if reasons := contract_breaches(source, content):
        return table, reasons
    if not source.daily:
        new, rewritten = _news(lake, dataset, source, table)
        return new, rewritten or _ahead_of_time(table)
    reasons = _other_days(partition, table) or _repetitions(lake, dataset, source, partition, table)
    if not reasons and source.stable:
        reasons = stability.surprises(dataset, source, partition, table)
    return table, reasons


def released(source: Source) -> Source:
    """The contract for a batch that a person released: types, keys and days are not open to judgement."""
    columns = {name: pn.Column(c.dtype, nullable=c.nullable) for name, c in source.schema.columns.items()}
    return replace(source, schema=pn.DataFrameSchema(columns), min_rows=0, stable=())


def _take_in(lake: Lake, source: Source, landing: Landing, landed: Landed) -> Batch:
    """Accept a file, recognize or reject it."""
    partition, name, payload = landed.partition, landed.name, landed.payload
    digest = hashlib.sha256(payload).hexdigest()
    dataset, quarantine = lake.dataset(source.name), Quarantine(lake.home, source)
    archived = _archived(lake.home, source.name, partition, name, digest)
    known = {f.digest: f for f in dataset.partition(partition)}.get(digest)
    if known:
        # A file that is stored but not yet archived was interrupted between the two, and is no second delivery.
        interrupted = known.name == name and (not archived.exists() or landing.was_moving(landed, archived))
        if interrupted:
            quarantine.settle(dataset, partition, name, read(source, payload).table)
        landing.move(landed, archived)
        return Batch(source.name, partition, name, digest, "accepted" if interrupted else "duplicate", known.rows)
    by_hand = quarantine.is_released(partition, digest)
    try:
        content = read(source, payload)
        table, reasons = judge(lake, released(source) if by_hand else source, partition, content)
    except UnreadableError as error:
        content, reasons = None, [str(error)]
    if content is None or reasons:
        rows = content.table.num_rows if content else 0
        rejection = rejected(source, partition, name, digest, rows, tuple(reasons), dataset)
        quarantine.note(rejection)
        landing.move(landed, quarantine.path(rejection))
        return Batch(source.name, partition, name, digest, "quarantined", rows, tuple(reasons))
    if source.stable:
        stability.remember(dataset, source, partition, digest, table, afresh=by_hand)
    dataset.write(partition, table, digest, name=name, append=True)
    quarantine.settle(dataset, partition, name, content.table)
    landing.move(landed, archived)
    return Batch(source.name, partition, name, digest, "accepted", table.num_rows)


def _other_days(partition: str, table: pa.Table) -> list[str]:
    """Rows that did not become known on their arrival day: features would never see them, or see the future."""
    early, late = pa.scalar(start_of(partition), TIMESTAMP), pa.scalar(end_of(partition), TIMESTAMP)
    known = table["known_at"]
    outside = known.filter(pc.or_(pc.less(known, early), pc.greater_equal(known, late)))
    if not len(outside):
        return []
    like = f"such as {shown(outside[0])}"
    return [
        f"column known_at: {len(outside)} row(s) lie outside of {partition} (UTC), {like}; expected "
        "rows that became known on the day of their folder: land them in the right one, or fix the sender's clock"
    ]


def _ahead_of_time(table: pa.Table) -> list[str]:
    """Rows of a reference table that claim to be known in the future: online they would hide every true one."""
    known = table["known_at"]
    tomorrow = pa.scalar(pd.Timestamp.now("UTC").floor("us") + pd.Timedelta(days=1), TIMESTAMP)
    ahead = known.filter(pc.greater(known, tomorrow))
    if not len(ahead):
        return []
    return [
        f"column known_at: {len(ahead)} row(s) lie in the future, such as {shown(ahead[0])}; expected times that have "
        "passed: fix the sender's clock"
    ]


def _repetitions(lake: Lake, dataset: Dataset, source: Source, partition: str, table: pa.Table) -> list[str]:
    """Rows that an earlier batch of the day has brought already; taken in again, they would count twice."""
    names = {path: f.name for f in dataset.partition(partition) for path in dataset.paths([f])}
    if not names:
        return []
    same = " AND ".join(f"held.{quoted(name)} = batch.{quoted(name)}" for name in source.key)
    with lake.connect() as connection:
        connection.register("batch", table.select(list(source.key)))
        found = fetch(
            connection,
            f"SELECT held.filename AS path, count(*) AS rows FROM read_parquet({list(names)!r}, filename=true) AS held "
            f"SEMI JOIN batch ON {same} GROUP BY ALL ORDER BY ALL",
        ).to_pylist()
    return [
        f"{each['rows']} rows have a key {', '.join(source.key)} that {names[each['path']]} brought already; expected "
        "new rows: ask the sender for those that are missing"
        for each in found
    ]


def _news(lake: Lake, dataset: Dataset, source: Source, table: pa.Table) -> tuple[pa.Table, list[str]]:
    """The rows of a reference table that are not held yet; one that is sent again whole brings what changed.

    What was known at a time stays as it was: a row that changes comes with a later `known_at`.
    """
    paths = dataset.paths(dataset.partition(WHOLE))
    if not paths:
        return table, []
    same = " AND ".join(f"held.{quoted(c)} IS NOT DISTINCT FROM batch.{quoted(c)}" for c in table.column_names)
    key = ", ".join(map(quoted, source.key))
    number = "row number in the batch"
    with lake.connect() as connection:
        connection.register("batch", table.append_column(number, pa.array(range(table.num_rows), pa.int64())))
        # What is held may lack a column that was declared since.
        connection.register("declared", table.schema.empty_table())
        found = fetch(
            connection,
            f"WITH held AS (FROM declared UNION ALL BY NAME FROM read_parquet({paths!r}, union_by_name=true)), "
            f"news AS (SELECT * FROM batch ANTI JOIN held ON {same}), "
            f"newest AS (SELECT {key}, max(known_at) AS held_at FROM held GROUP BY ALL) "
            f"SELECT {quoted(number)} AS number, coalesce(known_at <= held_at, false) AS rewritten "
            f"FROM news LEFT JOIN newest USING ({key}) ORDER BY 1",
        )
    new = table.take(found["number"])
    rewritten = new.filter(found["rewritten"])
    if not rewritten.num_rows:
        return new, []
    first = ", ".join(str(rewritten[name][0].as_py()) for name in source.key)
    return new, [
        f"{rewritten.num_rows} row(s) differ from what is held and are not known later than that, the first for "
        f"{first}; expected a later known_at for a row that changed: stamp it with the time of the change"
    ]


def _archived(home: Path, source: str, partition: str, name: str, digest: str) -> Path:
    """Where a file is kept; under its digest too when another one of its name is there already."""
    target = kept_folder(home / "archive", source, partition) / name
    if shortened(name) != name or (target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() != digest):
        target = target.with_name(f"{digest[:12]}-{shortened(name)}")
    return target
