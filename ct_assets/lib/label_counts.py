"""How many labels the lines of a model have at a moment, and whether a training could do with them."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.core.inputs import MISSING_CATEGORY
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.strategies import Positions, choose
from ct_assets.core.tasks import task_of
from ct_assets.lake.dataset import DataFile
from ct_assets.lake.engine import quoted
from ct_assets.lake.examples import DAY, INSTANT, maturing, partition_of, scored_name
from ct_assets.lake.lake import Lake, Window
from ct_assets.lib.outcomes import CORRECTIONS, days_of_maturity, outcomes_name, read_outcomes

FOREVER = pd.Timestamp("2200-01-01", tz="UTC")


def unlabelled(lake: Lake, spec: ModelSpec, start: pd.Timestamp, end: pd.Timestamp, labelled: int) -> int:
    """How many of the scored events that matured from `start` to `end` (excluded) are not among the `labelled` ones."""
    name = scored_name(spec)
    window = days_of_maturity(start, partition_of(end - INSTANT), spec.label.reach)
    if not lake.has_rows(name, window):
        return 0
    sql = f'SELECT count(*) AS n FROM "{name}" WHERE {maturing(spec)} >= $start AND {maturing(spec)} < $end'
    return int(lake.query(sql, {name: window}, end, {"start": start, "end": end})["n"][0].as_py()) - labelled


def labels_known(lake: Lake, spec: ModelSpec, as_of: pd.Timestamp) -> int:
    """How many scored events had a known outcome by a moment, however often it changed.

    With a fixed delay a label counts from its arrival on. Where the want of one is a label too, or each event says when
    its own is known, what came early says nothing yet: only mature events count.
    """
    dataset = lake.dataset(outcomes_name(spec))
    parts, files = dataset.summaries("first", _first_rows, partition_of(as_of - INSTANT))
    early = 0
    for part in parts:
        if _after(part.summary["known_at"], as_of):
            files += part.files()
        else:
            early += part.summary["rows"]
    files = [f for f in files if f.name != CORRECTIONS]
    # Only a day that was scored late holds labels that became known later.
    late = [f for f in files if _after(f.max_time, as_of)]
    early += sum(f.rows for f in files) - sum(f.rows for f in late)
    moments = [pq.read_table(path, columns=["known_at"])["known_at"].to_pandas() for path in dataset.paths(late)]
    known = early + sum(int((known <= as_of).sum()) for known in moments)
    arrive_early = spec.label.matures_at is not None or (spec.label.delay is not None and spec.label.absent is not None)
    return known - len(read_outcomes(lake, spec, as_of, as_of)) if known and arrive_early else known


def _first_rows(files: Sequence[DataFile]) -> dict[str, Any]:
    """How many events the files count, and when the last of their labels became known."""
    first = [f for f in files if f.name != CORRECTIONS]
    return {
        "rows": sum(f.rows for f in first),
        "known_at": max((f.max_time for f in first if f.max_time), default=None),
    }


def _after(moment: str | None, as_of: pd.Timestamp) -> bool:
    return moment is not None and pd.Timestamp(moment) > as_of


def labels_of_lines(lake: Lake, spec: ModelSpec, as_of: pd.Timestamp) -> dict[Line, int]:
    """How many scored events of each line had a known outcome by a moment: of the model as a whole, and of each
    segment, the largest first.
    """
    segments = labels_by_segment(lake, spec, as_of) if spec.segment_by else {}
    counts = {Line(spec.name, segment): known for segment, known in segments.items()}
    return {Line(spec.name): labels_known(lake, spec, as_of), **counts}


def labels_by_segment(lake: Lake, spec: ModelSpec, as_of: pd.Timestamp) -> dict[str, int]:
    """How many scored events of each segment had a known outcome by a moment, the most first.

    Immature ones never count: a segment must not begin by the labels that come fast. A missing or empty value is no
    segment, nor is one that cannot have a model of its own.
    """
    name, key = outcomes_name(spec), spec.events.id_column
    what = "\n".join([quoted(str(spec.segment_by)), maturing(spec)])
    kind = f"segments-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
    dataset, found = lake.dataset(name), Counter[str]()
    parts, files = dataset.summaries(kind, partial(_rows_by_segment, lake, spec), partition_of(as_of - INSTANT))
    for part in parts:
        summary = part.summary
        if _after(summary["known_at"], as_of) or _after(summary["matures"], as_of - INSTANT):
            files += part.files()
        else:
            found.update(summary["rows"])
    first = [f for f in files if f.name != CORRECTIONS and f.rows]
    if first:
        # What corrects a label of another file is counted there.
        ids = pa.concat_tables([pq.read_table(path, columns=[key]) for path in dataset.paths(first)])
        which = f"{maturing(spec)} < $as_of AND {quoted(key)} IN (FROM first_ids)"
        sql = _by_segment(spec, f"count(DISTINCT {quoted(key)})", which)
        rows = lake.query(sql, {name: files}, as_of, {"as_of": as_of}, {"first_ids": ids})
        found.update(dict(zip(rows["segment"].to_pylist(), rows["n"].to_pylist(), strict=True)))
    largest = sorted(found.items(), key=lambda each: (-each[1], each[0]))
    return {segment: known for segment, known in largest if Line(spec.name, segment).may_begin}


def _rows_by_segment(lake: Lake, spec: ModelSpec, files: Sequence[DataFile]) -> dict[str, Any]:
    """How many events the files count of each segment, and when the last became known and matures."""
    first = [f for f in files if f.name != CORRECTIONS and f.rows]
    if not first:
        return {"rows": {}, "known_at": None, "matures": None}
    further = f", max(known_at) AS known_at, max({maturing(spec)}) AS matures"
    sql = _by_segment(spec, "count(*)", f"{maturing(spec)} IS NOT NULL", further)
    rows = lake.query(sql, {outcomes_name(spec): first}, FOREVER).to_pylist()
    return {
        "rows": {row["segment"]: row["n"] for row in rows},
        **{name: max(row[name] for row in rows).isoformat() if rows else None for name in ("known_at", "matures")},
    }


def _by_segment(spec: ModelSpec, count: str, which: str, further: str = "") -> str:
    # By position, as a model may have columns of any name.
    column = quoted(str(spec.segment_by))
    return f"""
SELECT {column} AS segment, {count} AS n {further} FROM "{outcomes_name(spec)}"
WHERE {which} AND {column} NOT IN ('{MISSING_CATEGORY}', '') GROUP BY {column}
"""


def untrainable(lake: Lake, spec: ModelSpec, line: Line, as_of: pd.Timestamp) -> str:
    """Why a training of a line as of a moment could not end in a judged model; empty if nothing stands in its way.

    It would have to learn from the mature examples, and be judged on the newest of them: there have to be some of both,
    and those that the strategy chooses of the first have to differ in their labels.
    """
    name, task = outcomes_name(spec), task_of(spec)
    of_segment = "" if line.segment is None else f"AND {quoted(str(spec.segment_by))} = $segment "
    sql = f"""
SELECT label, event_timestamp, {maturing(spec)} < $split AS to_learn FROM "{name}"
WHERE {maturing(spec)} < $as_of {of_segment}
QUALIFY row_number() OVER (PARTITION BY {quoted(spec.events.id_column)} ORDER BY known_at DESC) = 1
"""
    window, split = Window(None, partition_of(as_of - INSTANT)), as_of - spec.evaluation_days * DAY
    if not lake.has_rows(name, window):
        return "nothing that was scored has a label yet"
    asked = {"split": split, "as_of": as_of} | ({} if line.segment is None else {"segment": line.segment})
    found = lake.query(sql, {name: window}, as_of, asked).to_pandas()
    older = found[found["to_learn"]]
    if len(older) == len(found):
        return f"of the events that matured since {split.isoformat()} none has a label, to judge a challenger on"
    if older.empty:
        return f"all {len(found)} labels are of events that matured since {split.isoformat()}: to judge on"
    labels = older["label"].iloc[_learned_from(spec, older)]
    if labels.nunique() < task.fewest_values:
        return f"the {len(labels)} examples to learn from have one class only; expected {task.needs}"
    return ""


def _learned_from(spec: ModelSpec, examples: pd.DataFrame) -> Positions:
    """Which examples the strategy chooses by their moments; what it chooses by their inputs leaves no class out."""
    strategy = spec.strategy
    if strategy.continues:
        return np.arange(len(examples))
    by_time = strategy if strategy.sampling == "recent" else strategy.model_copy(update={"sampling": "all"})
    return choose(by_time, examples[[]], examples["label"], examples["event_timestamp"], spec.seed).rows
