"""The newest window of a model against what its champions were trained on, and the days before."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from typing import Any

import pandas as pd

from ct_assets.core.day_statistics import Statistics, day_statistics
from ct_assets.core.drift import DriftReport, compare
from ct_assets.core.profile import NumericColumn, profile
from ct_assets.core.segments import SERVED_BY, Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.steps import last_steps
from ct_assets.core.tasks import LABEL, task_of
from ct_assets.lake.engine import quoted
from ct_assets.lake.examples import DAY, INSTANT, day_of, maturity, scored_name
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.releases import Release, Releases
from ct_assets.lake.training_set import load_training_set
from ct_assets.lib.monitoring_reports import read_reports, save_report

_LONGEST_DAYS = 90
"""How far back days are looked at."""


def drift_of_lines(
    lake: Lake, lines: Sequence[Releases], spec: ModelSpec, as_of: pd.Timestamp, outcomes: pd.DataFrame | None
) -> dict[Line, DriftReport | None]:
    """Compare the newest window of some of a model's lines with their champions' references; None without champion.

    Statistics of each day are kept next to the lake, also while there is no champion yet.

    Args:
        lake: Where the scored events are.
        lines: Those to compare.
        spec: The model.
        as_of: The end of the window.
        outcomes: Of `recent_outcomes`.
    """
    champions = {each.line: each.champion_at(as_of - INSTANT) for each in lines}
    window = Window(day_of(as_of - spec.drift_window_days * DAY), day_of(as_of - INSTANT))
    name = scored_name(spec)
    if not lake.has_rows(name, window):
        return dict.fromkeys(champions)
    further = [] if spec.segment_by is None else [SERVED_BY]
    wanted = dict.fromkeys([*spec.inputs, *task_of(spec).watched, "event_timestamp", "model_version", *further])
    columns = ", ".join(map(quoted, wanted))
    scored = lake.query(f'SELECT {columns} FROM "{name}"', {name: window}, as_of).to_pandas()
    matured = None
    if outcomes is not None:
        moments = maturity(spec, outcomes)
        recent = (moments >= as_of - spec.drift_window_days * DAY) & (moments < as_of)
        matured = outcomes[recent].assign(event_timestamp=moments[recent])
    parts = {each.line: _Rows(spec, each.line, champions[each.line], scored, matured) for each in lines}
    history = _with_newest_days(lake, spec, as_of, parts)
    return {
        each.line: _compared(lake, spec, each, champion, parts[each.line], history)
        if (champion := champions[each.line]) and matured is not None
        else None
        for each in lines
    }


class _Rows:
    """The rows of the window that concern a line, as its columns are watched.

    Attributes:
        version: Of the champion, the only one whose predictions count.
        watched: Columns of the prediction that are watched.
        scored: Inputs and predictions, with `event_timestamp`.
        labels: With `event_timestamp`, which is that of maturity here.
    """

    def __init__(
        self, spec: ModelSpec, line: Line, champion: Release | None, scored: pd.DataFrame, matured: pd.DataFrame | None
    ) -> None:
        task, self.version = task_of(spec), champion.version if champion else None
        if line.segment is not None:
            scored = scored[scored[spec.segment_by] == line.segment]
            matured = None if matured is None else matured[matured[spec.segment_by] == line.segment]
        # What a model predicts for the rows that are left to it is no sample of what it predicted for all of them.
        self.watched = task.watched if spec.segment_by is None or line.segment is not None else []
        others = scored["model_version"] != self.version
        if spec.segment_by is not None:
            others |= scored[SERVED_BY] != line.partition
        masked = scored.assign(**{name: scored[name].mask(others) for name in self.watched})
        self.scored = masked[["event_timestamp", *spec.inputs, *self.watched]]
        self.labels = None
        if matured is not None:
            labels = task.watched_label(matured["label"]).to_frame(LABEL)
            self.labels = labels.assign(event_timestamp=matured["event_timestamp"])

    def of_day(self, day: pd.Timestamp) -> dict[str, Any]:
        """What is kept of a day."""
        parts = [self.scored] if self.labels is None else [self.scored, self.labels]
        found = [part[part["event_timestamp"].between(day, day + DAY, inclusive="left")] for part in parts]
        columns: dict[str, Statistics] = {}
        for part in found:
            if len(part):
                columns |= day_statistics(part.drop(columns="event_timestamp"))
        return {"rows": len(found[0]), "version": self.version, "columns": columns}


def _with_newest_days(
    lake: Lake, spec: ModelSpec, as_of: pd.Timestamp, parts: dict[Line, _Rows]
) -> dict[date, dict[str, Any]]:
    """What is kept of the days before `as_of`, by line; the newest whole day is made again, as rows may come late."""
    end = as_of.normalize()
    kept: dict[date, dict[str, Any]] = {}
    for back in range(1, _LONGEST_DAYS + 1):
        day = end - back * DAY
        found = read_reports(lake, spec, "days", day + DAY)
        if back == 1 or back < spec.drift_window_days:
            missing = {
                line.partition: rows.of_day(day)
                for line, rows in parts.items()
                if back == 1 or line.partition not in found
            }
            if missing:
                found = {**found, **missing}
                save_report(lake, spec, "days", day + DAY, found)
        kept[day.date()] = found
    return kept


def _compared(
    lake: Lake, spec: ModelSpec, releases: Releases, champion: Release, rows: _Rows, history: dict[date, dict[str, Any]]
) -> DriftReport:
    reference = releases.reference(champion)
    edges = {name: list(c.edges) for name, c in reference.columns.items() if isinstance(c, NumericColumn)}
    current = profile(rows.scored[[*spec.inputs, *rows.watched]], {k: v for k, v in edges.items() if k in rows.scored})
    bins = {LABEL: edges[LABEL]} if LABEL in edges else {}
    labels = rows.labels
    known_labels = labels is not None and LABEL in reference.columns and len(labels)
    observed = profile(labels[[LABEL]], bins) if known_labels and labels is not None else None
    kept = {k: c for k, c in current.columns.items() if k not in rows.watched or rows.scored[k].notna().any()}
    if observed:
        kept |= observed.columns
    known = {k: c for k, c in reference.columns.items() if k in kept}
    found = None
    if spec.drift.history_days:
        found = _steps(spec, releases.line, rows, list(known), history, _learned_until(lake, champion).date())
    return compare(
        type(reference)(reference.rows, known, reference.cap),
        type(current)(current.rows, kept, current.cap),
        spec.drift,
        found,
    )


def _learned_until(lake: Lake, champion: Release) -> pd.Timestamp:
    """A step from this moment on is news to the champion: it learned from nothing later."""
    try:
        return pd.Timestamp(load_training_set(lake, champion.training_set).split_at)
    except (FileNotFoundError, ValueError):
        return pd.Timestamp(champion.as_of)


def _steps(
    spec: ModelSpec, line: Line, rows: _Rows, columns: Sequence[str], history: dict[date, dict[str, Any]], first: date
) -> dict[str, str]:
    """The steps that columns took since the champion's examples and that last, in words."""
    told = {}
    kept = {day: part for day in sorted(history) if (part := history[day].get(line.partition)) and part["columns"]}
    days_of: dict[tuple[date, ...], list[str]] = defaultdict(list)
    for column in columns:
        # What another version predicted is no change of what this one predicts.
        own = [day for day, part in kept.items() if column not in rows.watched or part["version"] == rows.version]
        days_of[tuple(day for day in own if column in kept[day]["columns"])].append(column)
    for days, group in days_of.items():
        statistics = [kept[day]["columns"] for day in days]
        since = sum(day < first for day in days)
        for column, step in last_steps(statistics, group, since, spec.drift.history_days).items():
            day = days[step.day].isoformat()
            told[column] = f"{step.statistic} was {step.before:.4g}, and {step.now:.4g} since {day}"
    return told
