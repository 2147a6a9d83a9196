"""Daily judgement of a model: has its world drifted, and is a retrain due?"""

from datetime import datetime
from typing import Any

import dagster as dg
import pandas as pd

from ct_assets.core.drift import DriftReport, compare
from ct_assets.core.ledger import Ledger, Record
from ct_assets.core.policy import Decision, Evidence, decide
from ct_assets.core.profile import NumericColumn, profile
from ct_assets.core.spec import ModelSpec
from ct_assets.core.training import LABEL, PREDICTION
from ct_assets.lake.examples import DAY, matured_before, partition_of
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.releases import Release, Releases
from ct_assets.lib.conditions import on_accepted_data
from ct_assets.lib.model_data import common, model_key, read_report, releases_of, save_report
from ct_assets.lib.partitions import ARRIVAL_DAYS, day_before, end_of
from ct_assets.resources.lake import LakeResource

INSTANT = pd.Timedelta(1, "us")
RETRAIN, SKIP, REQUEST = "retrain", "skip", "manual_request"
MODEL_IS_CURRENT = "model_is_current"


def build_drift_report(spec: ModelSpec) -> dg.AssetsDefinition:
    """`drift_report`: inputs, predictions and labels of the last days against the champion's training profile."""

    @dg.asset(
        **common(spec, "drift_report", {"python"}),
        deps=[model_key(spec, "scored"), model_key(spec, "performance")],
        description=f"The last {spec.drift_window_days} days against what the champion was trained on (PSI, KS).",
        partitions_def=ARRIVAL_DAYS,
        automation_condition=on_accepted_data(),
        check_specs=[
            dg.AssetCheckSpec(
                "no_drift",
                asset=model_key(spec, "drift_report"),
                description="Fewer columns drift than the policy retrains for.",
            )
        ],
    )
    def drift_report(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        partition = context.partition_key
        report = drift_of_day(lake.lake(), releases_of(lake, spec), spec, partition)
        save_report(lake.lake(), spec, "drift", partition, report.model_dump(mode="json") if report else {})
        share = report.drifted_share if report else 0.0
        limit = spec.policy.drift_share
        return dg.MaterializeResult(
            metadata=_drift_metadata(report),
            check_results=[
                dg.AssetCheckResult(
                    check_name="no_drift",
                    passed=limit is None or share < limit,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={"drifted_share": share, "limit": limit if limit is not None else "off"},
                )
            ],
        )

    return drift_report


def drift_of_day(lake: Lake, releases: Releases, spec: ModelSpec, partition: str) -> DriftReport | None:
    """Compare the newest window with the champion's reference; None while there is no champion."""
    as_of = end_of(partition)
    champion = releases.champion_at(as_of - INSTANT)
    if champion is None:
        return None
    reference = releases.reference(champion)
    edges = {name: list(c.edges) for name, c in reference.columns.items() if isinstance(c, NumericColumn)}
    window = Window(day_before(partition, spec.drift_window_days - 1), partition)
    columns = ", ".join(f'"{c}"' for c in [*spec.inputs, PREDICTION])
    name = f"{spec.name}/scored"
    scored = lake.query(f'SELECT {columns} FROM "{name}"', {name: window}, as_of).to_pandas()
    current = profile(scored, {k: v for k, v in edges.items() if k in scored})
    labels = _labels_of_window(lake, spec, partition)
    observed = profile(labels, {LABEL: edges[LABEL]}) if LABEL in edges and len(labels) else None
    kept = {k: c for k, c in current.columns.items() if k != PREDICTION or scored[PREDICTION].notna().any()}
    if observed:
        kept |= observed.columns
    known = {k: c for k, c in reference.columns.items() if k in kept}
    return compare(
        type(reference)(reference.rows, known, reference.cap), type(current)(current.rows, kept, current.cap), spec.drift
    )


def _labels_of_window(lake: Lake, spec: ModelSpec, partition: str) -> pd.DataFrame:
    end = matured_before(spec, end_of(partition))
    start = end - spec.drift_window_days * DAY
    name = f"{spec.name}/performance"
    sql = f'SELECT label AS {LABEL} FROM "{name}" WHERE event_timestamp >= $start AND event_timestamp < $end'
    rows = lake.query(sql, {name: Window(partition_of(start), partition)}, end_of(partition), {"start": start, "end": end})
    return rows.to_pandas().astype("float64")


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


def build_retrain_decision(spec: ModelSpec) -> dg.AssetsDefinition:
    """`retrain_decision`: the policy over the evidence; its check fails when a retrain is due."""

    @dg.asset(
        **common(spec, "retrain_decision", {"python"}),
        deps=[model_key(spec, "performance"), model_key(spec, "drift_report")],
        description="Whether a retrain is due, why, and what would have flipped it; one ledger record a day.",
        partitions_def=ARRIVAL_DAYS,
        automation_condition=on_accepted_data(),
        check_specs=[
            dg.AssetCheckSpec(
                MODEL_IS_CURRENT,
                asset=model_key(spec, "retrain_decision"),
                description="No trigger of the retrain policy has fired.",
            )
        ],
    )
    def retrain_decision(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        partition = context.partition_key
        evidence = gather_evidence(lake.lake(), lake.ledger(), releases_of(lake, spec), spec, partition)
        decision = decide(spec.policy, evidence)
        record_decision(lake.ledger(), spec, evidence, decision)
        reasons = dg.MetadataValue.md("\n".join(f"- **{k}**: {v}" for k, v in decision.reasons.items()))
        return dg.MaterializeResult(
            metadata={
                "retrain": decision.retrain,
                "triggers": ", ".join(decision.triggers) or "none",
                "blocked_by": decision.blocked_by or "nothing",
                "reasons": reasons,
                "evidence": evidence.model_dump(mode="json"),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name=MODEL_IS_CURRENT,
                    passed=not decision.retrain,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={"triggers": ", ".join(decision.triggers) or "none", "reasons": reasons},
                )
            ],
        )

    return retrain_decision


def gather_evidence(lake: Lake, ledger: Ledger, releases: Releases, spec: ModelSpec, partition: str) -> Evidence:
    """What was known at the end of an arrival day, and nothing that was decided at or after it.

    So a decision that is computed again, after a crash or in a replay, comes out the same.
    """
    as_of = end_of(partition)
    champion = releases.champion_at(as_of - INSTANT)
    training = _newest_before(ledger, "training", spec.name, as_of)
    performance = read_report(lake, spec, "performance", partition)
    drift = read_report(lake, spec, "drift", partition)
    request = _open_request(ledger, spec, as_of, training)
    return Evidence(
        as_of=as_of.to_pydatetime(),
        matured_labels=performance["labels_known"],
        champion_as_of=_moment(champion),
        champion_training_labels=None,
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


def record_decision(ledger: Ledger, spec: ModelSpec, evidence: Evidence, decision: Decision) -> Record:
    """Write the decision of one moment to the ledger, once."""
    content = {"decision": decision.model_dump(mode="json"), "evidence": evidence.model_dump(mode="json")}
    key = f"decision/{spec.name}/{evidence.as_of.isoformat()}"
    return ledger.append(RETRAIN if decision.retrain else SKIP, spec.name, evidence.as_of, content, key=key)


def _newest_before(ledger: Ledger, kind: str, model: str, as_of: pd.Timestamp) -> Record | None:
    records = ledger.records(kind, model, newest_first=True)
    return next((r for r in records if pd.Timestamp(r.as_of) < as_of), None)


def _open_request(ledger: Ledger, spec: ModelSpec, as_of: pd.Timestamp, training: Record | None) -> Record | None:
    """The newest request by hand that no training has answered yet."""
    request = next((r for r in ledger.records(REQUEST, spec.name, newest_first=True) if pd.Timestamp(r.as_of) <= as_of), None)
    answered = request is not None and training is not None and training.seq > request.seq
    return None if answered else request


def _moment(champion: Release | None) -> datetime | None:
    return datetime.fromisoformat(champion.as_of) if champion else None
