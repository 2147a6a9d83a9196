"""Outcomes: what became of scored events, each with what was predicted, kept as it becomes known.

`<model>/performance` holds one row of each event that has a label, and a further one for each label that replaced it.
Of several, readers take the newest that was known at their moment.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.core.segments import SERVED_BY
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import task_of
from ct_assets.lake.dataset import DataFile
from ct_assets.lake.engine import quoted
from ct_assets.lake.examples import (
    DAY,
    INSTANT,
    MATURES,
    day_of,
    horizon_labels,
    kept_events,
    label_versions,
    maturing,
    maturity,
    newest_versions,
    scored_name,
)
from ct_assets.lake.frames import to_frame
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.releases import Releases
from ct_assets.lib.partitions import day_before, end_of, start_of

CORRECTIONS = "corrections"
"""Name of the files whose rows replace a label that is counted already."""


@dataclass(frozen=True)
class Outcomes:
    """What one day adds.

    Attributes:
        first: Events that have a label now, one row each.
        corrections: Labels that replace those of events that had one.
    """

    first: pa.Table
    corrections: pa.Table

    @classmethod
    def together(cls, parts: "Sequence[Outcomes]") -> "Outcomes":
        """What several partitions add."""
        first, corrections = ([getattr(part, name) for part in parts] for name in ("first", "corrections"))
        return cls(*(pa.concat_tables(tables, promote_options="permissive") for tables in (first, corrections)))


def outcomes_name(spec: ModelSpec) -> str:
    """The dataset of a model's outcomes."""
    return f"{spec.name}/performance"


def save_outcomes(lake: Lake, spec: ModelSpec, partition: str) -> Outcomes:
    """Join the labels of a day with what was predicted, and keep them as its partition."""
    outcomes, dataset = join_outcomes(lake, spec, partition), lake.dataset(outcomes_name(spec))
    dataset.write(partition, outcomes.first)
    if outcomes.corrections.num_rows:
        dataset.write(partition, outcomes.corrections, name=CORRECTIONS, append=True)
    return outcomes


def join_outcomes(lake: Lake, spec: ModelSpec, partition: str) -> Outcomes:
    """Labels that have become known and are not yet counted, each with what was predicted.

    Those are the labels of the day, and those of days around it that had nothing to be joined with: a day that could
    not be scored in its turn, as one of its sources came late, is made up for when it is, or by a day after. A label
    is replaced while a figure looks at its event. The cost depends on what arrived and on the windows of the spec, and
    not on the length of history; where events mature by themselves, DuckDB also looks at each file's statistics.

    Raises:
        ValueError: A label is none that the task knows.
    """
    id_column, start = spec.events.id_column, start_of(partition)
    since = start - _revised_days(spec) * DAY
    scored = _scored(lake, spec, since, partition)
    if spec.label.horizon is None:
        labels = _arrived(lake, spec, scored, partition)
    else:
        end = end_of(partition)
        cohorts = since - spec.label.horizon, end - spec.label.horizon
        labels = horizon_labels(lake, spec, *cohorts, end, kept_events(lake, spec, *cohorts))
    if spec.label.absent is not None:
        labels = _with_absent(spec, labels, scored, end_of(partition))
    if labels.empty:
        # Without events there is no SQL to tell the types from.
        labels = labels.astype({id_column: scored[id_column].dtype})
    # Before any is kept: what is wrong with a label is mended in its SQL, which kept ones would outlive.
    task_of(spec).stored(labels["label"])
    joined = labels.merge(scored, on=id_column)
    joined = joined.sort_values(["event_timestamp", id_column, "known_at"], ignore_index=True)
    counted = _counted(lake, spec, joined, partition)
    if spec.label.horizon is not None:
        joined, counted = _revised(spec, joined, counted, partition)
    new = _not_counted(id_column, joined, counted)
    first = ~(new[id_column].isin(counted.loc[counted["first"], id_column]) | new[id_column].duplicated())
    return Outcomes(_table(spec, new[first]), _table(spec, new[~first]))


def _revised_days(spec: ModelSpec) -> int:
    """How long after its maturity an event is looked at: while any figure does, and a day that was missed may come."""
    return math.ceil(max(spec.policy.performance_window_days, spec.drift_window_days, _healed_days(spec)))


def _healed_days(spec: ModelSpec) -> int:
    """For how many days an arrived label may wait for its event to be scored."""
    delay = spec.label.delay
    return spec.drift_window_days if delay is None else math.ceil(delay / DAY) + 1


def _last(spec: ModelSpec, partition: str) -> str:
    """The last day that may have counted an event which `partition` looks at."""
    return day_before(partition, -_revised_days(spec))


def days_of_maturity(start: pd.Timestamp, last: str, reach: timedelta | None) -> Window:
    """The days up to `last` on which lies what is at most `reach` older than a maturity from `start` on.

    Without a reach, those are the files that hold any such row.
    """
    if reach is None:
        return Window(None, last, start)
    return Window(min(day_of(start - reach), last), last)


def _scored(lake: Lake, spec: ModelSpec, since: pd.Timestamp, partition: str) -> pd.DataFrame:
    """Scored events that mature from `since` on; of one that was announced again, the last prediction."""
    own = [MATURES] if spec.label.reach is None else []
    segment = [] if spec.segment_by is None else [spec.segment_by, SERVED_BY]
    baseline = [] if spec.baseline.column is None else [spec.baseline.column]
    further = dict.fromkeys([*task_of(spec).columns, "model_version", *spec.slices, *baseline, *segment, *own])
    columns = ", ".join(map(quoted, [spec.events.id_column, "event_timestamp", *further]))
    name, window = scored_name(spec), days_of_maturity(since, partition, spec.label.reach)
    sql = f'SELECT {columns} FROM "{name}" WHERE {maturing(spec)} >= $since'
    rows = to_frame(lake.query(sql, {name: window}, end_of(partition), {"since": since}))
    return newest_versions(rows, spec.events.id_column)


def _arrived(lake: Lake, spec: ModelSpec, scored: pd.DataFrame, partition: str) -> pd.DataFrame:
    """The labels that arrived on the day and on those around it that may have had nothing to be joined with."""
    healed = _healed_days(spec)
    first = day_before(partition, healed)
    if spec.label.absent is not None and len(scored):
        # That there is none can only be said of all days since the event.
        first = min(first, day_of(scored["event_timestamp"].min()))
    later = lake.dataset(outcomes_name(spec)).files(partition, _last(spec, partition))
    return label_versions(lake, spec, end_of(max([partition, *(f.partition for f in later)])), first)


def _with_absent(spec: ModelSpec, labels: pd.DataFrame, scored: pd.DataFrame, end: pd.Timestamp) -> pd.DataFrame:
    """Add the label of the events that are mature and had none by then."""
    id_column = spec.events.id_column
    moments = scored[[id_column]].assign(known_at=maturity(spec, scored), label=spec.label.absent)
    mature = moments[moments["known_at"] < end]
    had = (
        labels.merge(mature[[id_column, "known_at"]], on=id_column, suffixes=("", "_mature")) if len(labels) else labels
    )
    in_time: Sequence[Any] = had.loc[had["known_at"] <= had["known_at_mature"], id_column].tolist() if len(had) else []
    absent = mature.loc[~mature[id_column].isin(in_time), labels.columns]
    return pd.concat([part for part in (labels, absent) if len(part)] or [absent], ignore_index=True)


def _counted(lake: Lake, spec: ModelSpec, joined: pd.DataFrame, partition: str) -> pd.DataFrame:
    """Outcomes of these events that other days hold: id, `label`, `known_at`, `day`, and whether it was the `first`."""
    id_column = spec.events.id_column
    dataset, files = lake.dataset(outcomes_name(spec)), list[DataFile]()
    if len(joined):
        # An outcome is counted once its event is scored and its label known: no earlier than the first of the two.
        earliest = joined[["event_timestamp", "known_at"]].min().min()
        files = dataset.files(day_of(earliest), _last(spec, partition))
    files = [file for file in files if file.partition != partition and file.rows]
    columns = [id_column, "label", "known_at"]
    if not files:
        return joined[columns].head(0).assign(day="", first=False)
    # Turned into pandas together: one by one, small files take longer to turn than to read.
    tables = [pq.read_table(path, columns=columns) for path in dataset.paths(files)]
    counted = to_frame(pa.concat_tables(tables, promote_options="permissive"))
    rows = [file.rows for file in files]
    counted["day"] = np.repeat(np.array([file.partition for file in files], dtype=object), rows)
    counted["first"] = np.repeat([file.name != CORRECTIONS for file in files], rows)
    return counted[counted[id_column].isin(joined[id_column])]


def _revised(
    spec: ModelSpec, joined: pd.DataFrame, counted: pd.DataFrame, partition: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels of horizons that have been computed before, from what was known then.

    That rows came late shows only in the label that is computed from them, so it is known by the end of the day. What
    a later day has counted was computed with more knowledge than this one's.
    """
    id_column = spec.events.id_column
    earlier, later = counted[counted["day"] < partition], counted[counted["day"] > partition]
    joined = joined[~joined[id_column].isin(later.loc[later["first"], id_column])]
    moment = (end_of(partition) - INSTANT).as_unit("us")
    known_at = joined["known_at"].where(~joined[id_column].isin(earlier[id_column]), moment)
    return joined.assign(known_at=known_at), earlier


def _not_counted(id_column: str, joined: pd.DataFrame, counted: pd.DataFrame) -> pd.DataFrame:
    """The rows of `joined` whose label no other row says already, or that differ from the one before."""
    if counted.empty and not joined[id_column].duplicated().any():
        return joined
    columns = [id_column, "label", "known_at"]
    both = pd.concat([counted[columns].assign(row=-1), joined[columns].assign(row=joined.index)])
    both = both.sort_values([id_column, "known_at", "row"], ignore_index=True)
    same_moment = both.duplicated([id_column, "known_at"])
    changed = both["label"] != both.groupby(id_column, sort=False)["label"].shift()
    return joined.loc[both.loc[(both["row"] >= 0) & changed & ~same_moment, "row"].sort_values()]


def _table(spec: ModelSpec, frame: pd.DataFrame) -> pa.Table:
    """As it is stored; a day without rows, or without a champion, has no values to tell the types from."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    moment = pa.timestamp("us", tz="UTC")
    types = {"known_at": moment, "event_timestamp": moment, MATURES: moment}
    segment = [] if spec.segment_by is None else [spec.segment_by, SERVED_BY]
    types |= dict.fromkeys(["model_version", *segment, *task_of(spec).text_columns], pa.string())
    for name in types.keys() & set(table.column_names):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(types[name]))
    return table


def read_outcomes(lake: Lake, spec: ModelSpec, as_of: pd.Timestamp, start: pd.Timestamp) -> pd.DataFrame:
    """Outcomes known at `as_of` of the events that mature from `start` on, those that are not mature yet included.

    Args:
        lake: Where they are.
        spec: The model.
        as_of: Labels that became known later are not seen.
        start: First moment of maturity.

    Returns:
        The newest row of each event, ordered by time and id, with `versions`, the number of labels it has had.
    """
    name, key = outcomes_name(spec), quoted(spec.events.id_column)
    # The labels of a horizon are written when it has passed, others as soon as they arrive.
    reach = timedelta(0) if spec.label.horizon is not None else spec.label.delay
    window = days_of_maturity(start, day_of(as_of - INSTANT), reach)
    sql = f"""
SELECT *, count(*) OVER (PARTITION BY {key}) AS versions FROM "{name}" WHERE {maturing(spec)} >= $start
QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY known_at DESC) = 1 ORDER BY event_timestamp, {key}
"""
    return to_frame(lake.query(sql, {name: window}, as_of, {"start": start}))


def recent_outcomes(lake: Lake, lines: Sequence[Releases], spec: ModelSpec, as_of: pd.Timestamp) -> pd.DataFrame | None:
    """The outcomes that a day's figures are made of: of the events of the longest window, and of immature ones.

    None while none of the lines has a champion to measure.
    """
    if not any(each.champion_at(as_of - INSTANT) for each in lines):
        return None
    days = max(spec.policy.performance_window_days, spec.drift_window_days)
    return read_outcomes(lake, spec, as_of, as_of - days * DAY)
