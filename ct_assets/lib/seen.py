"""What models have learned from, and the rows of which they know nothing: only on these are they compared."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ct_assets.core.ledger import VERDICT, Record
from ct_assets.core.spec import ModelSpec
from ct_assets.lake.evaluation_window import Growth
from ct_assets.lake.examples import INSTANT, MATURES
from ct_assets.lake.holds import held_release
from ct_assets.lake.lake import Lake
from ct_assets.lake.releases import Release, Releases
from ct_assets.lake.training_set import TrainingSet, load_training_set, read_examples
from ct_assets.lib.lineage import Lineage, lineage_of, may_be_promoted, training_of


@dataclass(frozen=True)
class Seen:
    """What was learned from in one training.

    Attributes:
        ids: Ids of the examples.
        until: The last of the times at which they matured: up to it, their labels say something of everything that
            happened. None if there were no examples.
    """

    ids: pd.Index
    until: pd.Timestamp | None

    def unseen(self, rows: pd.DataFrame, id_column: str) -> "pd.Series[bool]":
        """Which rows are none of the examples, and were predicted after the time of their labels."""
        new = ~rows[id_column].isin(self.ids)
        return new if self.until is None else new & (rows["event_timestamp"] >= self.until)


@dataclass(frozen=True)
class Lesson:
    """One training that a model has learned in.

    Attributes:
        training_set: Its digest.
        as_of: Nothing later was known to it; ISO 8601 in UTC.
        lineage: Where it came from, with what it kept back.
    """

    training_set: str
    as_of: str
    lineage: Lineage

    def seen(self, lake: Lake, spec: ModelSpec) -> Seen:
        """What was learned from in it: the rows of its training set, if that is still there."""
        id_column = spec.events.id_column
        try:
            snapshot = load_training_set(lake, self.training_set)
            matures = MATURES if snapshot.blocks else "event_timestamp"
            rows = read_examples(lake, snapshot, "train", list(dict.fromkeys([id_column, "event_timestamp", matures])))
        except FileNotFoundError:
            # Of a training set that is lost nobody knows the rows: it may have had all that was known then.
            return Seen(pd.Index([]), pd.Timestamp(self.as_of))
        rows = self.lineage.for_training(spec, rows)
        return Seen(pd.Index(rows[id_column]), rows[matures].max() if len(rows) else None)


def lessons_of(releases: Releases, version: str, training_set: str, as_of: str) -> Iterator[Lesson]:
    """The training of a version, and those of the versions that it went on from.

    Args:
        releases: Those of the version's line.
        version: Version in the model registry.
        training_set: Digest of its training set.
        as_of: What it was trained as of.
    """
    lineage = lineage_of(releases, version)
    yield Lesson(training_set, as_of, lineage)
    if (before := lineage.started_from) is not None:
        record = training_of(releases, before["version"])
        # Whatever was known to that one was known to this one.
        earlier = as_of if record is None else str(record["as_of"])
        yield from lessons_of(releases, before["version"], before["training_set"], earlier)


def unseen(
    lake: Lake,
    releases: Releases,
    spec: ModelSpec,
    version: str,
    snapshot: TrainingSet,
    compared: Iterable[Release],
    rows: pd.DataFrame,
) -> pd.DataFrame:
    """The rows of which neither a version nor any release that it is compared with knows anything.

    What counts is what they have really learned from, and the time of its labels, whatever a spec says today: a release
    may have been trained for a shorter evaluation, as an experiment, before a rollback, on all segments, or in several
    trainings that went on from each other.

    Args:
        lake: Where the training sets are.
        releases: Those of the version's line.
        spec: The model.
        version: What is judged.
        snapshot: Its training set.
        compared: What it is compared with.
        rows: With the id and `event_timestamp`.
    """
    lessons = [*lessons_of(releases, version, snapshot.digest, snapshot.as_of)]
    lessons += [lesson for each in compared for lesson in _lessons_of_release(releases, each)]
    kept = np.ones(len(rows), dtype=bool)
    for lesson in _different(lessons):
        kept &= lesson.seen(lake, spec).unseen(rows, spec.events.id_column).to_numpy(dtype=bool)
    return rows[kept].reset_index(drop=True)


def not_learned(
    lake: Lake, releases: Releases, spec: ModelSpec, compared: Iterable[Release], rows: pd.DataFrame
) -> pd.DataFrame:
    """The rows that are no examples of any of the releases, whenever they were predicted."""
    lessons = _different(lesson for each in compared for lesson in _lessons_of_release(releases, each))
    known = [lesson.seen(lake, spec).ids for lesson in lessons]
    return rows[~np.any([rows[spec.events.id_column].isin(ids) for ids in known], axis=0)] if known else rows


def growth_of(lake: Lake, releases: Releases, spec: ModelSpec, as_of: pd.Timestamp) -> Growth | None:
    """How the evaluation window of a training may grow; None while every verdict was one.

    By what was decided before the training's time only, so that one that is made again comes out the same.

    Args:
        lake: Where the training sets are.
        releases: Those of the line.
        spec: The model.
        as_of: What the training is as of.
    """
    if not any(_was_too_short(releases, record) for record in _verdicts_before(releases, as_of)):
        return None
    before = as_of - INSTANT
    pooled = releases.pooled
    serves = releases.champion_at(before) or (pooled.champion_at(before) if pooled else None)
    rolled_back = held_release(releases, spec.gate, before)
    known = [
        until
        for release in (serves, rolled_back)
        if release is not None
        for lesson in _lessons_of_release(releases, release)
        if (until := lesson.seen(lake, spec).until) is not None
    ]
    return Growth(max(known, default=None))


def _verdicts_before(releases: Releases, as_of: pd.Timestamp) -> Iterator[Record]:
    found = releases.ledger.records(VERDICT, releases.model)
    return (record for record in found if pd.Timestamp(record.as_of) < as_of)


def _was_too_short(releases: Releases, record: Record) -> bool:
    """Whether there was too little to judge by; an experiment as of an earlier time says nothing of today's days."""
    return record.evidence.get("outcome") == "inconclusive" and may_be_promoted(releases, record.evidence["version"])


def _lessons_of_release(releases: Releases, release: Release) -> Iterator[Lesson]:
    """Those of a release of the line, or of the pooled model that a segment may be compared with."""
    pooled = releases.pooled
    own = pooled if pooled is not None and release.model == pooled.model else releases
    return lessons_of(own, release.version, release.training_set, release.as_of)


def _different(lessons: Iterable[Lesson]) -> Iterable[Lesson]:
    """Models of one lineage have most of their trainings in common."""
    return {(lesson.training_set, lesson.lineage.reference): lesson for lesson in lessons}.values()
