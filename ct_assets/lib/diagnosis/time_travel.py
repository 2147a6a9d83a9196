"""Checks that no row claims to be known before it was: on made-up rows, cut at one moment after the other.

What a query yields as known by a moment may not change when the rows that became known later are taken away. That is
what "known" means, so whatever differs has looked into the future.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ct_assets.lake.contract import Source
from ct_assets.lake.engine import fetch
from ct_assets.lake.lake import Lake
from ct_assets.lib.diagnosis.finding import CannotTellError, Finding
from ct_assets.lib.diagnosis.model import Examined
from ct_assets.lib.diagnosis.tables import MOMENT, SPAN, made_up, tables

TIME, LATER = "time travel", "rows ahead of time"
CUTS = (0.2, 0.4, 0.6, 0.8)


def nothing_is_known_too_early(model: Examined) -> Iterator[Finding]:
    """Features and labels are made of nothing that became known after they say."""
    looked = 0
    for view, how, features in model.views():
        found = _too_early(features.source, how.sql, "created", SPAN)
        looked += found is not None
        if found:
            remedy = "derive `created` from the known_at of the newest row that the value is made of"
            yield Finding("error", TIME, f"FeatureSql {view!r}", found, "what was known at `created`", remedy)
    label = model.spec.label
    # Labels of a horizon are known when it has passed, whatever the SQL says.
    if label.horizon is None and label.source in model.sources:
        found = _too_early(model.sources[label.source], label.sql, "known_at", {})
        looked += found is not None
        if found:
            remedy = "derive `known_at` from that of the row that told the label"
            yield Finding("error", TIME, model.at("label.sql"), found, "labels known at their `known_at`", remedy)
    if not looked:
        raise CannotTellError("no query lets a made-up row through")


def rows_wait_for_their_moment(model: Examined) -> Iterator[Finding]:
    """Rows that have arrived lie at a moment that had come when they became known; others are not found until then."""
    if model.home is None:
        raise CannotTellError("rows are not looked at here")
    lake, looked = Lake(model.home), 0
    for view, _, _ in model.views():
        dataset = lake.dataset(f"features/{view}", "event_timestamp")
        for path in dataset.paths(dataset.files()[-1:]):
            rows = pq.read_table(path, columns=["event_timestamp", "created"])
            ahead = pc.sum(pc.greater(rows["event_timestamp"], rows["created"])).as_py() or 0
            looked += rows.num_rows
            if ahead:
                yield Finding(
                    "warning",
                    LATER,
                    f"view {view!r}",
                    f"{ahead} of the newest {rows.num_rows} rows have an event_timestamp after `created`",
                    "the moment from which the value holds",
                    "predictions before that moment do not find them; use known_at if they should",
                )
    if not looked:
        raise CannotTellError("no feature row has arrived yet")


def _too_early(source: Source, sql: str, known: str, parameters: Mapping[str, Any]) -> str | None:
    """What a query knows before it can, in words; empty when nothing, None when that cannot be told."""
    rows = made_up(source, sql)
    if "known_at" not in rows.column_names or rows.schema.field("known_at").type != MOMENT:
        return None
    try:
        whole = _rows(source, rows, sql, parameters)
        if whole.num_rows == 0 or known not in whole.column_names or whole.schema.field(known).type != MOMENT:
            return None
        if whole[known].null_count:
            return f"{whole[known].null_count} of {whole.num_rows} made-up rows have no `{known}`"
        for cut in CUTS:
            moment = rows["known_at"][int(cut * rows.num_rows)]
            past = rows.filter(pc.less_equal(rows["known_at"], moment))
            claimed = _known_by(whole, known, moment)
            claimed.subtract(_known_by(_rows(source, past, sql, parameters), known, moment))
            if differing := +claimed:
                example = dict(zip(whole.column_names, next(iter(differing)), strict=True))
                return (
                    f"{sum(differing.values())} made-up row(s) are said to be known by {moment.as_py():%Y-%m-%d %H:%M} "
                    f"and need rows that became known later, such as {_shown(example)}"
                )
    except duckdb.Error:
        # A query that does not fit its source is another check's.
        return None
    return ""


def _rows(source: Source, rows: pa.Table, sql: str, parameters: Mapping[str, Any]) -> pa.Table:
    with tables({source.name: rows}) as connection:
        return fetch(connection, sql, parameters)


def _known_by(rows: pa.Table, known: str, moment: pa.Scalar) -> Counter[tuple[Any, ...]]:
    frame = rows.filter(pc.less_equal(rows[known], moment)).to_pandas()
    return Counter(tuple(None if pd.isna(v) else v for v in row) for row in frame.itertuples(index=False, name=None))


def _shown(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.items())
