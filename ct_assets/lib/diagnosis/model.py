"""A model as it is examined: what the team wrote, next to what the deployment has."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ct_assets.core.spec import ModelSpec
from ct_assets.lake.contract import Source
from ct_assets.lib.diagnosis.declared import Declared
from ct_assets.lib.features import FeatureSet, FeatureSql


@dataclass(frozen=True)
class Examined:
    """What the checks look at.

    Attributes:
        spec: The model.
        sources: Contracts of the deployment by name.
        feature_sets: Where the views of its feature service are computed.
        declared: What Feast's repository declares; None where it is not loaded.
        home: `$CT_HOME`, for checks that look at rows which have arrived; None for none of those.
        file: Where the spec is written.
    """

    spec: ModelSpec
    sources: Mapping[str, Source]
    feature_sets: Sequence[FeatureSet]
    declared: Declared | None = None
    home: Path | None = None
    file: str = "spec"

    def at(self, field: str) -> str:
        """Where a field of the spec is written."""
        return f"{self.file}: {field}"

    def views(self) -> Iterator[tuple[str, FeatureSql, FeatureSet]]:
        """Every view that is computed for the model, with its SQL and its feature set."""
        for features in self.feature_sets:
            for view, how in features.views.items():
                yield view, how, features
