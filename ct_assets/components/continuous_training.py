"""One model from one `defs.yaml`: its spec in YAML, and all of its assets, checks and automation."""

import re
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Self

import dagster as dg
from pydantic import BaseModel, Field, model_validator

from ct_assets.core.imports import imported
from ct_assets.core.spec import MODEL_NAME, ModelSpec
from ct_assets.lake.contract import Source
from ct_assets.lib.diagnosis import Examined, refuse_mistakes
from ct_assets.lib.domains import build_sources
from ct_assets.lib.features import FeatureSet, build_features
from ct_assets.lib.model import build_model
from ct_assets.resources.feast import definition_files

SHARED_SOURCES = "ct_assets.defs.sources.contracts.SOURCES"
ALL_SOURCES = "ct_assets.defs.models.load_sources"
TEMPLATE = Path(__file__).with_name("template")


class ModelFile(ModelSpec):
    """The attributes of a `defs.yaml`: a `ModelSpec`, its sources, and where its features are computed."""

    own_sources: tuple[str, ...] = Field(
        (),
        description="Import paths of `Source`s, or of sequences of them, that come with this model: their assets, and "
        "the sensors of their domain, are made here, once.",
    )
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
    """Starts a model with a small one that loads as it is, to be changed file by file."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write the files of a new model; its folder's name becomes the model's.

        Raises:
            ValueError: Another format than YAML was asked for, or the folder is not one for a model.
        """
        folder = request.target_path
        if folder.parent.name != "models" or not re.fullmatch(MODEL_NAME, folder.name):
            raise ValueError(
                f"{folder.parent.name}/{folder.name} is no place for a model; expected models/<name> with a name of "
                "small letters, digits and '_'"
            )
        if request.scaffold_format != "yaml":
            raise ValueError("a model starts from YAML; in Python, call `build_model(spec, feature_sets)` in a defs.py")
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(TEMPLATE.iterdir()):
            text = file.read_text().replace("{name}", folder.name).replace("{type}", request.type_name)
            (folder / file.name.removesuffix(".txt")).write_text(text)


@dg.scaffold_with(Template)
class ContinuousTraining(dg.Component):
    """A model that is trained, judged, promoted, watched and retrained by itself.

    Args:
        spec: The model.
        feature_sets: Where the views of its feature service are computed, as far as others make their assets.
        own_feature_sets: The rest of them.
        own_sources: Sources that no other model brings.
    """

    def __init__(
        self,
        spec: ModelSpec,
        feature_sets: Sequence[FeatureSet],
        own_feature_sets: Sequence[FeatureSet] = (),
        own_sources: Sequence[Source] = (),
    ) -> None:
        self.spec = spec
        self.own_sources = own_sources
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
        return cls(
            attributes.spec,
            imported("feature_sets", attributes.feature_sets, FeatureSet),
            imported("own_feature_sets", attributes.own_feature_sets, FeatureSet),
            imported("own_sources", attributes.own_sources, Source),
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002  Dagster's signature
        """All of the model's assets, checks and its automation sensor.

        Raises:
            DefinitionError: The model can never run, for reasons that are told.
        """
        feature_sets = [*self.feature_sets, *self.own_feature_sets]
        known = _contracts(self.spec, [*self.own_sources, *(each.source for each in feature_sets)])
        refuse_mistakes(Examined(self.spec, known, feature_sets), definition_files())
        model = build_model(self.spec, feature_sets, sources=list(known.values()))
        return dg.Definitions.merge(model, build_sources(self.own_sources), *map(build_features, self.own_feature_sets))


def shared_sources() -> list[Source]:
    """The contracts that several models read."""
    return imported("sources", [SHARED_SOURCES], Source)


def _contracts(spec: ModelSpec, near: Iterable[Source]) -> dict[str, Source]:
    """The contracts that a model can read, by name: those of other models only where it names one."""
    known = {source.name: source for source in [*shared_sources(), *near]}
    if {spec.events.source, spec.label.source} <= known.keys():
        return known
    module, _, name = ALL_SOURCES.rpartition(".")
    return {source.name: source for source in getattr(import_module(module), name)()} | known
