"""How many labelled events a model gets: measured on what has arrived, or on a file before it lands."""

from contextlib import suppress

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ct_assets.core.spec import ModelSpec
from ct_assets.core.volume import Volume
from ct_assets.lake.contract import Domain
from ct_assets.lake.engine import cursor, fetch, quoted
from ct_assets.lake.examples import has_events, read_events, scored_name
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.periods import day_before, end_of, start_of
from ct_assets.lib.outcomes import outcomes_name

DAYS = 90
"""Newest days that are counted: enough for predictions that are due monthly."""
UNSCORED_DAYS = 28
"""The same of events that nobody has scored yet, which have to be computed."""


def volume_of(lake: Lake, spec: ModelSpec, domain: Domain | None) -> Volume | None:
    """How many labelled events a day a model gets, by what has arrived; None before any event."""
    days = (domain.last_day - domain.first_day).days + 1 if domain and domain.last_day else None
    scored = lake.dataset(scored_name(spec), "event_timestamp").files()
    if scored:
        first = max(start_of(scored[0].partition), start_of(day_before(scored[-1].partition, DAYS)))
        span = (end_of(scored[-1].partition) - first) / pd.Timedelta(days=1)
        events = sum(file.rows for file in scored if start_of(file.partition) >= first)
        measured = f"{events:,} events scored in the newest {span:.0f} days"
    else:
        arrived = lake.dataset(spec.events.source).files()
        if not arrived:
            return None
        end = end_of(arrived[-1].partition)
        first = max(start_of(arrived[0].partition), end - pd.Timedelta(days=UNSCORED_DAYS))
        span = (end - first) / pd.Timedelta(days=1)
        events = len(read_events(lake, spec, first, end)) if has_events(lake, spec, first, end) else 0
        measured = f"{events:,} events of the newest {span:.0f} days that have arrived"
    if not events:
        return None
    share, rarer = _labels(lake, spec)
    return Volume(events * share / span, measured, rarer, days)


def _labels(lake: Lake, spec: ModelSpec) -> tuple[float, float | None]:
    """Share of the newest mature events with a label, and of the rarer class among these; 1 and None if unknown."""
    name, scored = outcomes_name(spec), scored_name(spec)
    files = lake.dataset(name).files()
    if not files:
        return 1.0, None
    window = Window(day_before(files[-1].partition, DAYS), files[-1].partition)
    end = end_of(files[-1].partition)
    key = quoted(spec.events.id_column)
    sql = f'SELECT label, count(DISTINCT {key}) AS n FROM "{name}" WHERE event_timestamp >= $start GROUP BY label'
    start = end - pd.Timedelta(days=DAYS)
    counts = np.sort(lake.query(sql, {name: window}, end, {"start": start})["n"].to_numpy())[::-1]
    labelled = int(counts.sum())
    reach = spec.label.reach
    if not labelled:
        return 1.0, None
    share = 1.0
    if reach is not None and lake.has_rows(scored, window):
        mature = f'SELECT count(DISTINCT {key}) AS n FROM "{scored}" WHERE event_timestamp BETWEEN $start AND $end'
        asked = {"start": start, "end": end - reach}
        events = lake.query(mature, {scored: window}, end, asked)["n"][0].as_py()
        share = min(labelled / events, 1.0) if events else 1.0
    classes = spec.task in ("binary", "multiclass") and len(counts) > 1
    return share, float(counts[1] / labelled) if classes else None


def volume_in(spec: ModelSpec, rows: pa.Table) -> Volume | None:
    """The same by the rows of one file of the events' source; None where they say nothing about it.

    Args:
        spec: The model.
        rows: As they are stored, with `known_at`.
    """
    found = None
    with suppress(duckdb.Error), cursor() as connection:
        connection.register(spec.events.source, rows)
        count = f"SELECT count(DISTINCT {quoted(spec.events.id_column)}) AS n FROM ({spec.events.sql})"
        found = fetch(connection, count, {})["n"][0].as_py()
    if not found:
        return None
    known = pc.min_max(rows["known_at"]).as_py()
    days = (known["max"] - known["min"]) / pd.Timedelta(days=1)
    if days < 0.5:
        return None  # part of a day, of which nobody knows how many follow
    days = max(days, 1.0)
    return Volume(found / days, f"{found:,} events of {days:.0f} days in the file")
