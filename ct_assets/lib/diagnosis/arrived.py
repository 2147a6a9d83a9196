"""Checks that look at rows which have arrived: what a contract and made-up rows cannot tell."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ct_assets.lake.examples import late_events, read_events, scored_name
from ct_assets.lake.lake import Lake
from ct_assets.lib.diagnosis.finding import CannotTellError, Finding
from ct_assets.lib.diagnosis.model import Examined
from ct_assets.lib.features import compute
from ct_assets.lib.partitions import end_of

ARRIVALS, LATER, EVENTS_IN_TIME, WINDOWS = "arrivals", "rows ahead of time", "events in time", "windows"
NEWEST_DAYS = 14
"""How far back a day with events is looked for."""
FURTHER_DAYS = 60
"""How much further than declared the windows of features are looked for, beside three times as far."""


def every_source_sends_each_day(model: Examined) -> Iterator[Finding]:
    """No daily source has left a day out: such a day is never scored nor decided about."""
    lake, spec = _lake(model), model.spec
    read = [model.sources[name] for name in (spec.events.source, spec.label.source) if name in model.sources]
    read += [features.source for features in model.feature_sets]
    arrived = {s.name: {file.partition for file in lake.dataset(s.name).files()} for s in read if s.daily}
    days = sorted(set().union(*arrived.values()))
    if not days:
        raise CannotTellError("nothing has arrived yet")
    for name, its in arrived.items():
        # Of the newest days some may be on their way.
        left_out = [day for day in days if day not in its and (not its or day < max(its))]
        if left_out:
            yield Finding(
                "warning",
                ARRIVALS,
                f"source {name!r}",
                f"nothing arrived for {len(left_out)} of {len(days)} days, such as {left_out[0]}",
                "a file for each day: without one, a day is neither scored nor decided about",
                "land one without rows for a day on which nothing happened, and allow it with min_rows=0",
            )


def rows_wait_for_their_moment(model: Examined) -> Iterator[Finding]:
    """Rows that have arrived lie at a moment that had come when they became known; others are not found until then."""
    lake, looked = _lake(model), 0
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


def events_are_known_in_time(model: Examined) -> Iterator[Finding]:
    """The events of the newest day were announced by the moment of their prediction."""
    lake, spec = _lake(model), model.spec
    days = [file.partition for file in lake.dataset(scored_name(spec), "event_timestamp").files()]
    for day in reversed(days[-NEWEST_DAYS:]):
        start, end = pd.Timestamp(day, tz="UTC"), end_of(day)
        known = read_events(lake, spec, start, end)
        late = late_events(lake, spec, start, end, known)
        if not (events := known.num_rows + len(late)):
            continue
        if late:
            yield Finding(
                "error" if 2 * len(late) > events else "warning",
                EVENTS_IN_TIME,
                model.at("events.sql"),
                f"{len(late)} of the {events} events of {day} need rows that became known after their event_timestamp, "
                f"such as {spec.events.id_column} {min(map(str, late))}: they are neither predicted nor learned from",
                "events that are known at the moment of prediction",
                "derive event_timestamp from known_at, or leave such rows out",
            )
        return
    raise CannotTellError("nothing has been scored yet")


def windows_are_read_whole(model: Examined) -> Iterator[Finding]:
    """Reading more days than `lookback_days` gives the same features."""
    lake, looked = _lake(model), 0
    for features in model.feature_sets:
        days = [file.partition for file in lake.dataset(features.source.name).files() if file.rows]
        if not features.source.daily or not days:
            continue
        looked += 1
        further = replace(features, lookback_days=3 * features.lookback_days + FURTHER_DAYS)
        reached, whole = (compute(lake, each, days[-1]) for each in (features, further))
        for view, rows in whole.items():
            if differing := _differing(reached[view], rows):
                yield Finding(
                    "error",
                    WINDOWS,
                    f"FeatureSql {view!r}",
                    f"{differing} of {rows.num_rows} rows of {days[-1]} are others with lookback_days="
                    f"{further.lookback_days} than with {features.lookback_days}",
                    "the days that the longest window reaches into",
                    f"raise lookback_days of the FeatureSet over {features.source.name!r}, or bound its windows",
                )
    if not looked:
        raise CannotTellError("nothing has arrived yet")


def _differing(found: pa.Table, expected: pa.Table) -> int:
    """How many rows of one are not in the other; sums may differ by the order of their terms."""
    one, other = (table.to_pandas().sort_values(table.column_names, ignore_index=True) for table in (found, expected))
    if len(one) != len(other):
        return abs(len(one) - len(other))
    same = np.ones(len(one), dtype=bool)
    for name in one:
        if pd.api.types.is_numeric_dtype(one[name]) and pd.api.types.is_numeric_dtype(other[name]):
            same &= np.isclose(one[name].astype(float), other[name].astype(float), rtol=1e-9, equal_nan=True)
        else:
            same &= ((one[name] == other[name]) | (one[name].isna() & other[name].isna())).to_numpy(bool)
    return int((~same).sum())


def _lake(model: Examined) -> Lake:
    if model.home is None:
        raise CannotTellError("rows are not looked at here")
    return Lake(model.home)
