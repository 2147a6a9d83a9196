"""The newest window of a model against what its champions were trained on."""

from collections.abc import Sequence

import pandas as pd

from ct_assets.core.drift import DriftReport, compare
from ct_assets.core.profile import NumericColumn, profile
from ct_assets.core.segments import SERVED_BY, Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import LABEL, task_of
from ct_assets.lake.engine import quoted
from ct_assets.lake.examples import DAY, INSTANT, maturity, partition_of, scored_name
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.releases import Release, Releases


def drift_of_lines(
    lake: Lake, lines: Sequence[Releases], spec: ModelSpec, as_of: pd.Timestamp, outcomes: pd.DataFrame | None
) -> dict[Line, DriftReport | None]:
    """Compare the newest window of some of a model's lines with their champions' references; None without champion.

    Args:
        lake: Where the scored events are.
        lines: Those to compare.
        spec: The model.
        as_of: The end of the window.
        outcomes: Of `recent_outcomes`.
    """
    champions = {each.line: each.champion_at(as_of - INSTANT) for each in lines}
    if outcomes is None:
        return dict.fromkeys(champions)
    moments = maturity(spec, outcomes)
    matured = outcomes[(moments >= as_of - spec.drift_window_days * DAY) & (moments < as_of)]
    window = Window(partition_of(as_of - spec.drift_window_days * DAY), partition_of(as_of - INSTANT))
    further = [] if spec.segment_by is None else [SERVED_BY]
    columns = ", ".join(map(quoted, dict.fromkeys([*spec.inputs, *task_of(spec).watched, *further])))
    name = scored_name(spec)
    scored = lake.query(f'SELECT {columns} FROM "{name}"', {name: window}, as_of).to_pandas()
    return {
        each.line: _compared(spec, each, champion, scored, matured) if (champion := champions[each.line]) else None
        for each in lines
    }


def _compared(
    spec: ModelSpec, releases: Releases, champion: Release, scored: pd.DataFrame, outcomes: pd.DataFrame
) -> DriftReport:
    line, task = releases.line, task_of(spec)
    reference = releases.reference(champion)
    edges = {name: list(c.edges) for name, c in reference.columns.items() if isinstance(c, NumericColumn)}
    if line.segment is not None:
        scored, outcomes = (rows[rows[spec.segment_by] == line.segment] for rows in (scored, outcomes))
    # What a model predicts for the rows that are left to it is no sample of what it predicted for all of them.
    watched = task.watched if spec.segment_by is None or line.segment is not None else []
    if spec.segment_by is not None and watched:
        unasked = scored[SERVED_BY] != line.partition
        scored = scored.assign(**{name: scored[name].mask(unasked) for name in watched})
    current = profile(scored[[*spec.inputs, *watched]], {k: v for k, v in edges.items() if k in scored})
    labels = task.watched_label(outcomes["label"]).to_frame(LABEL)
    bins = {LABEL: edges[LABEL]} if LABEL in edges else {}
    observed = profile(labels, bins) if LABEL in reference.columns and len(labels) else None
    kept = {k: c for k, c in current.columns.items() if k not in watched or scored[k].notna().any()}
    if observed:
        kept |= observed.columns
    known = {k: c for k, c in reference.columns.items() if k in kept}
    return compare(
        type(reference)(reference.rows, known, reference.cap),
        type(current)(current.rows, kept, current.cap),
        spec.drift,
    )
