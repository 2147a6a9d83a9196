"""One model from one `defs.yaml`: its spec in YAML, and all of its assets, checks and automation."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel, Field, model_validator

from ct_assets.core.spec import ModelSpec
from ct_assets.lib.features import FeatureSet, build_features
from ct_assets.lib.model import build_model

TEMPLATE = Path(__file__).with_name("template")


class ModelFile(ModelSpec):
    """The attributes of a `defs.yaml`: a `ModelSpec`, and where its features are computed."""

    feature_sets: tuple[str, ...] = Field(
        (), description="Import paths of `FeatureSet`s, or of sequences of them, that the service reads and that exist."
    )
    own_feature_sets: tuple[str, ...] = Field(
        (), description="The same for those that come with this model: their assets are made here, once."
    )

    @model_validator(mode="after")
    def _has_features(self) -> Self:
        if not (self.feature_sets or self.own_feature_sets):
            raise ValueError("neither feature_sets nor own_feature_sets names any; expected those the service reads")
        return self

    @property
    def spec(self) -> ModelSpec:
        """The spec alone."""
        return ModelSpec.model_validate({name: getattr(self, name) for name in ModelSpec.model_fields})


class Template(dg.Scaffolder):
    """Starts a model with a `defs.yaml` and a `features.py` to fill in."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write the files of a new model; its folder's name becomes the model's.

        Raises:
            ValueError: Another format than YAML was asked for.
        """
        if request.scaffold_format != "yaml":
            raise ValueError("a model starts from YAML; in Python, call `build_model(spec, feature_sets)` in a defs.py")
        request.target_path.mkdir(parents=True, exist_ok=True)
        for file in sorted(TEMPLATE.iterdir()):
            text = file.read_text().replace("{name}", request.target_path.name).replace("{type}", request.type_name)
            (request.target_path / file.name.removesuffix(".txt")).write_text(text)


@dg.scaffold_with(Template)
class ContinuousTraining(dg.Component):
    """A model that is trained, judged, promoted, watched and retrained by itself.

    Args:
        spec: The model.
        feature_sets: Where the views of its feature service are computed, as far as others make their assets.
        own_feature_sets: The rest of them.
    """

    def __init__(
        self, spec: ModelSpec, feature_sets: Sequence[FeatureSet], own_feature_sets: Sequence[FeatureSet] = ()
    ) -> None:
        self.spec = spec
        self.feature_sets = feature_sets
        self.own_feature_sets = own_feature_sets

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """What `defs.yaml` may say; `dg check yaml` checks it."""
        return ModelFile

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:  # noqa: ARG003  Dagster's signature
        """From the attributes of a `defs.yaml`."""
        assert isinstance(attributes, ModelFile)
        named = (attributes.feature_sets, attributes.own_feature_sets)
        shared, own = ([found for path in paths for found in _feature_sets(path)] for paths in named)
        return cls(attributes.spec, shared, own)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002  Dagster's signature
        """All of the model's assets, checks and its automation sensor."""
        model = build_model(self.spec, [*self.feature_sets, *self.own_feature_sets])
        return dg.Definitions.merge(model, *map(build_features, self.own_feature_sets))


def _feature_sets(path: str) -> Sequence[FeatureSet]:
    module, _, name = path.rpartition(".")
    expected = "expected the import path of a FeatureSet or of a sequence of them"
    try:
        found: Any = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"feature_sets: {path!r} cannot be imported ({error}); {expected}") from error
    sets = [found] if isinstance(found, FeatureSet) else found
    if not isinstance(sets, Sequence) or not all(isinstance(each, FeatureSet) for each in sets):
        raise ValueError(f"feature_sets: {path!r} is a {type(found).__name__}; {expected}")
    return sets
