"""Daily judgement of a model: has its world drifted, and is a retrain due?"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import dagster as dg
import pandas as pd

from ct_assets.core.drift import DriftReport, compare
from ct_assets.core.ledger import DECISIONS, REQUEST, RETRAIN, SKIP, TRAINING, VERDICT, Ledger, Record, newest
from ct_assets.core.metrics import advantage
from ct_assets.core.policy import Decision, Evidence, decide
from ct_assets.core.profile import NumericColumn, profile
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import LABEL, task_of
from ct_assets.lake.contract import Domain
from ct_assets.lake.engine import quoted
from ct_assets.lake.examples import DAY, INSTANT, partition_of
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.releases import Release, Releases
from ct_assets.lib.conditions import on_accepted_data
from ct_assets.lib.model_data import model_key, performance_report, read_report, releases_of, save_report
from ct_assets.lib.outcomes import read_outcomes, save_outcomes
from ct_assets.lib.partitions import arrival_days, day_before, end_of
from ct_assets.resources.lake import LakeResource

MODEL_IS_CURRENT = "model_is_current"


def build_monitoring(spec: ModelSpec, domain: Domain) -> dg.AssetsDefinition:
    """`performance`, `drift_report` and `retrain_decision`: one judgement of one day, made in one step.

    The condition stands on the first of them alone: Dagster requests the others along with it.
    """
    performance, drift, decision = (
        model_key(spec, name) for name in ("performance", "drift_report", "retrain_decision")
    )
    shared: dict[str, Any] = {
        "partitions_def": arrival_days(domain),
        "group_name": spec.name,
        "owners": [spec.owner],
        "tags": {"tier": spec.tier},
        "kinds": {"duckdb"},
    }

    @dg.multi_asset(
        name=f"{spec.name}__monitoring",
        specs=[
            dg.AssetSpec(
                performance,
                deps=[model_key(spec, "scored"), *_label_sources(spec)],
                description="Predictions joined with the labels that have become known; figures on mature ones.",
                automation_condition=on_accepted_data(),
                **shared,
            ),
            dg.AssetSpec(
                drift,
                deps=[model_key(spec, "scored"), performance],
                description=f"The last {spec.drift_window_days} days against the champion's training (PSI, KS).",
                **shared,
            ),
            dg.AssetSpec(
                decision,
                deps=[performance, drift],
                description="Whether a retrain is due, why, and what would have flipped it; one ledger record a day.",
                **shared,
            ),
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "performance_holds",
                asset=performance,
                description="The champion is not worse than at its evaluation by more than the policy allows.",
            ),
            dg.AssetCheckSpec("no_drift", asset=drift, description="Fewer columns drift than the policy retrains for."),
            dg.AssetCheckSpec(
                MODEL_IS_CURRENT,
                asset=decision,
                description="No retrain is due: the newest decision was not to, or a model was judged for it.",
            ),
        ],
    )
    def monitoring(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[dg.MaterializeResult]:
        partition = context.partition_key
        yield _performance(lake, spec, performance, partition)
        yield _drift(lake, spec, drift, partition)
        yield _decision(lake, spec, decision, partition)

    return monitoring


def _label_sources(spec: ModelSpec) -> list[str]:
    """What labels are made of; those of a horizon are computed for the events."""
    return sorted({spec.label.source, *([spec.events.source] if spec.label.horizon is not None else [])})


def _performance(lake: LakeResource, spec: ModelSpec, key: dg.AssetKey, partition: str) -> dg.MaterializeResult:
    outcomes = save_outcomes(lake.lake(), spec, partition)
    report = performance_report(lake.lake(), releases_of(lake, spec), spec, partition)
    save_report(lake.lake(), spec, "performance", partition, report)
    figures = {name: value for name, value in report.items() if value is not None and name != "provisional"}
    now, reference, policy = report["now"], report["reference"], spec.policy
    judged = None not in (now, reference) and report["rows"] >= policy.performance_min_rows
    lost = -advantage(policy.performance_metric, now, reference) if judged else 0.0
    fallen = policy.performance_drop is not None and lost >= policy.performance_drop
    return dg.MaterializeResult(
        asset_key=key,
        metadata={
            "dagster/row_count": outcomes.first.num_rows,
            "corrections": outcomes.corrections.num_rows,
            "provisional (decides nothing)": report.get("provisional"),
            **figures,
        },
        check_results=[_warning(key, "performance_holds", not fallen, figures)],
    )


def _drift(lake: LakeResource, spec: ModelSpec, key: dg.AssetKey, partition: str) -> dg.MaterializeResult:
    report = drift_of_day(lake.lake(), releases_of(lake, spec), spec, partition)
    save_report(lake.lake(), spec, "drift", partition, report.model_dump(mode="json") if report else {})
    share, limit = report.drifted_share if report else 0.0, spec.policy.drift_share
    figures = {"drifted_share": share, "limit": limit if limit is not None else "off"}
    return dg.MaterializeResult(
        asset_key=key,
        metadata=_drift_metadata(report),
        check_results=[_warning(key, "no_drift", limit is None or share < limit, figures)],
    )


def _decision(lake: LakeResource, spec: ModelSpec, key: dg.AssetKey, partition: str) -> dg.MaterializeResult:
    evidence = gather_evidence(lake.lake(), lake.ledger(), releases_of(lake, spec), spec, partition)
    record = record_decision(lake.ledger(), spec, evidence, decide(spec.policy, evidence))
    decision = Decision.model_validate(record.evidence["decision"])
    reconsider(lake.lake(), lake.ledger(), releases_of(lake, spec), spec, partition)
    reasons = dg.MetadataValue.md("\n".join(f"- **{k}**: {v}" for k, v in decision.reasons.items()))
    triggers = ", ".join(decision.triggers) or "none"
    due = retrain_due(lake.ledger(), spec)
    return dg.MaterializeResult(
        asset_key=key,
        metadata={
            "retrain": decision.retrain,
            "triggers": triggers,
            "blocked_by": decision.blocked_by or "nothing",
            "reasons": reasons,
            "evidence": record.evidence["evidence"],
        },
        check_results=[
            _warning(
                key,
                MODEL_IS_CURRENT,
                due is None,
                {"due since": due.as_of, "triggers": ", ".join(due.evidence["decision"]["triggers"])} if due else {},
            )
        ],
    )


def _warning(key: dg.AssetKey, name: str, passed: bool, metadata: dict[str, Any]) -> dg.AssetCheckResult:
    """A check whose failure is news and no fault: it never blocks and never paints a run red."""
    return dg.AssetCheckResult(
        asset_key=key, check_name=name, passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata=metadata
    )


def drift_of_day(lake: Lake, releases: Releases, spec: ModelSpec, partition: str) -> DriftReport | None:
    """Compare the newest window with the champion's reference; None while there is no champion."""
    as_of = end_of(partition)
    champion = releases.champion_at(as_of - INSTANT)
    if champion is None:
        return None
    reference = releases.reference(champion)
    edges = {name: list(c.edges) for name, c in reference.columns.items() if isinstance(c, NumericColumn)}
    window = Window(day_before(partition, spec.drift_window_days - 1), partition)
    predicted = task_of(spec).watched
    columns = ", ".join(map(quoted, [*spec.inputs, *predicted]))
    name = f"{spec.name}/scored"
    scored = lake.query(f'SELECT {columns} FROM "{name}"', {name: window}, as_of).to_pandas()
    current = profile(scored, {k: v for k, v in edges.items() if k in scored})
    labels = _labels_of_window(lake, spec, partition)
    bins = {LABEL: edges[LABEL]} if LABEL in edges else {}
    observed = profile(labels, bins) if LABEL in reference.columns and len(labels) else None
    kept = {k: c for k, c in current.columns.items() if k not in predicted or scored[k].notna().any()}
    if observed:
        kept |= observed.columns
    known = {k: c for k, c in reference.columns.items() if k in kept}
    return compare(
        type(reference)(reference.rows, known, reference.cap),
        type(current)(current.rows, kept, current.cap),
        spec.drift,
    )


def _labels_of_window(lake: Lake, spec: ModelSpec, partition: str) -> pd.DataFrame:
    as_of = end_of(partition)
    rows = read_outcomes(lake, spec, as_of, as_of - spec.drift_window_days * DAY, as_of)
    return task_of(spec).watched_label(rows["label"]).to_frame(LABEL)


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


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def gather_evidence(lake: Lake, ledger: Ledger, releases: Releases, spec: ModelSpec, partition: str) -> Evidence:
    """What was known at the end of an arrival day, and nothing that was decided at or after it.

    So a decision that is computed again, after a crash or in a replay, comes out the same.
    """
    as_of = end_of(partition)
    champion = releases.champion_at(as_of - INSTANT)
    training = _trained_before(ledger, spec, as_of)
    performance = read_report(lake, spec, "performance", partition)
    drift = read_report(lake, spec, "drift", partition)
    request = _open_request(ledger, spec, as_of, training)
    return Evidence(
        as_of=as_of.to_pydatetime(),
        known_labels=performance["labels_known"],
        champion_as_of=_moment(champion),
        last_training_as_of=datetime.fromisoformat(training.as_of) if training else None,
        last_training_labels=training.evidence.get("labels_known") if training else None,
        drifted_share=drift.get("drifted_share"),
        drifted_columns=tuple(drift.get("drifted", ())),
        performance_now=performance["now"],
        performance_reference=performance["reference"],
        performance_rows=performance["rows"],
        manual_request=request is not None,
        manual_reason=request.evidence["reason"] if request else "",
    )


def record_decision(ledger: Ledger, spec: ModelSpec, evidence: Evidence, decision: Decision, after: str = "") -> Record:
    """Write the decision of one moment to the ledger, once, and once more `after` each day that came late."""
    content = {"decision": decision.model_dump(mode="json"), "evidence": evidence.model_dump(mode="json")}
    key = f"decision/{spec.name}/{evidence.as_of.isoformat()}" + (f"/after/{after}" if after else "")
    return ledger.append(RETRAIN if decision.retrain else SKIP, spec.name, evidence.as_of, content, key=key)


def reconsider(lake: Lake, ledger: Ledger, releases: Releases, spec: ModelSpec, late: str) -> Record | None:
    """Decide once more for the newest moment, if the labels of an earlier day were joined only now.

    Runs of different days may overtake each other. The newest decision then did not know what it should have known,
    and no later day may come to make up for it.

    Args:
        lake: Where the outcomes are.
        ledger: Where decisions are.
        releases: Those of the model.
        spec: The model.
        late: The day that was just decided about.

    Returns:
        The new record, if a decision to skip has become one to retrain; a retrain that is due already stays due.
    """
    decided = newest(record for kind in DECISIONS for record in ledger.records(kind, spec.name))
    if decided is None or decided.kind == RETRAIN or pd.Timestamp(decided.as_of) <= end_of(late):
        return None
    day = partition_of(pd.Timestamp(decided.as_of) - INSTANT)
    save_report(lake, spec, "performance", day, performance_report(lake, releases, spec, day))
    evidence = gather_evidence(lake, ledger, releases, spec, day)
    decision = decide(spec.policy, evidence)
    return record_decision(ledger, spec, evidence, decision, after=late) if decision.retrain else None


def retrain_due(ledger: Ledger, spec: ModelSpec) -> Record | None:
    """The newest decision, if it was to retrain and no model was judged for it yet.

    Newest in event time: an older day that is decided again, or late, neither asks for a training by itself nor hides
    that one is due.
    """
    decision = newest(record for kind in DECISIONS for record in ledger.records(kind, spec.name))
    judged = newest(ledger.records(VERDICT, spec.name))
    if decision is None or decision.kind == SKIP:
        return None
    answered = judged is not None and pd.Timestamp(judged.as_of) >= pd.Timestamp(decision.as_of)
    return None if answered else decision


def _trained_before(ledger: Ledger, spec: ModelSpec, as_of: pd.Timestamp) -> Record | None:
    return newest(r for r in ledger.records(TRAINING, spec.name) if pd.Timestamp(r.as_of) < as_of)


def _open_request(ledger: Ledger, spec: ModelSpec, as_of: pd.Timestamp, training: Record | None) -> Record | None:
    """The newest request by hand that no training has answered yet."""
    request = next(
        (r for r in ledger.records(REQUEST, spec.name, newest_first=True) if pd.Timestamp(r.as_of) <= as_of), None
    )
    answered = request is not None and training is not None and training.seq > request.seq
    return None if answered else request


def _moment(champion: Release | None) -> datetime | None:
    return datetime.fromisoformat(champion.as_of) if champion else None
