"""From a due retrain to a champion: training set, challenger, evaluation, promotion."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from ct_assets.core.canonical import canonical_json
from ct_assets.core.gate import Bindings, TestData, validate_new_model
from ct_assets.core.spec import EstimatorSpec, ModelSpec
from ct_assets.core.training import predict, train
from ct_assets.core.verdict import CHECK_NAMES, Verdict
from ct_assets.lake.paths import write_atomically
from ct_assets.lake.releases import load_artifact
from ct_assets.lake.training_set import (
    FeatureVersions,
    TrainingSet,
    build_training_set,
    load_training_set,
    read_examples,
)
from ct_assets.lib.conditions import gate_passed, on_new_input, retrain_is_due
from ct_assets.lib.model_data import common, model_key, releases_of
from ct_assets.lib.monitoring import RETRAIN, SKIP
from ct_assets.lib.partitions import ARRIVAL_DAYS
from ct_assets.lib.promotion import promote
from ct_assets.lib.provenance import code_version, environment_digest
from ct_assets.resources.feast import FeastResource, service_versions, versions_digest
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import CHALLENGER, RegistryResource, Version


class TrainingSetConfig(dg.Config):
    """What a person may choose in the launchpad."""

    as_of: str = Field("", description="ISO 8601 moment in UTC; empty for that of the newest retrain decision.")


class ChallengerConfig(dg.Config):
    """What a person may choose in the launchpad, to try something without changing the spec."""

    estimator: str = Field("", description="Import path of another estimator than the spec's; empty for the spec's.")
    params: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of that estimator.")


def build_training_assets(spec: ModelSpec) -> list[dg.AssetsDefinition]:
    """The assets that a due retrain brings about, in order."""
    return [_training_set(spec), _challenger(spec), _evaluation(spec), _champion(spec)]


def _training_set(spec: ModelSpec) -> dg.AssetsDefinition:
    @dg.asset(
        **common(spec, "training_set", {"feast", "parquet"}),
        deps=[model_key(spec, "retrain_decision")],
        description="Snapshot of all examples whose label was known at `as_of`, named by its content.",
        automation_condition=retrain_is_due(model_key(spec, "retrain_decision")),
    )
    def training_set(config: TrainingSetConfig, lake: LakeResource, feast: FeastResource) -> dg.MaterializeResult:
        as_of = pd.Timestamp(config.as_of) if config.as_of else _decided(lake, spec)
        if as_of.tzinfo is None:
            raise ValueError(f"as_of {config.as_of!r} has no time zone; expected ISO 8601 such as 2013-06-01T00:00:00Z")
        store = feast.store()
        views = service_versions(store, spec.feature_service)
        features = FeatureVersions(views, versions_digest(views))
        snapshot = build_training_set(lake.lake(), store, spec, as_of, pd.Timestamp(ARRIVAL_DAYS.start), features)
        return dg.MaterializeResult(
            metadata={"dagster/row_count": snapshot.train_rows + snapshot.holdout_rows, **_plain(asdict(snapshot))},
            data_version=dg.DataVersion(snapshot.digest),
        )

    return training_set


def _decided(lake: LakeResource, spec: ModelSpec) -> pd.Timestamp:
    """The moment of the newest decision about this model."""
    moments = [r.as_of for kind in (RETRAIN, SKIP) if (r := lake.ledger().latest(kind, spec.name))]
    if not moments:
        raise ValueError(
            f"nothing was decided about {spec.name} yet, so there is no moment to train as of; "
            f"materialize {spec.name}/retrain_decision first, or give `as_of`"
        )
    return max(map(pd.Timestamp, moments))


def _challenger(spec: ModelSpec) -> dg.AssetsDefinition:
    @dg.asset(
        **common(spec, "challenger", {"scikitlearn", "mlflow"}),
        deps=[model_key(spec, "training_set")],
        description="Model trained on the training set, logged and registered under the alias `challenger`.",
        automation_condition=on_new_input(),
    )
    def challenger(
        context: dg.AssetExecutionContext, config: ChallengerConfig, lake: LakeResource, registry: RegistryResource
    ) -> dg.MaterializeResult:
        snapshot = load_training_set(lake.lake(), _digest_of(context, model_key(spec, "training_set")))
        estimator = EstimatorSpec(path=config.estimator, params=config.params) if config.estimator else spec.estimator
        version, facts = train_and_register(lake, registry, spec, snapshot, estimator)
        return dg.MaterializeResult(
            metadata={"version": version.version, **facts}, data_version=dg.DataVersion(str(facts["artifact_digest"]))
        )

    return challenger


def train_and_register(
    lake: LakeResource, registry: RegistryResource, spec: ModelSpec, snapshot: TrainingSet, estimator: EstimatorSpec
) -> tuple[Version, dict[str, Any]]:
    """Train on a snapshot, register the model as challenger, and record the training."""
    examples = read_examples(lake.lake(), snapshot, "train")
    holdout = read_examples(lake.lake(), snapshot, "holdout")
    trained = train(spec, examples, holdout, estimator)
    facts = {
        "artifact_digest": trained.digest,
        "training_set": snapshot.digest,
        "as_of": snapshot.as_of,
        "feature_versions": snapshot.feature_versions,
        "estimator": estimator.model_dump(mode="json"),
        "seed": spec.seed,
        "threads": spec.threads,
        "code_version": code_version(),
        "environment_digest": environment_digest(),
        "train_rows": snapshot.train_rows,
    }
    measured = {"fit_seconds": trained.seconds, "peak_mb": trained.peak_mb, "artifact_mb": len(trained.payload) / 1e6}
    chosen = hashlib.sha256(canonical_json(estimator.model_dump(mode="json")).encode()).hexdigest()[:12]
    training = f"{snapshot.digest[:16]}-{chosen}-{snapshot.as_of}"
    files = {"model.skops": trained.payload, "reference.json": trained.reference.to_json().encode()}
    tags = {"training": training, "artifact_digest": trained.digest, "training_set": snapshot.digest}
    version = registry.register(spec.name, files, tags, facts, measured)
    known = lake.lake().dataset(f"{spec.name}/performance")
    last = (pd.Timestamp(snapshot.as_of) - pd.Timedelta(days=1)).date().isoformat()
    lake.ledger().append(
        "training",
        spec.name,
        pd.Timestamp(snapshot.as_of),
        {"version": version.version, "labels_known": sum(f.rows for f in known.files(last=last)), **facts},
        key=f"training/{spec.name}/{training}",
    )
    return version, {**_plain(facts), **measured}


def _evaluation(spec: ModelSpec) -> dg.AssetsDefinition:
    key = model_key(spec, "evaluation")

    @dg.asset(
        **common(spec, "evaluation", {"scikitlearn", "html"}),
        deps=[model_key(spec, "challenger")],
        description="Challenger and champion on the newest labels, not trained on: the gate and its report.",
        automation_condition=on_new_input(),
        check_specs=[dg.AssetCheckSpec(name, asset=key) for name in CHECK_NAMES],
    )
    def evaluation(lake: LakeResource, registry: RegistryResource) -> dg.MaterializeResult:
        challenger = registry.get(spec.name, CHALLENGER)
        if challenger is None:
            raise ValueError(f"{spec.name} has no challenger to evaluate; materialize {spec.name}/challenger first")
        verdict, images, report = judge(lake, spec, challenger)
        registry.note(challenger, _figures(verdict), {"verdict": verdict.digest, "passed": str(verdict.passed)})
        return dg.MaterializeResult(
            metadata={
                "version": challenger.version,
                "verdict": "passed" if verdict.passed else "rejected",
                "reasons": dg.MetadataValue.md("\n".join(f"- {r}" for r in verdict.reasons()) or "none"),
                "report": dg.MetadataValue.url(report),
                **{name: dg.MetadataValue.md(_image(name, png)) for name, png in images.items()},
                **_figures(verdict),
            },
            check_results=[_check_result(verdict, name) for name in CHECK_NAMES],
        )

    return evaluation


def judge(lake: LakeResource, spec: ModelSpec, challenger: Version) -> tuple[Verdict, dict[str, bytes], str]:
    """Judge a challenger, keep verdict and report, and record the outcome.

    Returns:
        The verdict, the report's plots as PNG, and the report's address.
    """
    # Plotting takes seconds to import.
    from ct_assets.lib.report import ReportData, permutation_importance, plots, render

    releases = releases_of(lake, spec)
    snapshot = load_training_set(lake.lake(), challenger.tags["training_set"])
    holdout = read_examples(lake.lake(), snapshot, "holdout")
    as_of = pd.Timestamp(snapshot.as_of)
    champion = releases.champion_at(as_of)
    if champion and champion.version == challenger.version:
        # Judged again after its promotion, it meets the one that it met then.
        champion = releases.champion_at(as_of - pd.Timedelta(1, "us"))
    model = _Scorer(spec, load_artifact(challenger.artifact, challenger.tags["artifact_digest"], spec.trusted_types))
    reigning = _Scorer(spec, releases.load(champion, spec)) if champion else None
    verdict = validate_new_model(
        model,
        reigning,
        TestData(holdout[spec.columns], holdout["label"], holdout[list(spec.slices)] if spec.slices else None),
        spec.gate,
        bindings=Bindings(
            model={"name": spec.name, "version": challenger.version},
            artifact_digest=challenger.tags["artifact_digest"],
            champion_digest=champion.artifact_digest if champion else None,
            feature_versions=snapshot.feature_versions,
            training_set_digest=snapshot.digest,
            as_of=snapshot.as_of,
        ),
        window=(holdout["event_timestamp"].min(), holdout["event_timestamp"].max()) if len(holdout) else None,
        artifact_mb=Path(challenger.artifact).stat().st_size / 1e6,
    )
    releases.save_verdict(challenger.version, verdict)
    _record_verdict(lake, spec, challenger.version, verdict, as_of)
    data = ReportData(
        spec=spec,
        version=challenger.version,
        champion_version=champion.version if champion else None,
        verdict=verdict,
        label=holdout["label"],
        challenger=predict(spec, model.model, holdout),
        champion=predict(spec, reigning.model, holdout) if reigning else None,
        importance=permutation_importance(spec, model.model, holdout, holdout["label"], spec.gate.metric),
        drift=None,
        facts={k: str(v) for k, v in asdict(snapshot).items()} | {"code_version": code_version()},
        triggers=_triggers(lake, spec, as_of),
    )
    images = plots(data)
    name = f"{spec.name}/{challenger.version}.html"
    write_atomically(lake.path / "reports" / name, render(data, images).encode())
    return verdict, images, f"{lake.report_url}/reports/{name}"


class _Scorer:
    """A model behind its input conversion, so that the gate times what serving does."""

    def __init__(self, spec: ModelSpec, model: Any) -> None:
        self.spec = spec
        self.model = model

    def predict_proba(self, features: pd.DataFrame, /) -> Any:
        return predict(self.spec, self.model, features).to_numpy()


def _record_verdict(lake: LakeResource, spec: ModelSpec, version: str, verdict: Verdict, as_of: pd.Timestamp) -> None:
    content = {
        "version": version,
        "verdict": verdict.digest,
        "passed": verdict.passed,
        "reasons": verdict.reasons(),
        "metrics": verdict.metrics,
    }
    lake.ledger().append("verdict", spec.name, as_of, content, key=f"verdict/{spec.name}/{version}/{verdict.digest}")


def _triggers(lake: LakeResource, spec: ModelSpec, as_of: pd.Timestamp) -> dict[str, str]:
    record = lake.ledger().latest(RETRAIN, spec.name)
    if record is None or pd.Timestamp(record.as_of) != as_of:
        return {"manual": "trained by hand"}
    decision = record.evidence["decision"]
    return {name: decision["reasons"][name] for name in decision["triggers"]}


def _check_result(verdict: Verdict, name: str) -> dg.AssetCheckResult:
    check = next(c for c in verdict.checks if c.name == name)
    figures = {"value": check.value, "limit": check.limit}
    return dg.AssetCheckResult(
        check_name=name,
        # A warning is shown in the report; in the gate every check that is not an ERROR counts as passed.
        passed=check.passed or check.severity == "WARN",
        severity=dg.AssetCheckSeverity.ERROR,
        description=check.detail,
        metadata={k: v for k, v in figures.items() if v is not None},
    )


def _champion(spec: ModelSpec) -> dg.AssetsDefinition:
    @dg.asset(
        **common(spec, "champion", {"mlflow"}),
        deps=[model_key(spec, "evaluation")],
        description="The model that serves: moved only to a challenger whose verdict passed, verified again here.",
        automation_condition=gate_passed(),
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=pd.Timedelta(days=60).to_pytimedelta()),
    )
    def champion(lake: LakeResource, registry: RegistryResource) -> dg.MaterializeResult:
        challenger = registry.get(spec.name, CHALLENGER)
        if challenger is None:
            raise ValueError(f"{spec.name} has no challenger to promote; materialize {spec.name}/challenger first")
        release = promote(lake, registry, spec, challenger)
        return dg.MaterializeResult(
            metadata=_plain(asdict(release)), data_version=dg.DataVersion(release.artifact_digest)
        )

    return champion


def _digest_of(context: dg.AssetExecutionContext, key: dg.AssetKey) -> str:
    event = context.instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        raise ValueError(f"{key.to_user_string()} was never materialized; materialize it first")
    return str(event.asset_materialization.metadata["digest"].value)


def _figures(verdict: Verdict) -> dict[str, float]:
    return {
        f"{side}_{name}": value
        for side, metrics in verdict.metrics.items()
        for name, value in metrics.items()
        if value is not None
    }


def _image(name: str, png: bytes) -> str:
    return f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if v is not None}
