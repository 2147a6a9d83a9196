"""Checks on made-up rows: that none claims to be known before it was, cut at one moment after the other, and that each
tells one label.

What a query yields as known by a moment may not change when the rows that became known later are taken away. That is
what "known" means, so whatever differs has looked into the future.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ct_assets.lake.contract import Source
from ct_assets.lake.engine import fetch
from ct_assets.lib.diagnosis.finding import CannotTellError, Finding
from ct_assets.lib.diagnosis.model import Examined
from ct_assets.lib.diagnosis.tables import MOMENT, SPAN, made_up, tables

TIME, EVENTS_AHEAD, ONE_EACH = "time travel", "events look ahead", "one label each"
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
    if label.horizon is not None:
        found = _past_the_horizon(model)
        looked += found is not None
        if found:
            remedy = "bound the rows by `horizon_ends`, such as AND known_at < horizon_ends"
            yield Finding("error", TIME, model.at("label.sql"), found, "labels made of rows within the horizon", remedy)
    elif label.source in model.sources:
        found = _too_early(model.sources[label.source], label.sql, "known_at", {})
        looked += found is not None
        if found:
            remedy = "derive `known_at` from that of the row that told the label"
            yield Finding("error", TIME, model.at("label.sql"), found, "labels known at their `known_at`", remedy)
    if not looked:
        raise CannotTellError("no query lets a made-up row through")


def events_do_not_look_ahead(model: Examined) -> Iterator[Finding]:
    """The columns of an event are what was known at its `event_timestamp`, whatever became known later."""
    events = model.spec.events
    if events.source not in model.sources:
        raise CannotTellError("its source is not there")
    source, names = model.sources[events.source], [events.id_column, "event_timestamp"]
    rows = made_up(source, events.sql)
    if "known_at" not in rows.column_names or rows.schema.field("known_at").type != MOMENT:
        raise CannotTellError("its source has no known_at")
    looked = 0
    try:
        whole = _rows(source, rows, events.sql, {})
        for cut in CUTS:
            moment = rows["known_at"][int(cut * rows.num_rows)]
            past = rows.filter(pc.less_equal(rows["known_at"], moment))
            # Of the same events: one that is announced after its moment is another check's.
            then, later = (_by_event(part, names, moment) for part in (_rows(source, past, events.sql, {}), whole))
            both = then.keys() & later.keys()
            looked += len(both)
            if differing := sorted((event for event in both if then[event] != later[event]), key=str):
                example = dict(zip(names, differing[0], strict=True))
                yield Finding(
                    "warning",
                    EVENTS_AHEAD,
                    model.at("events.sql"),
                    f"columns of {len(differing)} of {len(both)} made-up events known by "
                    f"{moment.as_py():%Y-%m-%d %H:%M} change by rows that became known later, such as of "
                    f"{_shown(example)}",
                    "columns that are made of the event's own row, or of earlier ones",
                    "the platform runs the SQL at each event's moment, in training as in scoring, so these columns are "
                    "not what this query shows: bound the rows by known_at, such as by RANGE BETWEEN UNBOUNDED "
                    "PRECEDING AND CURRENT ROW",
                )
                return
    except (duckdb.Error, pa.ArrowException, KeyError):
        raise CannotTellError("the events' SQL does not fit") from None
    if not looked:
        raise CannotTellError("no query lets a made-up row through")


def _by_event(rows: pa.Table, names: list[str], moment: pa.Scalar) -> dict[tuple[Any, ...], set[tuple[Any, ...]]]:
    """The rows of each event whose moment has come, by id and moment."""
    frame = rows.filter(pc.less_equal(rows["event_timestamp"], moment)).to_pandas()
    found: dict[tuple[Any, ...], set[tuple[Any, ...]]] = {}
    for row in frame.to_dict("records"):
        values = tuple(None if pd.isna(value) else value for value in row.values())
        found.setdefault((row[names[0]], row[names[1]]), set()).add(values)
    return found


def labels_are_one_each(model: Examined) -> Iterator[Finding]:
    """Of one row, the labels' SQL makes one label: of two that became known at once, none is the newer."""
    label, id_column = model.spec.label, model.spec.events.id_column
    if label.horizon is not None or label.source not in model.sources:
        raise CannotTellError("each event of a horizon has one")
    source = model.sources[label.source]
    try:
        # No two made-up rows have the same moment.
        found = _rows(source, made_up(source, label.sql), label.sql, {}).to_pandas()
        labels = found.groupby([id_column, "known_at"])["label"].nunique()
    except (duckdb.Error, KeyError):
        raise CannotTellError("the labels' SQL does not fit") from None
    if not len(labels):
        raise CannotTellError("no query lets a made-up row through")
    if several := int((labels > 1).sum()):
        yield Finding(
            "error",
            ONE_EACH,
            model.at("label.sql"),
            f"{several} of {len(labels)} made-up events get several labels at one moment",
            "one label of each event, and later ones as corrections",
            f"join what tells the label by a key, or group by {id_column}",
        )


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


def _past_the_horizon(model: Examined) -> str | None:
    """What a label of a horizon knows from after it, in words; empty when nothing, None when that cannot be told."""
    events, label = model.spec.events, model.spec.label
    if not {events.source, label.source} <= model.sources.keys():
        return None
    source, about = model.sources[label.source], model.sources[events.source]
    try:
        asked = _rows(about, made_up(about, events.sql), f"SELECT * FROM ({events.sql})", {})
        rows = made_up(source, label.sql, among=asked)
        # What is known as it happens: by whichever of its moments a row is bounded, all come after the horizon.
        for index, field in enumerate(rows.schema):
            if field.type == MOMENT:
                rows = rows.set_column(index, field, rows["known_at"])
        # Short, so that it passes within the made-up days, and for some events without a row.
        asked = asked.append_column("horizon_ends", pc.add(asked["event_timestamp"], pa.scalar(timedelta(hours=6))))
        for cut in CUTS:
            moment = rows["known_at"][int(cut * rows.num_rows)]
            due = asked.filter(pc.less_equal(asked["horizon_ends"], moment))
            with_all, within = (
                Counter(zip(*_rows(source, part, label.sql, {}, due).to_pydict().values(), strict=True))
                for part in (rows, rows.filter(pc.less(rows["known_at"], moment)))
            )
            if differing := +(with_all - within):
                return f"{sum(differing.values())} label(s) of made-up events change by rows from after `horizon_ends`"
    except (duckdb.Error, KeyError):
        return None
    return ""


def _rows(
    source: Source, rows: pa.Table, sql: str, parameters: Mapping[str, Any], events: pa.Table | None = None
) -> pa.Table:
    with tables({source.name: rows} | ({} if events is None else {"events": events})) as connection:
        return fetch(connection, sql, parameters)


def _known_by(rows: pa.Table, known: str, moment: pa.Scalar) -> Counter[tuple[Any, ...]]:
    frame = rows.filter(pc.less_equal(rows[known], moment)).to_pandas()
    return Counter(tuple(None if pd.isna(v) else v for v in row) for row in frame.itertuples(index=False, name=None))


def _shown(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.items())
