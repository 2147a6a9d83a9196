"""Columns declared stable: a jump against the last accepted days means that the sender changed something.

The profile of every accepted batch is kept beside it, with counts between edges that go on from day to day, so that a
change of shape shows as well as one of the mean. Edges are drawn again once they tell a batch's values apart half as
well as its own quantiles would, or when a person released a batch that had jumped; what came before them is no longer
compared with.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from ct_assets.core.drift import upstream_change
from ct_assets.core.profile import NumericColumn, Profile, bin_edges, profile
from ct_assets.lake.dataset import DataFile, Dataset
from ct_assets.lake.paths import read_replaced, write_atomically

if TYPE_CHECKING:
    from ct_assets.lake.contract import Source

HISTORY_DAYS = 14
"""How many earlier arrival days with rows a batch is compared with, however long ago they were."""

Edges = Mapping[str, Sequence[float]]


def surprises(dataset: Dataset, source: "Source", partition: str, table: pa.Table) -> list[str]:
    """Stable columns of a batch that moved overnight, such as by another unit, in words."""
    history = _history(dataset, source, partition)
    if history is None:
        return []
    batch = profile(_stable(source, table), _edges(history))
    changes = upstream_change(history, batch, list(source.stable))
    return [f"column {change.column}: {change.detail}" for change in changes]


def remember(
    dataset: Dataset, source: "Source", partition: str, digest: str, table: pa.Table, afresh: bool = False
) -> None:
    """Keep the profile of a batch that is about to be accepted.

    Args:
        dataset: Where its rows go.
        source: Says which columns are stable.
        partition: Its arrival day.
        digest: Of the batch.
        table: Its rows.
        afresh: Whether what comes next is to be compared with this batch and none before it.
    """
    frame = _stable(source, table)
    history, own = _history(dataset, source, partition), profile(frame, bin_edges(frame))
    kept = profile(frame, _edges(history)) if history is not None and not afresh else own
    coarse = any(_resolution(own, name) > 2 * _resolution(kept, name) for name in source.stable)
    content = (own if coarse else kept).to_json()
    write_atomically(_path(dataset, partition, digest), content.encode())


def _stable(source: "Source", table: pa.Table) -> pd.DataFrame:
    return table.select(list(source.stable)).to_pandas()


def _history(dataset: Dataset, source: "Source", partition: str) -> Profile | None:
    """The accepted days before a partition as one profile, as far back as their edges are the same."""
    newest: list[Profile] = []
    for file in _recent(dataset, source, partition):
        with suppress(FileNotFoundError):
            # The next day compares with nearly the same ones.
            found = read_replaced(_path(dataset, file.partition, file.digest), _parsed)
            if newest and _edges(found) != _edges(newest[0]):
                break
            newest.append(found)
    return Profile.merged(newest) if newest else None


def _recent(dataset: Dataset, source: "Source", partition: str) -> Iterator[DataFile]:
    """Files with rows of the last days before a partition, newest first."""
    last, first_day, reach = date.fromisoformat(partition[:10]), source.domain.first_day, HISTORY_DAYS
    while True:
        first = max(first_day, last - timedelta(days=min(reach, (last - date.min).days)))
        files = [f for f in dataset.files(first.isoformat(), partition) if f.rows and f.partition < partition]
        days = sorted({file.partition for file in files})[-HISTORY_DAYS:]
        if len(days) == HISTORY_DAYS or first <= first_day:
            break
        reach *= 2
    yield from (file for file in reversed(files) if file.partition >= days[0])


def _parsed(content: bytes) -> Profile:
    return Profile.from_json(content.decode())


def _edges(found: Profile) -> Edges:
    return {name: c.edges for name, c in found.columns.items() if isinstance(c, NumericColumn) and c.edges}


def _resolution(found: Profile, name: str) -> float:
    """How many bins of one size would tell as much: the exponential of the entropy of their counts."""
    column = found.columns[name]
    counts = np.array(column.counts if isinstance(column, NumericColumn) else (), dtype=float)
    shares = counts[counts > 0] / counts.sum() if counts.any() else np.ones(1)
    return float(np.exp(-np.sum(shares * np.log(shares))))


def _path(dataset: Dataset, partition: str, digest: str) -> Path:
    return dataset.root / partition / f"{digest[:32]}.profile.json"
