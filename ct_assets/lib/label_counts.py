"""How many labels the lines of a model have at a moment, and whether a training could do with them."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.core.division import divide
from ct_assets.core.inputs import MISSING_CATEGORY
from ct_assets.core.label_gaps import LabelGaps
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.strategies import reachable
from ct_assets.core.tasks import task_of
from ct_assets.lake.dataset import DataFile
from ct_assets.lake.engine import quoted
from ct_assets.lake.evaluation_window import Growth, division_of, evaluation_window, label_problem
from ct_assets.lake.examples import INSTANT, MATURES, day_of, maturing, scored_name
from ct_assets.lake.frames import to_frame
from ct_assets.lake.lake import Lake, Window
from ct_assets.lib.outcomes import CORRECTIONS, days_of_maturity, outcomes_name, read_outcomes

FOREVER = pd.Timestamp("2200-01-01", tz="UTC")


def recent_gaps(lake: Lake, spec: ModelSpec, as_of: pd.Timestamp) -> LabelGaps:
    """How the labels came of the scored events that matured within the window that performance is measured over.

    Args:
        lake: Where events and outcomes are.
        spec: The model.
        as_of: End of the window; what became known later is not seen.
    """
    start, scored = as_of - pd.Timedelta(days=spec.policy.performance_window_days), scored_name(spec)
    window = _matured_since(spec, start, as_of)
    if lake.has_rows(outcomes_name(spec), window):
        return LabelGaps.of(_mature_labels(lake, spec, Line(spec.name), as_of, start))
    if not lake.has_rows(scored, window):
        return LabelGaps(0, 0, 0, None)
    which = f"{maturing(spec)} >= $start AND {maturing(spec)} < $end"
    sql = f'SELECT count(DISTINCT {quoted(spec.events.id_column)}) AS n FROM "{scored}" WHERE {which}'
    events = int(lake.query(sql, {scored: window}, as_of, {"start": start, "end": as_of})["n"][0].as_py())
    return LabelGaps(events, events, 0, None)


def labels_known(lake: Lake, spec: ModelSpec, as_of: pd.Timestamp) -> int:
    """How many scored events had a known outcome by a moment, however often it changed.

    With a fixed delay a label counts from its arrival on. Where the want of one is a label too, or each event says when
    its own is known, what came early says nothing yet: only mature events count.
    """
    dataset = lake.dataset(outcomes_name(spec))
    parts, files = dataset.summaries("first", _first_rows, day_of(as_of - INSTANT))
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
    parts, files = dataset.summaries(kind, partial(_rows_by_segment, lake, spec), day_of(as_of - INSTANT))
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


def untrainable(lake: Lake, spec: ModelSpec, line: Line, as_of: pd.Timestamp, growth: Growth | None = None) -> str:
    """Why a training of a line as of a moment could not end in a judged model; empty if nothing stands in its way.

    It would have to learn from the mature examples, and be judged on the newest of them: there have to be some of both,
    with labels that came in time, and those that the strategy chooses of the first have to differ in their labels.

    Args:
        lake: Where outcomes are.
        spec: The model.
        line: It, or one of its segments.
        as_of: The moment.
        growth: How the evaluation window may grow.
    """
    window = Window(None, day_of(as_of - INSTANT))
    if not lake.has_rows(outcomes_name(spec), window):
        return "nothing that was scored has a label yet"
    told = _mature_labels(lake, spec, line, as_of)
    labelled = told.dropna(subset="label").reset_index(drop=True)
    judged = evaluation_window(spec, labelled, as_of, growth)
    split_by, split_at = division_of(spec, as_of, judged.days)
    by_maturity = split_by == MATURES
    division = divide(labelled["event_timestamp"], labelled["matures"], split_at, by_maturity)
    since = f"events that {'matured' if by_maturity else 'were predicted'} since {split_at.isoformat()}"
    if not division.holdout.any():
        return f"of the {since} none has a label, to judge a challenger on"
    if problem := label_problem(spec, told, split_by, split_at) or judged.shortage:
        return problem
    older = labelled[division.train]
    if older.empty:
        return (
            f"none of the {len(labelled)} labelled events was mature at {division.starts.isoformat()}, the first "
            f"prediction to judge on: {division.holdout.sum()} are {since}, and {division.embargoed} matured later"
        )
    labels = older["label"].iloc[reachable(spec.strategy, older["event_timestamp"])]
    if labels.nunique() < (task := task_of(spec)).fewest_values:
        return f"the {len(labels)} examples to learn from have one class only; expected {task.needs}"
    return ""


def _matured_since(spec: ModelSpec, start: pd.Timestamp | None, as_of: pd.Timestamp) -> Window:
    last = day_of(as_of - INSTANT)
    return Window(None, last) if start is None else days_of_maturity(start, last, spec.label.reach)


def _mature_labels(
    lake: Lake, spec: ModelSpec, line: Line, as_of: pd.Timestamp, start: pd.Timestamp | None = None
) -> pd.DataFrame:
    """Every mature event of a line: `event_timestamp`, `matures`, its `label`, and `came`, when the first one did.

    Those that matured from `start` on only, if it is given.
    """
    scored, outcomes, key = scored_name(spec), outcomes_name(spec), quoted(spec.events.id_column)
    asked: dict[str, object] = {"as_of": as_of}
    which, news, came = f"{maturing(spec)} < $as_of", "", "min(known_at)"
    if start is not None:
        which, asked["start"] = f"{which} AND {maturing(spec)} >= $start", start
    if line.segment is not None:
        which, asked["segment"] = f"{which} AND {quoted(str(spec.segment_by))} = $segment", line.segment
    if spec.label.horizon is not None:
        # What corrects the label of a horizon is known later, and of the same time.
        came = f"min({maturing(spec)})"
    if spec.label.absent is not None:
        news, asked["absent"] = "FILTER (WHERE label IS DISTINCT FROM $absent)", spec.label.absent
    window = _matured_since(spec, start, as_of)
    windows = {name: window for name in (scored, outcomes) if lake.has_rows(name, window)}
    sql = f"""
WITH labelled AS (
  SELECT {key}, event_timestamp, {maturing(spec)} AS matures, label, {came} {news} OVER (PARTITION BY {key}) AS came
  FROM "{outcomes}" WHERE {which} QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY known_at DESC) = 1
)
SELECT event_timestamp, matures, label, came FROM labelled
"""
    if scored in windows:
        sql += f"""
UNION ALL SELECT event_timestamp, matures, NULL, NULL FROM (
  SELECT {key}, event_timestamp, {maturing(spec)} AS matures FROM "{scored}" WHERE {which}
  QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY event_timestamp DESC) = 1
) ANTI JOIN labelled USING ({key})
"""
    return to_frame(lake.query(f"{sql} ORDER BY 1", windows, as_of, asked))
