"""The year's loop as a script that somebody writes by hand: no orchestrator, no automation, no model registry.

It calls the platform's own computations, so both do the same work, and is told when to train. What it leaves out is
what the platform adds: requests decided by conditions, runs and events, checks, metadata, lineage, the daily decision
with its record, MLflow, the evaluation report, and going on after a kill.
"""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from ct_assets.core.baselines import fit_baseline
from ct_assets.core.gate import Bindings, TestData, validate_new_model
from ct_assets.core.ledger import PROMOTION, TRAINING, VERDICT, Ledger
from ct_assets.core.segments import Line
from ct_assets.core.spec import EstimatorSpec, ModelSpec
from ct_assets.core.tasks import task_of
from ct_assets.core.training import predict, train
from ct_assets.core.verdict import Verdict
from ct_assets.defs.features.flights import FEATURE_SETS
from ct_assets.defs.models.flight_delay.spec import SPEC
from ct_assets.defs.sources.contracts import DOMAIN, SOURCES
from ct_assets.feeds import feed_wave
from ct_assets.feeds.nycflights import NycFlights
from ct_assets.feeds.nycflights_faults import deliveries
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.examples import scored_name
from ct_assets.lake.ingest import ingest
from ct_assets.lake.lake import Lake
from ct_assets.lake.paths import write_atomically
from ct_assets.lake.releases import Release, Releases, load_artifact
from ct_assets.lake.training_set import FeatureVersions, TrainingSet, build_training_set, read_examples
from ct_assets.lib.drifting import drift_of_lines
from ct_assets.lib.features import compute, publish
from ct_assets.lib.label_counts import labels_of_lines
from ct_assets.lib.monitoring_reports import save_report
from ct_assets.lib.outcomes import recent_outcomes, save_outcomes
from ct_assets.lib.partitions import end_of
from ct_assets.lib.performance import performance_reports
from ct_assets.lib.scoring import score_day
from ct_assets.resources.feast import feature_store, service_versions, versions_digest


@dataclass(frozen=True)
class Training:
    """One training to do.

    Attributes:
        as_of: Moment of event time, ISO 8601 in UTC.
        estimator: What is trained.
    """

    as_of: str
    estimator: EstimatorSpec


class _Scorer:
    """A model behind its input conversion, as the gate wants it."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def predict_proba(self, features: pd.DataFrame, /) -> Any:
        return predict(SPEC, self.model, features)


class BareLoop:
    """The script's state.

    Args:
        home: Where everything is written; in the layout of `$CT_HOME`, so that both results compare file by file.
        trainings: What to train, in order.
    """

    def __init__(self, home: Path, trainings: list[Training]) -> None:
        self.home = home
        self.lake = Lake(home)
        self.store = feature_store(home)
        self.feed = NycFlights()
        # Champions are looked up in the promotions, the only records that are written here beside the trainings.
        self.ledger = Ledger(home / "ledger" / "decisions.jsonl")
        self.releases = Releases(home, Line(SPEC.name), self.ledger)
        self.todo = list(trainings)
        self.version = 0

    def day(self, partition: str) -> None:
        """Everything that one arrival day brings about."""
        for wave in deliveries(self.feed, date.fromisoformat(partition)):
            feed_wave(wave, str(self.home))
            for source in {delivery.source for delivery in wave}:
                self._take_in(source, partition)
        self._score_and_watch(partition)
        while self.todo and pd.Timestamp(self.todo[0].as_of) <= end_of(partition):
            self._train(self.todo.pop(0))

    def _take_in(self, name: str, day: str) -> None:
        source = next(s for s in SOURCES if s.name == name)
        partition = day if source.daily else WHOLE
        if not any(batch.status == "accepted" for batch in ingest(self.lake, source, partition)):
            return
        for features in FEATURE_SETS:
            if features.source.name == name:
                for view, table in compute(self.lake, features, partition).items():
                    publish(self.lake, self.store, view, partition, table, features.views[view].digest)

    def _score_and_watch(self, partition: str) -> None:
        table, _ = score_day(self.lake, self.store, self.releases, SPEC, partition)
        self.lake.dataset(scored_name(SPEC), "event_timestamp").write(partition, table)
        save_outcomes(self.lake, SPEC, partition)
        as_of, lines, line = end_of(partition), [self.releases], self.releases.line
        labels, outcomes = labels_of_lines(self.lake, SPEC, as_of), recent_outcomes(self.lake, lines, SPEC, as_of)
        performance = performance_reports(self.lake, lines, SPEC, as_of, labels, outcomes)[line]
        save_report(self.lake, SPEC, "performance", as_of, performance)
        drift = drift_of_lines(self.lake, lines, SPEC, as_of, outcomes)[line]
        save_report(self.lake, SPEC, "drift", as_of, drift.model_dump(mode="json") if drift else {})

    def _train(self, training: Training) -> None:
        self.version += 1
        as_of, version = pd.Timestamp(training.as_of), str(self.version)
        views = service_versions(self.store, SPEC.feature_service)
        features = FeatureVersions(views, versions_digest(views))
        first = pd.Timestamp(DOMAIN.first_day, tz="UTC")
        snapshot = build_training_set(self.lake, self.store, SPEC, as_of, first, features)
        holdout = read_examples(self.lake, snapshot, "holdout")
        trained = train(SPEC, read_examples(self.lake, snapshot, "train"), holdout, training.estimator)
        artifact = self.home / "models" / version / "model.skops"
        write_atomically(artifact, trained.payload)
        write_atomically(artifact.with_name("reference.json"), trained.reference.to_json().encode())
        self.ledger.append(TRAINING, SPEC.name, as_of, {"version": version, "artifact_digest": trained.digest})
        verdict = self._judge(version, artifact, trained.digest, snapshot, holdout)
        if verdict.passed:
            self._promote(version, artifact, snapshot, verdict)

    def _judge(
        self, version: str, artifact: Path, digest: str, snapshot: TrainingSet, holdout: pd.DataFrame
    ) -> Verdict:
        as_of = pd.Timestamp(snapshot.as_of)
        learned = read_examples(self.lake, snapshot, "train", ["label"])
        champion = self.releases.champion_at(as_of)
        verdict = validate_new_model(
            _Scorer(load_artifact(str(artifact), digest, SPEC.trusted_types)),
            _Scorer(self.releases.load(champion, SPEC)) if champion else None,
            TestData(holdout[SPEC.columns], holdout["label"], holdout[list(SPEC.slices)]),
            SPEC.gate,
            metrics=(*SPEC.metrics, SPEC.policy.performance_metric),
            baseline=fit_baseline(task_of(SPEC), SPEC.baseline, SPEC.gate.metric, learned),
            bindings=Bindings(
                model={"name": SPEC.name, "version": version},
                artifact_digest=digest,
                champion_digest=champion.artifact_digest if champion else None,
                feature_versions=snapshot.feature_versions,
                training_set_digest=snapshot.digest,
                as_of=as_of,
            ),
            window=(holdout["event_timestamp"].min(), holdout["event_timestamp"].max()),
            artifact_mb=artifact.stat().st_size / 1e6,
        )
        self.releases.save_verdict(verdict)
        evidence = {"version": version, "verdict": verdict.digest, "passed": verdict.passed}
        self.ledger.append(VERDICT, SPEC.name, as_of, evidence)
        return verdict

    def _promote(self, version: str, artifact: Path, snapshot: TrainingSet, verdict: Verdict) -> None:
        release = Release(
            model=SPEC.name,
            version=version,
            artifact=str(artifact),
            artifact_digest=str(verdict.bindings.artifact_digest),
            feature_service=SPEC.feature_service,
            feature_versions=snapshot.feature_versions,
            training_set=snapshot.digest,
            verdict=verdict.digest,
            as_of=snapshot.as_of,
        )
        self.releases.save(release)
        self.ledger.append(PROMOTION, SPEC.name, pd.Timestamp(snapshot.as_of), {"version": version})


def read_plan(path: Path) -> list[Training]:
    """The trainings that `write_plan` wrote."""
    return [
        Training(entry["as_of"], EstimatorSpec.model_validate(entry["estimator"]))
        for entry in json.loads(path.read_text())
    ]


def write_plan(home: Path, path: Path, spec: ModelSpec = SPEC) -> None:
    """Write down when the demo under `home` trained, and what, in order."""
    records = Ledger(home / "ledger" / "decisions.jsonl").records(TRAINING, spec.name)
    path.write_text(json.dumps([{"as_of": r.as_of, "estimator": dict(r.evidence["estimator"])} for r in records]))
