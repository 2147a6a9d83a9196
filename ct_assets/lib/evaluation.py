"""Judging a challenger: the gate, its verdict and the report."""

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pandas as pd

from ct_assets.core.baselines import fit_baseline
from ct_assets.core.drift import DriftReport
from ct_assets.core.gate import Bindings, TestData, validate_new_model
from ct_assets.core.ledger import RETRAIN, TRAINING, VERDICT, Ledger, Record
from ct_assets.core.rules import rules_digest
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import task_of
from ct_assets.core.training import predict
from ct_assets.core.verdict import CHECK_NAMES, CHECKS, Verdict
from ct_assets.lake.holds import held_release, hold_of
from ct_assets.lake.moving import event_time
from ct_assets.lake.paths import write_atomically
from ct_assets.lake.releases import Release, load_artifact
from ct_assets.lake.training_set import TrainingSet, load_training_set, read_examples
from ct_assets.lib.conditions import on_new_input
from ct_assets.lib.lineage import lineage_of, may_be_promoted
from ct_assets.lib.model_assets import common, line_of, model_key, newest_made, of_lines, releases_of
from ct_assets.lib.monitoring_reports import read_report
from ct_assets.lib.promotion import why_not_by_automation
from ct_assets.lib.provenance import code_version
from ct_assets.lib.seen import not_learned, unseen
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import CHALLENGER, RegistryResource, Version

MAY_BE_PROMOTED = "may_be_promoted"
_MAY_BE_PROMOTED = (
    "It is no experiment by hand, and no rollback holds: if the gate passes, automation promotes it. `ct promote` does "
    "otherwise."
)


def build_evaluation(spec: ModelSpec) -> dg.AssetsDefinition:
    """`evaluation`: the gate's checks, yielded with the verdict they are made of, and its report."""
    key = model_key(spec, "evaluation")

    @dg.asset(
        **common(spec, "evaluation", {"scikitlearn", "html"}),
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=spec.freshness.evaluation),
        **of_lines(spec),
        deps=[model_key(spec, "challenger")],
        description="Challenger and champion on the newest labels, not trained on: the gate and its report.",
        automation_condition=on_new_input(),
        check_specs=[
            dg.AssetCheckSpec(name, asset=key, description=told, **of_lines(spec))
            for name, told in {**CHECKS, MAY_BE_PROMOTED: _MAY_BE_PROMOTED}.items()
        ],
    )
    def evaluation(
        context: dg.AssetExecutionContext, lake: LakeResource, registry: RegistryResource
    ) -> dg.MaterializeResult:
        line = line_of(context, spec)
        challenger = _to_judge(context, lake, registry, spec, line)
        verdict, report = judge(lake, spec, line, challenger)
        registry.note(
            challenger, _figures(verdict, spec.metrics), {"verdict": verdict.digest, "passed": str(verdict.passed)}
        )
        held_back = _why_not(lake, spec, line, challenger, verdict)
        return dg.MaterializeResult(
            metadata={
                "version": challenger.version,
                "verdict": verdict.outcome,
                "reasons": dg.MetadataValue.md("\n".join(f"- {r}" for r in verdict.reasons()) or "none"),
                "report": dg.MetadataValue.url(report),
                **_figures(verdict, spec.metrics),
            },
            check_results=[
                *(_check_result(verdict, name) for name in CHECK_NAMES),
                dg.AssetCheckResult(
                    check_name=MAY_BE_PROMOTED,
                    passed=not held_back,
                    severity=dg.AssetCheckSeverity.WARN,
                    description=held_back or "nothing but the gate stands in its way",
                ),
            ],
        )

    return evaluation


def _to_judge(
    context: dg.AssetExecutionContext, lake: LakeResource, registry: RegistryResource, spec: ModelSpec, line: Line
) -> Version:
    """What was trained last; an experiment only once the loop's own challenger has been judged."""
    challenger = registry.get(line.registered, CHALLENGER)
    if challenger is not None and not releases_of(lake, line).is_judged(challenger.version):
        return challenger
    made = newest_made(context, model_key(spec, "challenger"), "version")
    if made is not None:
        return registry.version(line.registered, made)
    if challenger is None:
        raise ValueError(f"{line.name} has no challenger to evaluate; materialize {spec.name}/challenger first")
    return challenger


def _why_not(lake: LakeResource, spec: ModelSpec, line: Line, challenger: Version, verdict: Verdict) -> str:
    """Why automation would not promote it, whatever the gate says; empty if it would."""
    releases = releases_of(lake, line)
    snapshot = load_training_set(lake.lake(), challenger.tags["training_set"])
    hold = hold_of(releases, spec.gate, event_time(lake.ledger(), line))
    return why_not_by_automation(releases, verdict, snapshot, hold)


def judge(lake: LakeResource, spec: ModelSpec, line: Line, challenger: Version) -> tuple[Verdict, str]:
    """Judge a challenger of a line, keep verdict and report, and record the outcome.

    Returns:
        The verdict, and the address of the report with its plots.
    """
    # Plotting takes seconds to import.
    from ct_assets.lib.report import ReportData, permutation_importance, plots, render

    releases = releases_of(lake, line)
    snapshot = load_training_set(lake.lake(), challenger.tags["training_set"])
    as_of = pd.Timestamp(snapshot.as_of)
    champion = releases.opponent(challenger.version)
    held = held_release(releases, spec.gate, event_time(lake.ledger(), line))
    compared = [release for release in (champion, held) if release is not None]
    kept = read_examples(lake.lake(), snapshot, "holdout")
    holdout = unseen(lake.lake(), releases, spec, challenger.version, snapshot, compared, kept)
    task, column = task_of(spec), spec.baseline.column
    naive_examples = read_examples(lake.lake(), snapshot, "train", ["label", *([column] if column else [])])
    model = _Scorer(spec, load_artifact(challenger.artifact, challenger.tags["artifact_digest"], spec.trusted_types))
    reigning = _Scorer(spec, releases.load(champion, spec)) if champion else None
    rolled_back = _Scorer(spec, releases.load(held, spec)) if held else None
    older = lineage_of(releases, challenger.version).kept_back(lake.lake(), spec, snapshot)
    if older is not None:
        older = not_learned(lake.lake(), releases, spec, compared, older)
    verdict = validate_new_model(
        model,
        reigning,
        TestData(holdout[spec.columns], holdout["label"], holdout[list(spec.slices)] if spec.slices else None),
        spec.gate,
        task=task,
        metrics=(*spec.metrics, spec.policy.performance_metric),
        baseline=fit_baseline(task, spec.baseline, spec.gate.metric, naive_examples),
        reference=None if older is None else TestData(older[spec.columns], older["label"]),
        rolled_back=rolled_back,
        seen_rows=len(kept) - len(holdout),
        bindings=Bindings(
            model={"name": line.name, "version": challenger.version},
            artifact_digest=challenger.tags["artifact_digest"],
            champion_digest=champion.artifact_digest if champion else None,
            rolled_back_digest=held.artifact_digest if held else None,
            feature_versions=snapshot.feature_versions,
            training_set_digest=snapshot.digest,
            as_of=snapshot.as_of,
            rules=rules_digest(spec),
            promote=may_be_promoted(releases, challenger.version),
        ),
        window=(holdout["event_timestamp"].min(), holdout["event_timestamp"].max()) if len(holdout) else None,
        artifact_mb=Path(challenger.artifact).stat().st_size / 1e6,
    )
    releases.save_verdict(verdict)
    _record_verdict(lake, line, challenger.version, verdict, as_of)
    data = ReportData(
        spec=spec,
        version=challenger.version,
        champion_version=_named(line, champion) if champion else None,
        verdict=verdict,
        label=holdout["label"],
        challenger=predict(spec, model.model, holdout),
        champion=predict(spec, reigning.model, holdout) if reigning else None,
        importance=permutation_importance(spec, model.model, holdout, holdout["label"], spec.gate.metric),
        drift=_drift_then(lake, spec, line, as_of),
        facts=_facts(snapshot),
        triggers=_triggers(lake, line, challenger.version, as_of),
    )
    name = f"{line.folder}/{challenger.version}.html"
    write_atomically(lake.path / "reports" / name, render(data, plots(data)).encode())
    return verdict, f"{lake.report_url}/reports/{quote(name)}"


def _facts(snapshot: TrainingSet) -> dict[str, str]:
    """What the report says of the training; the features' versions are among what the verdict binds to."""
    told = {name: str(value) for name, value in asdict(snapshot).items() if value is not None}
    del told["feature_versions"]
    return told | {"code_version": code_version()}


def _named(line: Line, champion: Release) -> str:
    """Its version, and whose it is where that is another line's."""
    return champion.version if champion.model == line.name else f"{champion.version} of {champion.model}"


class _Scorer:
    """A model behind its input conversion, so that the gate times what serving does."""

    def __init__(self, spec: ModelSpec, model: Any) -> None:
        self.spec = spec
        self.model = model

    def predict(self, features: pd.DataFrame, /) -> Any:
        return predict(self.spec, self.model, features)

    predict_proba = predict


def _record_verdict(lake: LakeResource, line: Line, version: str, verdict: Verdict, as_of: pd.Timestamp) -> None:
    content = {
        "version": version,
        "verdict": verdict.digest,
        "passed": verdict.passed,
        "outcome": verdict.outcome,
        "reasons": verdict.reasons(),
        "metrics": verdict.metrics,
        **({} if verdict.bindings.promote else {"promote": False}),
    }
    ledger, key = lake.ledger(), f"verdict/{line.name}/{version}/{verdict.digest}"
    known = ledger.find(key)
    if known is not None and (since := _asked_again(ledger, known)) is not None:
        key += f"/again/{since.seq}"
    ledger.append(VERDICT, line.name, as_of, content, key=key)


def _asked_again(ledger: Ledger, known: Record) -> Record | None:
    """The newest record since a verdict that lets the same one count anew: another verdict, or a retrain to answer.

    Rules may be changed there and back again, an opponent be rolled back, or a training come out as the one before.
    """
    for record in ledger.iterate(model=known.model, newest_first=True):
        is_known = _is_about_the_same(record, known) and record.evidence["verdict"] == known.evidence["verdict"]
        if record.seq <= known.seq or is_known:
            return None
        is_to_be_answered = record.kind == RETRAIN and record.as_of == known.as_of
        if is_to_be_answered or _is_about_the_same(record, known):
            return record
    return None


def _is_about_the_same(record: Record, known: Record) -> bool:
    return record.kind == VERDICT and bool(record.evidence["version"] == known.evidence["version"])


def _triggers(lake: LakeResource, line: Line, version: str, as_of: pd.Timestamp) -> dict[str, str]:
    ledger = lake.ledger()
    trained = [r for r in ledger.records(TRAINING, line.name) if r.evidence["version"] == version]
    decided = [r for r in ledger.records(RETRAIN, line.name) if pd.Timestamp(r.as_of) == as_of]
    if not decided or (trained and trained[-1].evidence["by_hand"]):
        return {"manual": "trained by hand"}
    decision = decided[-1].evidence["decision"]
    return {name: decision["reasons"][name] for name in decision["triggers"]}


def _drift_then(lake: LakeResource, spec: ModelSpec, line: Line, as_of: pd.Timestamp) -> DriftReport | None:
    """What the decision of that moment saw; None while there was no champion."""
    found = read_report(lake.lake(), spec, "drift", as_of, line)
    return DriftReport.model_validate(found) if found else None


def _check_result(verdict: Verdict, name: str) -> dg.AssetCheckResult:
    check = verdict.check(name)
    assert check is not None
    figures = {"value": check.value, "limit": check.limit}
    return dg.AssetCheckResult(
        check_name=name,
        # A warning is shown in the report; in the gate every check that is not an ERROR counts as passed.
        passed=check.passed or check.severity == "WARN",
        severity=dg.AssetCheckSeverity.WARN if check.inconclusive else dg.AssetCheckSeverity.ERROR,
        description=f"inconclusive: {check.detail}" if check.inconclusive else check.detail,
        metadata={k: v for k, v in figures.items() if v is not None},
    )


def _figures(verdict: Verdict, wanted: Collection[str]) -> dict[str, float]:
    return {
        f"{side}_{name}": value
        for side, metrics in verdict.metrics.items()
        for name, value in metrics.items()
        if value is not None and name in wanted
    }
