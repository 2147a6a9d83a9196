"""The models of this deployment: one folder each, with a `spec.py` that holds `SPEC`, or a `defs.yaml`.

What is here reads them without Dagster, which servers and the command line need not load.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ct_assets.core.imports import imported
from ct_assets.core.spec import ModelSpec

if TYPE_CHECKING:
    from ct_assets.lake.contract import Source

FOLDER = Path(__file__).parent
COMPONENT = "ContinuousTraining"
BESIDES_THE_SPEC = ("own_sources", "feature_sets", "own_feature_sets")


def load_specs(folder: Path = FOLDER) -> dict[str, ModelSpec]:
    """The spec of every model, by name.

    Raises:
        ValueError: Two models have the same name.
    """
    modules = sorted(path.parent.name for path in folder.glob("*/spec.py"))
    specs = [import_module(f"{__name__}.{module}.spec").SPEC for module in modules]
    for attributes in _documents(folder):
        content = {name: value for name, value in attributes.items() if name not in BESIDES_THE_SPEC}
        specs.append(ModelSpec.model_validate(content))
    names = [spec.name for spec in specs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two models are called {twice[0]!r}; give each folder in {folder} a name of its own")
    return dict(zip(names, specs, strict=True))


def load_sources(folder: Path = FOLDER) -> list["Source"]:
    """Every source: those that several models read, and those that come with a model.

    Raises:
        DeclarationError: Two sources get in each other's way.
        ValueError: A model names sources that cannot be imported.
    """
    from ct_assets.defs.sources.contracts import SOURCES
    from ct_assets.lake.contract import Source
    from ct_assets.lake.declaration import check_together

    sources = list(SOURCES)
    for attributes in _documents(folder):
        sources += imported("own_sources", attributes.get("own_sources", ()), Source)
    check_together(sources)
    return sources


def sources_of(spec: ModelSpec) -> list["Source"]:
    """The sources of the domain that a model lives in."""
    sources = load_sources()
    domains = {source.domain for source in sources if source.name == spec.events.source}
    return [source for source in sources if source.domain in domains]


def _documents(folder: Path) -> Iterator[dict[str, Any]]:
    """The attributes of every model in YAML."""
    for path in sorted(folder.glob("*/defs.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if str(document["type"]).rpartition(".")[2] == COMPONENT:
                yield document["attributes"]
