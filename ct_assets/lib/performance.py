"""What the champions of a model achieve, by the newest labels."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ct_assets.core.day_clusters import Estimate, estimate, noise_margin
from ct_assets.core.label_gaps import LabelGaps
from ct_assets.core.segments import SERVED_BY, Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import task_of
from ct_assets.lake.examples import DAY, INSTANT, maturity
from ct_assets.lake.lake import Lake
from ct_assets.lake.releases import Release, Releases
from ct_assets.lib.evaluated import baseline_of, evaluated_rows
from ct_assets.lib.label_counts import labels_of_lines, recent_gaps
from ct_assets.lib.outcomes import recent_outcomes

MOST_REFERENCES = 1000
"""Estimates that a process keeps; one for each line and champion."""


def performance_report(lake: Lake, releases: Releases, spec: ModelSpec, as_of: pd.Timestamp) -> dict[str, Any]:
    """The champion's metric over the newest matured cohorts, next to what it was evaluated at.

    Both are over the same segments, with the loss between them that chance alone may show (`margin`, by how days
    differ), and next to what the naive model achieves on the newest rows (`baseline`). Only events old enough to have
    their label count: fast labels alone would paint a rosy picture. What they say so far is `provisional`. What all
    champions of the window achieved together is `served`, which is all there is to see of a model that is retrained
    before its labels come. Both are shown, and nothing is decided by them.

    Raises:
        ValueError: A label is none that the task knows.
    """
    labels, outcomes = labels_of_lines(lake, spec, as_of), recent_outcomes(lake, [releases], spec, as_of)
    return performance_reports(lake, [releases], spec, as_of, labels, outcomes)[releases.line]


def performance_reports(
    lake: Lake,
    lines: Sequence[Releases],
    spec: ModelSpec,
    as_of: pd.Timestamp,
    labels: Mapping[Line, int],
    outcomes: pd.DataFrame | None,
) -> dict[Line, dict[str, Any]]:
    """The same for some of a model's lines.

    Args:
        lake: Where the scored events are.
        lines: Those to report about.
        spec: The model.
        as_of: The time of the decision; what became known from then on is not seen.
        labels: Of `labels_of_lines`.
        outcomes: Of `recent_outcomes`.
    """
    parts: tuple[pd.DataFrame, pd.DataFrame] | None = None
    if outcomes is not None:
        moments = maturity(spec, outcomes)
        recent = moments >= as_of - spec.policy.performance_window_days * DAY
        parts = outcomes[recent & (moments < as_of)], outcomes[recent & (moments >= as_of)]
    reports = {}
    for each in lines:
        champion = each.champion_at(as_of - INSTANT)
        report: dict[str, Any] = {
            "labels_known": labels.get(each.line, 0),
            "now": None,
            "reference": None,
            "margin": None,
            "baseline": None,
            "rows": 0,
            "days": 0,
            "label_rate": None,
        }
        if champion is not None and parts is not None:
            report |= _of_champion(each, champion, spec, parts)
        if each.line.segment is None:
            report |= _label_figures(spec, recent_gaps(lake, spec, as_of))
        reports[each.line] = report
    return reports


def _label_figures(spec: ModelSpec, gaps: LabelGaps) -> dict[str, Any]:
    """Whether the labels of the window's events came, and in time; where no label is one too, none is missing."""
    unlabelled = 0 if spec.label.absent is not None else gaps.unlabelled
    return {
        "mature": gaps.events,
        "unlabelled": unlabelled,
        "unlabelled_share": unlabelled / gaps.events if gaps.events else None,
        "late": gaps.late,
        "late_share": gaps.late / gaps.events if gaps.events else None,
        "label_gaps": gaps.problem(spec.label),
    }


def _of_champion(
    releases: Releases,
    champion: Release,
    spec: ModelSpec,
    outcomes: tuple[pd.DataFrame, pd.DataFrame],
) -> dict[str, Any]:
    line, policy = releases.line, spec.policy
    matured, young = (_of_segment(spec, line, each) for each in outcomes)
    served, young = (each[_served_by(spec, line, each)] for each in (matured, young))
    mine, young = (each[each["model_version"] == champion.version] for each in (served, young))
    handed_over = _handed_over(spec, line, pd.concat([matured, young]))
    mine = _without(spec, handed_over, mine)
    now, reference = _estimate(spec, mine), _reference(spec, champion, handed_over)
    promised = None
    if reference is None and evaluated_rows(champion) is None:
        # Of before its rows were kept: what its verdict says has no interval, and is shown only.
        promised = releases.verdict(champion.verdict).metrics["challenger"].get(policy.performance_metric)
    report = {
        **_figures(spec, mine),
        "days": now.days if now else 0,
        "reference": reference.value if reference else promised,
        "margin": noise_margin(reference, now) if reference and now else None,
        "baseline": _baseline(spec, champion, mine),
        "champion": champion.version,
        "corrected": int((matured["versions"] > 1).sum()),
        "served": _figures(spec, served),
        "provisional": _figures(spec, young),
        **({"handed_over": sorted(handed_over)} if handed_over else {}),
    }
    return report


def _handed_over(spec: ModelSpec, line: Line, rows: pd.DataFrame) -> set[str]:
    """Segments some of whose rows another line scored: those that are left are no sample of what this one serves."""
    if spec.segment_by is None or line.segment is not None:
        return set()
    others = rows[SERVED_BY].notna() & (rows[SERVED_BY] != line.partition)
    return set(rows.loc[others, spec.segment_by])


def _without(spec: ModelSpec, segments: set[str], rows: pd.DataFrame | None) -> Any:
    return rows[~rows[spec.segment_by].isin(segments)] if segments and rows is not None else rows


_references: dict[tuple[str, str, frozenset[str]], Estimate | None] = {}
"""By artifact, metric and segments that were left out; what a model was evaluated on never changes."""


def _reference(spec: ModelSpec, champion: Release, handed_over: set[str]) -> Estimate | None:
    """The metric that a champion was promoted with, over what it still serves: leaving each day out takes a while."""
    key = champion.artifact, spec.policy.performance_metric, frozenset(handed_over)
    if key not in _references:
        if len(_references) >= MOST_REFERENCES:
            _references.clear()
        _references[key] = _estimate(spec, _without(spec, handed_over, evaluated_rows(champion)))
    return _references[key]


def _estimate(spec: ModelSpec, rows: pd.DataFrame | None) -> Estimate | None:
    if rows is None:
        return None
    task = task_of(spec)
    days = rows["event_timestamp"].dt.tz_convert(None).to_numpy("datetime64[D]")
    return estimate(task, spec.policy.performance_metric, task.codes(rows["label"]), task.array(rows), days)


def _baseline(spec: ModelSpec, champion: Release, rows: pd.DataFrame) -> float | None:
    """The same metric of the naive model; None where its input was not kept with these rows."""
    baseline, task, column = baseline_of(champion), task_of(spec), spec.baseline.column
    if baseline is None or rows.empty or (column is not None and column not in rows):
        return None
    metric, labels = spec.policy.performance_metric, task.codes(rows["label"])
    value = task.measure(metric, labels, task.predict(baseline, rows))
    return None if math.isnan(value) else value


def _of_segment(spec: ModelSpec, line: Line, rows: pd.DataFrame) -> pd.DataFrame:
    return rows if line.segment is None else rows[rows[spec.segment_by] == line.segment]


def _served_by(spec: ModelSpec, line: Line, rows: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows a line scored, by whichever of its versions."""
    return rows["model_version"].notna() if spec.segment_by is None else rows[SERVED_BY] == line.partition


def _figures(spec: ModelSpec, rows: pd.DataFrame) -> dict[str, Any]:
    task = task_of(spec)
    labels = task.codes(task.stored(rows["label"]))
    now = task.measure(spec.policy.performance_metric, labels, task.array(rows)) if len(rows) else math.nan
    described = task.describe(labels) if len(rows) else {}
    return {
        "now": None if math.isnan(now) else now,
        "rows": len(rows),
        "label_rate": described.get("prevalence"),
        **{name: value for name, value in described.items() if name == "mean_label"},
    }
