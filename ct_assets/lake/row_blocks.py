"""Rows of snapshots: one immutable file a week of events, named by its content, so that snapshots share equal ones."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ct_assets.lake.dataset import to_parquet
from ct_assets.lake.paths import write_atomically

WEEK = pd.Timedelta(days=7)
Bound = tuple[str, str, pd.Timestamp]
"""Column, comparison and moment, as Parquet filters have them."""


def write_blocks(folder: Path, rows: pa.Table) -> list[str]:
    """Keep rows.

    Args:
        folder: Where blocks are.
        rows: Ordered by `event_timestamp`.

    Returns:
        Digests of the blocks, in the order of their rows.
    """
    digests = []
    for block in _weeks(rows):
        payload = to_parquet(block)
        digest = hashlib.sha256(payload).hexdigest()
        path = folder / f"{digest}.parquet"
        # One that is there is the same, unless somebody changed it.
        if not _is_whole(path, digest):
            write_atomically(path, payload)
        digests.append(digest)
    return digests


def read_blocks(
    files: Mapping[Path, str], bounds: Sequence[Bound], columns: Sequence[str] | None, whose: str
) -> pa.Table:
    """Rows of some blocks, in their order.

    Args:
        files: The blocks, with the digest of each.
        bounds: Which of their rows.
        columns: Which of their columns; all when None.
        whose: Names the snapshot in an error message.

    Raises:
        ValueError: A block does not have its digest.
    """
    return pa.concat_tables([_read(path, digest, bounds, columns, whose) for path, digest in files.items()])


def _read(path: Path, digest: str, bounds: Sequence[Bound], columns: Sequence[str] | None, whose: str) -> pa.Table:
    payload = path.read_bytes()
    if hashlib.sha256(payload).hexdigest() != digest:
        raise ValueError(f"{path} was changed: its rows are not those of training set {whose}; train again")
    return pq.read_table(pa.BufferReader(payload), columns=columns and list(columns), filters=list(bounds))


def _weeks(rows: pa.Table) -> Iterator[pa.Table]:
    """The rows of each week since 1970; one part without rows when there are none."""
    micros = pc.cast(pc.cast(rows["event_timestamp"], pa.timestamp("us", "UTC")), pa.int64()).to_numpy()
    weeks = micros // int(WEEK / pd.Timedelta(1, "us"))
    starts = [0, *(np.flatnonzero(np.diff(weeks)) + 1), len(rows)]
    for start, end in pairwise(starts):
        yield rows.slice(start, end - start)


def _is_whole(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except FileNotFoundError:
        return False
