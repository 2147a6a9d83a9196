"""Trainings that go on from the champion of their moment; none of a lineage sees what its first one kept back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from ct_assets.core.artifact import load_model
from ct_assets.core.canonical import digest
from ct_assets.core.division import MATURES, Division, keep_back
from ct_assets.core.inner_split import RowTimes
from ct_assets.core.ledger import TRAINING
from ct_assets.core.lesson import Start
from ct_assets.core.spec import EstimatorSpec, ModelSpec
from ct_assets.core.strategies import StrategySpec
from ct_assets.lake.lake import Lake
from ct_assets.lake.releases import Releases
from ct_assets.lake.training_set import TrainingSet, load_training_set, read_examples


@dataclass(frozen=True)
class Lineage:
    """Where a training comes from; the empty one for a strategy that always begins anew.

    Attributes:
        digest: What all of its trainings have in common: estimator, inputs, strategy, definitions of the features.
        reference: First and last moment of the examples kept from all of them, ISO 8601 in UTC, the last excluded.
        started_from: `version`, `artifact_digest` and `training_set` of the champion that this one went on from; None
            for the first of a lineage.
    """

    digest: str | None = None
    reference: tuple[str, str] | None = None
    started_from: Mapping[str, str] | None = None

    def for_training(self, spec: ModelSpec, examples: pd.DataFrame) -> pd.DataFrame:
        """The examples without those that are kept back, and without those whose label is of the time of theirs."""
        if self.reference is None:
            return examples
        return examples[self._division(spec, examples).train].reset_index(drop=True)

    def kept_back(self, lake: Lake, spec: ModelSpec, snapshot: TrainingSet) -> pd.DataFrame | None:
        """The examples to judge on what was forgotten; None when nothing is kept or nothing can be forgotten yet."""
        if self.started_from is None or self.reference is None:
            return None
        examples = read_examples(lake, snapshot, "train")
        return examples[self._division(spec, examples).holdout].reset_index(drop=True)

    def start(self, lake: Lake, releases: Releases, spec: ModelSpec, examples: pd.DataFrame) -> Start | None:
        """The champion to go on from, and which of the examples are new to it; None for the first of a lineage.

        Raises:
            ArtifactError: The champion's bytes are not the judged ones, or it may not serve.
            FileNotFoundError: Its artifact or its training set is gone.
        """
        if self.started_from is None:
            return None
        release = releases.get(self.started_from["version"])
        releases.check(release)
        # A copy of its own: what `Releases.load` keeps in memory scores and is judged against.
        model = load_model(
            Path(release.artifact).read_bytes(), self.started_from["artifact_digest"], spec.trusted_types
        )
        learned, id_column = load_training_set(lake, self.started_from["training_set"]), spec.events.id_column
        seen = read_examples(lake, learned, "train", [id_column])
        return Start(model, ~examples[id_column].isin(seen[id_column]).to_numpy())

    def facts(self, spec: ModelSpec) -> dict[str, Any]:
        """What to record of a training, beyond what is recorded of all of them."""
        changed = {"strategy": spec.strategy.model_dump(mode="json")} if spec.strategy != StrategySpec() else {}
        weighted = {"weight": spec.weight} if spec.weight else {}
        return changed | weighted | ({"lineage": asdict(self)} if self.digest else {})

    def _division(self, spec: ModelSpec, examples: pd.DataFrame) -> Division:
        assert self.reference is not None
        times = RowTimes.of(examples, spec.label.reach)
        # What is newest in a snapshot of the first version is told by prediction, and so is what was kept of it.
        shift = timedelta(0) if MATURES in examples else spec.label.reach or timedelta(0)
        first, end = (pd.Timestamp(moment) + shift for moment in self.reference)
        return keep_back(times.predicted, times.matures, first, end, times.by_maturity)


def find_lineage(releases: Releases, spec: ModelSpec, snapshot: TrainingSet, estimator: EstimatorSpec) -> Lineage:
    """Tell what a training on a snapshot goes on from: the champion of that moment, if it is of the same lineage.

    Without such a champion (none yet, or one of another estimator, strategy or feature version) a new lineage begins
    with a training on all examples. A champion that was made of this very snapshot is this training's own outcome: a
    repeated run goes on from what it went on from then.
    """
    if not spec.strategy.continues:
        return Lineage()
    identity = _identity(spec, snapshot, estimator)
    champion = releases.champion_at(pd.Timestamp(snapshot.as_of))
    record = None if champion is None else training_of(releases, champion.version)
    if champion is None or record is None or record.get("lineage", {}).get("digest") != identity:
        return Lineage(identity, _reference(spec, snapshot))
    former = _read(record["lineage"])
    if champion.training_set == snapshot.digest:
        return former
    return Lineage(
        identity,
        former.reference,
        {
            "version": champion.version,
            "artifact_digest": champion.artifact_digest,
            "training_set": champion.training_set,
        },
    )


def training_of(releases: Releases, version: str) -> Mapping[str, Any] | None:
    """What was recorded of the training of a version; None if nothing was."""
    found = [r for r in releases.ledger.records(TRAINING, releases.model) if r.evidence["version"] == version]
    return found[-1].evidence if found else None


def may_be_promoted(releases: Releases, version: str) -> bool:
    """Whether automation may promote a version if it passes: not an experiment by hand, or what it has not trained."""
    record = training_of(releases, version)
    return record is not None and bool(record.get("promote", True))


def lineage_of(releases: Releases, version: str) -> Lineage:
    """Where a version comes from, as it was recorded; the empty one for a training of none."""
    record = training_of(releases, version)
    return _read(record["lineage"]) if record and "lineage" in record else Lineage()


def _identity(spec: ModelSpec, snapshot: TrainingSet, estimator: EstimatorSpec) -> str:
    return digest(
        {
            "task": [spec.task, *spec.classes, *map(str, spec.quantiles)],
            "estimator": estimator,
            "inputs": list(spec.inputs.items()),
            "strategy": spec.strategy,
            "weight": spec.weight,
            "seed": spec.seed,
            "feature_versions": snapshot.feature_versions,
        }
    )


def _reference(spec: ModelSpec, snapshot: TrainingSet) -> tuple[str, str] | None:
    if spec.strategy.reference is None:
        return None
    end = pd.Timestamp(snapshot.split_at)
    return (end - spec.strategy.reference).isoformat(), end.isoformat()


def _read(content: Mapping[str, Any]) -> Lineage:
    kept = content["reference"]
    reference = (kept[0], kept[1]) if kept else None
    return Lineage(content["digest"], reference, content["started_from"])
