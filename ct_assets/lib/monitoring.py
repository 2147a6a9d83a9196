"""Daily judgement of a model: has its world drifted, and is a retrain due?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa

from ct_assets.core.drift import DriftReport
from ct_assets.core.ledger import Record
from ct_assets.core.metrics import advantage
from ct_assets.core.policy import Decision, shows_loss
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.lake.contract import Domain
from ct_assets.lake.examples import INSTANT, scored_name
from ct_assets.lake.lake import Lake
from ct_assets.lake.releases import Releases
from ct_assets.lib.closing import calendar_key
from ct_assets.lib.conditions import on_closed_partition, on_decision_time
from ct_assets.lib.decision_times import due_key
from ct_assets.lib.decisions import NO_SOURCES, FreshWithin, decide_about, reconsider, record_decision, retrain_due
from ct_assets.lib.drifting import drift_of_lines
from ct_assets.lib.label_counts import labels_of_lines
from ct_assets.lib.model_assets import RETRAIN_DUE, lines_of, model_key, model_tags, releases_of
from ct_assets.lib.monitoring_reports import save_report
from ct_assets.lib.outcomes import Outcomes, recent_outcomes, save_outcomes
from ct_assets.lib.partitions import (
    decides_with_arrivals,
    decision_partitions,
    decision_time,
    end_of,
    next_partition,
    partition_at,
)
from ct_assets.lib.performance import performance_reports
from ct_assets.resources.lake import LakeResource

MODEL_IS_CURRENT = "model_is_current"
SEGMENTS_WITHIN_LIMIT = "segments_within_limit"
_LABEL_FIGURES = ("mature", "unlabelled", "unlabelled_share", "late", "late_share")


def build_monitoring(spec: ModelSpec, domain: Domain, fresh_within: FreshWithin = NO_SOURCES) -> dg.AssetsDefinition:
    """`performance`, `drift_report` and `retrain_decision`: one judgement as of one time, made in one step.

    The condition stands on the first of them alone: Dagster requests the others along with it.

    Args:
        spec: The model.
        domain: Whose arrival partitions it lives by.
        fresh_within: How long each source may be silent, until a decision names it.
    """
    performance, drift, decision = (
        model_key(spec, name) for name in ("performance", "drift_report", "retrain_decision")
    )
    inputs, condition = _inputs(spec, domain)
    shared: dict[str, Any] = {
        "partitions_def": decision_partitions(spec.policy, domain),
        "group_name": spec.name,
        "owners": [spec.owner],
        "tags": model_tags(spec),
        "kinds": {"duckdb"},
    }

    @dg.multi_asset(
        name=f"{spec.name}__monitoring",
        specs=[
            dg.AssetSpec(
                performance,
                deps=inputs,
                description="Predictions joined with the labels that have become known; figures on mature ones.",
                automation_condition=condition,
                **shared,
            ),
            dg.AssetSpec(
                drift,
                deps=[*inputs[:1], performance],
                description=f"The last {spec.drift_window_days} days against the champion's training (PSI, KS), and "
                "steps that the days before do not explain.",
                **shared,
            ),
            dg.AssetSpec(
                decision,
                deps=[performance, drift],
                description="Whether a retrain is due, why, and what would have flipped it; a ledger record each time.",
                **shared,
            ),
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "performance_holds",
                asset=performance,
                description="The champion is not worse than at its evaluation by more than the policy allows and days "
                "differ by.",
            ),
            dg.AssetCheckSpec(
                "beats_baseline",
                asset=performance,
                description="The champion is better than the naive model on the newest labels.",
            ),
            dg.AssetCheckSpec(
                "labels_in_time",
                asset=performance,
                description="No more of the newest mature events are without a label in time than "
                "`label.max_unlabelled` allows.",
            ),
            dg.AssetCheckSpec("no_drift", asset=drift, description="Fewer columns drift than the policy retrains for."),
            dg.AssetCheckSpec(
                MODEL_IS_CURRENT,
                asset=decision,
                description="No retrain is due: the newest decision was not to, or a model was judged for it.",
            ),
            *([_segments_check(decision)] if spec.segment_by else []),
        ],
    )
    def monitoring(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[dg.MaterializeResult]:
        as_of = decision_time(spec.policy, domain, context.partition_key)
        outcomes = _save_outcomes(lake.lake(), spec, domain, context.partition_key)
        labels = labels_of_lines(lake.lake(), spec, as_of)
        lines = lines_at(lake, spec, as_of, labels)
        recent = recent_outcomes(lake.lake(), lines, spec, as_of)
        reports = performance_reports(lake.lake(), lines, spec, as_of, labels, recent)
        yield _performance(lake, spec, performance, as_of, reports, outcomes)
        yield _drift(lake, spec, drift, as_of, drift_of_lines(lake.lake(), lines, spec, as_of, recent))
        yield _decision(lake, spec, decision, as_of, lines, labels, fresh_within)
        if spec.segment_by:
            _report_due(context, spec, [each.line for each in lines if retrain_due(each)])

    return monitoring


def _inputs(spec: ModelSpec, domain: Domain) -> tuple[list[dg.AssetDep], dg.AutomationCondition]:
    """What it is decided by, scored events first, and when."""
    due, sources = due_key(spec), [dg.AssetKey(name) for name in _label_sources(spec)]
    scored = model_key(spec, "scored")
    if decides_with_arrivals(spec.policy, domain):
        calendar = calendar_key(domain)
        condition = on_closed_partition(calendar, sources, needed=[scored])
        return [dg.AssetDep(key) for key in (scored, *sources, calendar, due)], condition
    # In a cycle of its own: by all that was known at its time, whatever partition it came with.
    history = dg.AllPartitionMapping()
    mapped = [dg.AssetDep(key, partition_mapping=history) for key in (scored, *sources)]
    return [*mapped, dg.AssetDep(due)], on_decision_time(due)


def _save_outcomes(lake: Lake, spec: ModelSpec, domain: Domain, partition: str) -> Outcomes:
    """Join the labels of the arrival partitions that ended since the decision before with what was predicted."""
    window = decision_partitions(spec.policy, domain).time_window_for_partition_key(partition)
    first, end = (pd.Timestamp(time).tz_convert("UTC") for time in window)
    arrival = partition_at(domain.cadence, first)
    saved = []
    while end_of(arrival) <= end:
        if lake.dataset(scored_name(spec)).partition(arrival):
            saved.append(save_outcomes(lake, spec, arrival))
        arrival = next_partition(arrival)
    return Outcomes.together(saved) if saved else Outcomes(pa.table({}), pa.table({}))


def _segments_check(key: dg.AssetKey) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        SEGMENTS_WITHIN_LIMIT, asset=key, description="No more segments have enough labels than `segments.most` allows."
    )


def _report_due(context: dg.AssetExecutionContext, spec: ModelSpec, due: Sequence[Line]) -> None:
    """Tell Dagster which lines are to be trained: each is a partition of the assets that come next."""
    context.instance.add_dynamic_partitions(lines_of(spec).name or "", [line.partition for line in due])
    for line in due:
        context.log_event(dg.AssetMaterialization(model_key(spec, RETRAIN_DUE), partition=line.partition))


def lines_at(lake: LakeResource, spec: ModelSpec, as_of: pd.Timestamp, labels: Mapping[Line, int]) -> list[Releases]:
    """The lines that are judged and decided about at a moment: the model's own, and that of each segment with enough
    labels once the model has a champion, which they are measured by.

    A segment that has a champion comes first, whatever the others have grown to: what scores has to be watched.

    Args:
        lake: Where the releases are.
        spec: The model.
        as_of: The moment.
        labels: How many labels were known then, as of `labels_of_lines`.
    """
    pooled = releases_of(lake, Line(spec.name))
    if spec.segment_by is None or pooled.champion_at(as_of - INSTANT) is None:
        return [pooled]
    begun = labels.keys() & {Line.named(name) for name in pooled.ledger.models()} - {pooled.line}
    served = [line for line in begun if releases_of(lake, line).champion_at(as_of - INSTANT)]
    large = [line for line in _large_segments(spec, labels) if line not in served]
    chosen = [*served, *large[: max(spec.segments.most - len(served), 0)]]
    return [pooled, *(releases_of(lake, line) for line in sorted(chosen, key=lambda line: str(line.segment)))]


def _large_segments(spec: ModelSpec, labels: Mapping[Line, int]) -> list[Line]:
    """Those with enough labels, the largest first."""
    return [line for line, known in labels.items() if line.segment is not None and known >= spec.segments.min_labels]


def _label_sources(spec: ModelSpec) -> list[str]:
    """What labels are made of; those of a horizon are computed for the events."""
    return sorted({spec.label.source, *([spec.events.source] if spec.label.horizon is not None else [])})


def _performance(
    lake: LakeResource,
    spec: ModelSpec,
    key: dg.AssetKey,
    as_of: pd.Timestamp,
    reports: Mapping[Line, Mapping[str, Any]],
    outcomes: Outcomes,
) -> dg.MaterializeResult:
    save_report(lake.lake(), spec, "performance", as_of, _by_partition(spec, reports))
    own = reports[Line(spec.name)]
    figures = {k: value for k, value in own.items() if value not in (None, "") and k not in ("provisional", "served")}
    fallen = [line.name for line, report in reports.items() if _has_fallen(spec, report)]
    told = {"fallen": ", ".join(fallen)} if spec.segment_by and fallen else {}
    naive = [line.name for line, report in reports.items() if _loses_to_baseline(spec, report)]
    gaps = {name: own[name] for name in _LABEL_FIGURES if own.get(name) is not None}
    losing = {"now": own["now"], "baseline": own["baseline"], "lines": ", ".join(naive)}
    return dg.MaterializeResult(
        asset_key=key,
        metadata={
            "dagster/row_count": outcomes.first.num_rows,
            "corrections": outcomes.corrections.num_rows,
            "provisional (decides nothing)": own.get("provisional"),
            "served by any version (decides nothing)": own.get("served"),
            **figures,
            **_segments_table(
                reports,
                {
                    "now": "now",
                    "reference": "at its evaluation",
                    "margin": "by chance",
                    "baseline": "baseline",
                    "rows": "rows",
                },
            ),
        },
        check_results=[
            _warning(key, "performance_holds", not fallen, figures | told),
            _warning(key, "beats_baseline", not naive, {k: v for k, v in losing.items() if v not in (None, "")}),
            dg.AssetCheckResult(
                asset_key=key,
                check_name="labels_in_time",
                passed=not own.get("label_gaps"),
                severity=dg.AssetCheckSeverity.WARN,
                description=own.get("label_gaps") or None,
                metadata={**gaps, "limit": spec.label.max_unlabelled},
            ),
        ],
    )


def _has_fallen(spec: ModelSpec, report: Mapping[str, Any]) -> bool:
    return shows_loss(spec.policy, report["now"], report["reference"], report["margin"], report["rows"])


def _loses_to_baseline(spec: ModelSpec, report: Mapping[str, Any]) -> bool:
    now, naive, policy = report["now"], report["baseline"], spec.policy
    if now is None or naive is None or report["rows"] < policy.performance_min_rows:
        return False
    return advantage(policy.performance_metric, now, naive) <= 0


def _by_partition(spec: ModelSpec, reports: Mapping[Line, Mapping[str, Any]]) -> Mapping[str, Any]:
    if spec.segment_by is None:
        return reports[Line(spec.name)]
    return {line.partition: report for line, report in reports.items()}


def _segments_table(reports: Mapping[Line, Mapping[str, Any]], columns: Mapping[str, str]) -> dict[str, Any]:
    """Figures of the segments as a table; nothing without segments."""
    rows = [
        [str(line.segment), *(_figure(report.get(name)) for name in columns)]
        for line, report in reports.items()
        if line.segment is not None
    ]
    if not rows:
        return {}
    lines = ["| segment | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    return {"segments": dg.MetadataValue.md("\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]))}


def _drift(
    lake: LakeResource,
    spec: ModelSpec,
    key: dg.AssetKey,
    as_of: pd.Timestamp,
    found: Mapping[Line, DriftReport | None],
) -> dg.MaterializeResult:
    reports = {line: report.model_dump(mode="json") if report else {} for line, report in found.items()}
    save_report(lake.lake(), spec, "drift", as_of, _by_partition(spec, reports))
    own, limit = found[Line(spec.name)], spec.policy.drift_share
    figures: dict[str, Any] = {
        "drifted_share": own.drifted_share if own else 0.0,
        "limit": "off" if limit is None else limit,
    }
    drifted = [
        line.name for line, report in found.items() if report and limit is not None and report.drifted_share >= limit
    ]
    told = {"drifted": ", ".join(drifted)} if spec.segment_by and drifted else {}
    return dg.MaterializeResult(
        asset_key=key,
        metadata=_drift_metadata(own)
        | _segments_table(reports, {"drifted_share": "drifted share", "verdict": "verdict"}),
        check_results=[_warning(key, "no_drift", not drifted, figures | told)],
    )


def _decision(
    lake: LakeResource,
    spec: ModelSpec,
    key: dg.AssetKey,
    as_of: pd.Timestamp,
    lines: Sequence[Releases],
    labels: Mapping[Line, int],
    fresh_within: FreshWithin,
) -> dg.MaterializeResult:
    records = {each.line: _decide(lake.lake(), each, spec, as_of, fresh_within) for each in lines}
    own = records[Line(spec.name)]
    decision = Decision.model_validate(own.evidence["decision"])
    reasons = dg.MetadataValue.md("\n".join(f"- **{k}**: {v}" for k, v in decision.reasons.items()))
    due = {each.line: found for each in lines if (found := retrain_due(each))}
    checks = [_warning(key, MODEL_IS_CURRENT, not due, _told_due(spec, due))]
    if spec.segment_by:
        checks.append(_within_limit(spec, key, labels))
    return dg.MaterializeResult(
        asset_key=key,
        metadata={
            "retrain": decision.retrain,
            "triggers": ", ".join(decision.triggers) or "none",
            "blocked_by": decision.blocked_by or "nothing",
            "reasons": reasons,
            "evidence": own.evidence["evidence"],
            **_segments_table(
                {line: record.evidence["decision"] for line, record in records.items()},
                {"retrain": "retrain", "triggers": "triggers", "blocked_by": "blocked by"},
            ),
        },
        check_results=checks,
    )


def _decide(lake: Lake, releases: Releases, spec: ModelSpec, as_of: pd.Timestamp, fresh_within: FreshWithin) -> Record:
    record = record_decision(releases, *decide_about(lake, releases, spec, as_of, fresh_within))
    reconsider(lake, releases, spec, as_of, fresh_within)
    return record


def _told_due(spec: ModelSpec, due: Mapping[Line, Record]) -> dict[str, Any]:
    if spec.segment_by:
        return {"due": ", ".join(line.name for line in due)} if due else {}
    record = due.get(Line(spec.name))
    if record is None:
        return {}
    return {"due since": record.as_of, "triggers": ", ".join(record.evidence["decision"]["triggers"])}


def _within_limit(spec: ModelSpec, key: dg.AssetKey, labels: Mapping[Line, int]) -> dg.AssetCheckResult:
    found, most = len(_large_segments(spec, labels)), spec.segments.most
    advice = (
        f"{found} values of {spec.segment_by} have {spec.segments.min_labels} labels or more, {most} are allowed; the "
        "largest are trained by themselves and the pooled model serves the rest: choose a coarser column, or raise "
        "segments.min_labels or segments.most"
    )
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=SEGMENTS_WITHIN_LIMIT,
        passed=found <= most,
        severity=dg.AssetCheckSeverity.WARN,
        description=advice if found > most else None,
        metadata={"segments": found, "limit": most},
    )


def _warning(key: dg.AssetKey, name: str, passed: bool, metadata: dict[str, Any]) -> dg.AssetCheckResult:
    """A check whose failure is news and no fault: it never blocks and never paints a run red."""
    return dg.AssetCheckResult(
        asset_key=key, check_name=name, passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata=metadata
    )


def _drift_metadata(report: DriftReport | None) -> dict[str, Any]:
    if report is None:
        return {"verdict": "no champion yet"}
    lines = ["| column | verdict | PSI | KS | why |", "|---|---|---|---|---|"]
    lines += [
        f"| {c.column} | {c.verdict} | {_figure(c.psi)} | {_figure(c.ks)} | {c.detail} |" for c in report.columns[:12]
    ]
    return {
        "verdict": report.verdict,
        "drifted_share": report.drifted_share,
        "drifted": ", ".join(report.drifted) or "nothing",
        "columns": dg.MetadataValue.md("\n".join(lines)),
    }


def _figure(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
