"""What the champions of a model achieve, by the newest labels."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ct_assets.core.segments import SERVED_BY, Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import task_of
from ct_assets.lake.examples import DAY, INSTANT, maturity
from ct_assets.lake.lake import Lake
from ct_assets.lake.releases import Release, Releases
from ct_assets.lib.label_counts import labels_of_lines, unlabelled
from ct_assets.lib.outcomes import read_outcomes
from ct_assets.lib.partitions import end_of


def performance_report(lake: Lake, releases: Releases, spec: ModelSpec, partition: str) -> dict[str, Any]:
    """The champion's metric over the newest matured cohorts, next to what its verdict promised.

    Only events old enough to have their label count: fast labels alone would paint a rosy picture. What they say so far
    is `provisional`: it is shown, and nothing is decided by it.

    Raises:
        ValueError: A label is none that the task knows.
    """
    labels = labels_of_lines(lake, spec, end_of(partition))
    return performance_reports(lake, [releases], spec, partition, labels)[releases.line]


def performance_reports(
    lake: Lake, lines: Sequence[Releases], spec: ModelSpec, partition: str, labels: Mapping[Line, int]
) -> dict[Line, dict[str, Any]]:
    """The same for some of a model's lines, whose outcomes are read once; `labels` as of `labels_of_lines`."""
    as_of = end_of(partition)
    start = as_of - spec.policy.performance_window_days * DAY
    champions = {each.line: each.champion_at(as_of - INSTANT) for each in lines}
    outcomes: tuple[pd.DataFrame, pd.DataFrame] | None = None
    if any(champions.values()):
        known_outcomes = read_outcomes(lake, spec, as_of, start)
        mature = maturity(spec, known_outcomes) < as_of
        outcomes = known_outcomes[mature], known_outcomes[~mature]
    reports = {}
    for each in lines:
        champion = champions[each.line]
        report: dict[str, Any] = {
            "labels_known": labels.get(each.line, 0),
            "now": None,
            "reference": None,
            "rows": 0,
            "label_rate": None,
        }
        if champion is not None and outcomes is not None:
            report |= _of_champion(lake, each, champion, spec, as_of, outcomes)
        reports[each.line] = report
    return reports


def _of_champion(
    lake: Lake,
    releases: Releases,
    champion: Release,
    spec: ModelSpec,
    as_of: pd.Timestamp,
    outcomes: tuple[pd.DataFrame, pd.DataFrame],
) -> dict[str, Any]:
    line, policy = releases.line, spec.policy
    matured, young = (_of_segment(spec, line, each) for each in outcomes)
    mine, young = (each[_scored_by(spec, line, champion, each)] for each in (matured, young))
    reference = releases.verdict(champion.verdict).metrics["challenger"].get(policy.performance_metric)
    report = {
        **_figures(spec, mine),
        "reference": reference,
        "champion": champion.version,
        "corrected": int((matured["versions"] > 1).sum()),
        "provisional": _figures(spec, young),
    }
    if line.segment is None:
        start = as_of - policy.performance_window_days * DAY
        report["unlabelled"] = unlabelled(lake, spec, start, as_of, len(matured))
    return report


def _of_segment(spec: ModelSpec, line: Line, rows: pd.DataFrame) -> pd.DataFrame:
    return rows if line.segment is None else rows[rows[spec.segment_by] == line.segment]


def _scored_by(spec: ModelSpec, line: Line, champion: Release, rows: pd.DataFrame) -> "pd.Series[bool]":
    """Versions are numbered by line."""
    same = rows["model_version"] == champion.version
    return same if spec.segment_by is None else same & (rows[SERVED_BY] == line.partition)


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
