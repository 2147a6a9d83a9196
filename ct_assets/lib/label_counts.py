"""How many labels the lines of a model have at a moment, and whether a training could do with them."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from ct_assets.core.inputs import MISSING_CATEGORY
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.strategies import Positions, choose
from ct_assets.core.tasks import task_of
from ct_assets.lake.engine import quoted
from ct_assets.lake.examples import DAY, INSTANT, maturing, partition_of, scored_name
from ct_assets.lake.lake import Lake, Window
from ct_assets.lib.outcomes import CORRECTIONS, days_of_maturity, outcomes_name, read_outcomes


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
    files = [f for f in dataset.files(last=partition_of(as_of - INSTANT)) if f.name != CORRECTIONS]
    # Only a day that was scored late holds labels that became known later.
    late = [f for f in files if f.max_time and pd.Timestamp(f.max_time) > as_of]
    early = sum(f.rows for f in files) - sum(f.rows for f in late)
    moments = [pq.read_table(path, columns=["known_at"])["known_at"].to_pandas() for path in dataset.paths(late)]
    known = early + sum(int((known <= as_of).sum()) for known in moments)
    arrive_early = spec.label.matures_at is not None or (spec.label.delay is not None and spec.label.absent is not None)
    return known - len(read_outcomes(lake, spec, as_of, as_of)) if known and arrive_early else known


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
    name, column = outcomes_name(spec), quoted(str(spec.segment_by))
    # By position, as a model may have columns of any name.
    sql = f"""
SELECT {column} AS segment, count(DISTINCT {quoted(spec.events.id_column)}) AS n FROM "{name}"
WHERE {maturing(spec)} < $as_of AND {column} NOT IN ('{MISSING_CATEGORY}', '') GROUP BY {column} ORDER BY 2 DESC, 1
"""
    window = Window(None, partition_of(as_of - INSTANT))
    if not lake.has_rows(name, window):
        return {}
    found = lake.query(sql, {name: window}, as_of, {"as_of": as_of})
    counts = zip(found["segment"].to_pylist(), found["n"].to_pylist(), strict=True)
    return {segment: known for segment, known in counts if Line(spec.name, segment).may_begin}


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
