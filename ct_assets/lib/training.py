"""From a due retrain to a champion: training set, challenger, evaluation, promotion."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from ct_assets.core.ledger import TRAINING
from ct_assets.core.segments import Line
from ct_assets.core.spec import EstimatorSpec, ModelSpec
from ct_assets.core.training import train
from ct_assets.lake.contract import Domain
from ct_assets.lake.moving import moving
from ct_assets.lake.releases import Release, Releases
from ct_assets.lake.training_set import (
    FeatureVersions,
    TrainingSet,
    build_training_set,
    load_training_set,
    read_examples,
)
from ct_assets.lib.automation import SENSOR_TAG
from ct_assets.lib.conditions import gate_passed, on_new_input, retrain_is_due, segment_retrain_is_due
from ct_assets.lib.decisions import newest_decision
from ct_assets.lib.evaluated import evaluation_files
from ct_assets.lib.evaluation import build_evaluation, judge
from ct_assets.lib.label_counts import labels_of_lines
from ct_assets.lib.lineage import find_lineage
from ct_assets.lib.model_assets import (
    RETRAIN_DUE,
    common,
    line_of,
    model_key,
    model_tags,
    newest_made,
    of_lines,
    releases_of,
)
from ct_assets.lib.promotion import OtherOpponentError, PromotionError, promote
from ct_assets.lib.provenance import code_version, environment_digest
from ct_assets.lib.recovery import REQUESTED_BY
from ct_assets.lib.seen import growth_of
from ct_assets.resources.feast import FeastResource, service_versions, versions_digest
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import RegistryResource, Version

_AUTOMATED = {SENSOR_TAG, REQUESTED_BY}
"""Tags of runs that automation asked for, at the first attempt or at another one."""


class TrainingSetConfig(dg.Config):
    """What a person may choose in the launchpad."""

    as_of: str = Field("", description="ISO 8601 moment in UTC; empty for that of the newest retrain decision.")


class ChallengerConfig(dg.Config):
    """What a person may choose in the launchpad, to try something without changing the spec."""

    estimator: str = Field("", description="Import path of another estimator than the spec's; empty for the spec's.")
    params: dict[str, Any] = Field(
        default_factory=dict, description="All keyword arguments of that estimator, or of the spec's if none is named."
    )


class ChampionConfig(dg.Config):
    """What a person may say in the launchpad."""

    reason: str = Field(
        "", description="Why an experiment, or anything while a rollback holds, is to be promoted: in words; recorded."
    )


def build_training_assets(spec: ModelSpec, domain: Domain) -> list[dg.AssetsDefinition]:
    """The assets that a due retrain brings about, in order."""
    return [_training_set(spec, domain), _challenger(spec), build_evaluation(spec), _champion(spec)]


def retrain_due_asset(spec: ModelSpec) -> dg.AssetSpec:
    """What stands between the daily decisions about all lines and the training of each."""
    return dg.AssetSpec(
        model_key(spec, RETRAIN_DUE),
        deps=[model_key(spec, "retrain_decision")],
        description="Lines of which a retrain is due: the model's own and its segments, reported by the decision.",
        group_name=spec.name,
        owners=[spec.owner],
        kinds={"duckdb"},
        tags=model_tags(spec),
        **of_lines(spec),
    )


def _training_set(spec: ModelSpec, domain: Domain) -> dg.AssetsDefinition:
    decision = model_key(spec, "retrain_decision")

    @dg.asset(
        **common(spec, "training_set", {"feast", "parquet"}),
        **of_lines(spec),
        deps=[model_key(spec, RETRAIN_DUE) if spec.segment_by else decision],
        description="Snapshot of all examples whose label was known at `as_of`, named by its content.",
        automation_condition=segment_retrain_is_due() if spec.segment_by else retrain_is_due(decision),
    )
    def training_set(
        context: dg.AssetExecutionContext, config: TrainingSetConfig, lake: LakeResource, feast: FeastResource
    ) -> dg.MaterializeResult:
        line = line_of(context, spec)
        as_of = _chosen(config.as_of, _decided(lake, line))
        store = feast.store()
        views = service_versions(store, spec.feature_service)
        features = FeatureVersions(views, versions_digest(views))
        first = pd.Timestamp(domain.first_day, tz="UTC")
        growth = growth_of(lake.lake(), releases_of(lake, line), spec, as_of)
        snapshot = build_training_set(lake.lake(), store, spec, as_of, first, features, line.segment, growth)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": snapshot.train_rows + snapshot.holdout_rows,
                "digest": snapshot.digest,
                **_plain(asdict(snapshot)),
            },
            data_version=dg.DataVersion(snapshot.digest),
        )

    return training_set


def _decided(lake: LakeResource, line: Line) -> pd.Timestamp:
    """The newest moment that was decided about: all that was known by then has been worked off."""
    decision = newest_decision(releases_of(lake, line))
    if decision is None:
        raise ValueError(
            f"nothing was decided about {line.name} yet, so there is no moment to train as of; "
            f"materialize {line.model}/retrain_decision first"
        )
    return pd.Timestamp(decision.as_of)


def _chosen(as_of: str, newest: pd.Timestamp) -> pd.Timestamp:
    """The moment that a person chose; the newest when empty."""
    if not as_of:
        return newest
    expected = "expected ISO 8601 with a time zone, such as 2013-06-01T00:00:00Z"
    try:
        moment = pd.Timestamp(as_of)
    except ValueError as error:
        raise ValueError(f"as_of {as_of!r} is no moment; {expected}") from error
    if moment.tzinfo is None:
        raise ValueError(f"as_of {as_of!r} has no time zone; {expected}")
    if moment > newest:
        raise ValueError(
            f"as_of {as_of!r} is later than {newest.isoformat()}, the newest moment that was decided about; expected "
            "that or an earlier one: what was known later has not been taken in"
        )
    return moment


def _challenger(spec: ModelSpec) -> dg.AssetsDefinition:
    @dg.asset(
        **common(spec, "challenger", {"scikitlearn", "mlflow"}),
        **of_lines(spec),
        deps=[model_key(spec, "training_set")],
        description="Model trained on the training set, logged and registered under the alias `challenger`.",
        automation_condition=on_new_input(),
    )
    def challenger(
        context: dg.AssetExecutionContext, config: ChallengerConfig, lake: LakeResource, registry: RegistryResource
    ) -> dg.MaterializeResult:
        line = line_of(context, spec)
        snapshot = load_training_set(lake.lake(), _digest_of(context, model_key(spec, "training_set")))
        estimator = spec.estimator
        if config.estimator or config.params:
            estimator = EstimatorSpec(path=config.estimator or estimator.path, params=config.params)
        by_hand = not _AUTOMATED & context.run.tags.keys()
        version, facts = train_and_register(lake, registry, spec, line, snapshot, estimator, by_hand)
        return dg.MaterializeResult(
            metadata={"version": version.version, **facts}, data_version=dg.DataVersion(str(facts["artifact_digest"]))
        )

    return challenger


def train_and_register(
    lake: LakeResource,
    registry: RegistryResource,
    spec: ModelSpec,
    line: Line,
    snapshot: TrainingSet,
    estimator: EstimatorSpec,
    by_hand: bool = False,
) -> tuple[Version, dict[str, Any]]:
    """Train on a snapshot, register the model, as challenger of its line if it is no experiment, and record it.

    The same model of the same snapshot is registered once, whoever else does the same meanwhile. What was tried is no
    experiment any more once the loop comes to the same.
    """
    releases = releases_of(lake, line)
    lineage = find_lineage(releases, spec, snapshot, estimator)
    examples = lineage.for_training(spec, read_examples(lake.lake(), snapshot, "train"))
    holdout = read_examples(lake.lake(), snapshot, "holdout")
    trained = train(spec, examples, holdout, estimator, lineage.start(lake.lake(), releases, spec, examples))
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
        "fitted": asdict(trained.fitted),
        **_window_facts(spec, snapshot),
        **lineage.facts(spec),
    }
    measured = {"fit_seconds": trained.seconds, "peak_mb": trained.peak_mb, "artifact_mb": len(trained.payload) / 1e6}
    training = f"{snapshot.digest[:16]}-{trained.digest[:16]}-{snapshot.as_of}"
    files = {
        "model.skops": trained.payload,
        "reference.json": trained.reference.to_json().encode(),
        **evaluation_files(spec, examples, holdout, trained.predictions),
    }
    tags = {"training": training, "artifact_digest": trained.digest, "training_set": snapshot.digest}
    key, as_of = f"training/{line.name}/{training}", pd.Timestamp(snapshot.as_of)
    labels = labels_of_lines(lake.lake(), spec, as_of).get(line, 0)
    with moving(lake.path):
        known = releases.ledger.find(key)
        experiment = known is None and _is_experiment(releases, spec, snapshot, estimator, by_hand)
        version = registry.register(line.registered, files, tags, facts, measured, challenger=not experiment)
        content = {"version": version.version, "by_hand": by_hand, "promote": not experiment, "labels_known": labels}
        key += "/experiment" if experiment else ""
        releases.ledger.append(TRAINING, line.name, as_of, {**content, **facts}, key=key)
    return version, {**_plain(facts), **measured}


def _window_facts(spec: ModelSpec, snapshot: TrainingSet) -> dict[str, Any]:
    """The evaluation window, where it is longer than the spec declares."""
    if snapshot.evaluation_days <= spec.evaluation_days:
        return {}
    return {"evaluation_days": snapshot.evaluation_days, "declared_evaluation_days": spec.evaluation_days}


def _is_experiment(
    releases: Releases, spec: ModelSpec, snapshot: TrainingSet, estimator: EstimatorSpec, by_hand: bool
) -> bool:
    """Whether a person tried something: another estimator than the spec's, or a moment before the newest decision's."""
    decided = newest_decision(releases)
    past = by_hand and decided is not None and pd.Timestamp(snapshot.as_of) < pd.Timestamp(decided.as_of)
    return estimator != spec.estimator or past


def _champion(spec: ModelSpec) -> dg.AssetsDefinition:
    @dg.asset(
        **common(spec, "champion", {"mlflow"}),
        **of_lines(spec),
        deps=[model_key(spec, "evaluation")],
        description="The model that serves: moved only to a challenger whose verdict passed, verified again here.",
        automation_condition=gate_passed(),
        output_required=False,
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=spec.freshness.champion),
    )
    def champion(
        context: dg.AssetExecutionContext, config: ChampionConfig, lake: LakeResource, registry: RegistryResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetObservation]:
        line = line_of(context, spec)
        # What was judged, and not what was trained since.
        judged = newest_made(context, model_key(spec, "evaluation"), "version")
        if judged is None:
            raise ValueError(f"{line.name} has no challenger to promote; materialize {spec.name}/evaluation first")
        challenger = registry.version(line.registered, judged)
        try:
            release = promote_judged(lake, registry, spec, line, challenger, config.reason)
        except PromotionError as error:
            if not _AUTOMATED & context.run.tags.keys():
                raise
            # Requested when the gate had passed; what has changed since is a normal outcome and no broken run.
            context.log.warning(str(error))
            yield dg.AssetObservation(
                context.asset_key,
                partition=context.partition_key if context.has_partition_key else None,
                metadata={"version": challenger.version, "not_promoted": str(error)},
            )
            return
        metadata, partition = _plain(asdict(release)), context.partition_key if context.has_partition_key else None
        if newest_made(context, context.asset_key, "version") == release.version:
            # It serves already: its date, by which freshness counts, stays.
            yield dg.AssetObservation(context.asset_key, partition=partition, metadata=metadata)
        else:
            yield dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(release.artifact_digest))

    return champion


def promote_judged(
    lake: LakeResource, registry: RegistryResource, spec: ModelSpec, line: Line, challenger: Version, reason: str = ""
) -> Release:
    """Promote a challenger; judge it again first if another model serves by now than its verdict compares with.

    Raises:
        ArtifactError: Its verdict is no pass.
        PromotionError: It may not become the champion, or does not pass against what serves now.
    """
    try:
        return promote(lake, registry, spec, line, challenger, reason)
    except OtherOpponentError as error:
        verdict, *_ = judge(lake, spec, line, challenger)
        if not verdict.passed:
            reasons = "; ".join(verdict.reasons())
            raise PromotionError(f"{error}. That was done, and it is {verdict.outcome}: {reasons}") from error
        return promote(lake, registry, spec, line, challenger, reason)


def _digest_of(context: dg.AssetExecutionContext, key: dg.AssetKey) -> str:
    found = newest_made(context, key, "digest")
    if found is None:
        raise ValueError(f"{key.to_user_string()} was never materialized; materialize it first")
    return found


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if v is not None}
