"""The models of this deployment: one folder each, with a `spec.py` that holds `SPEC`, or a `defs.yaml`."""

from importlib import import_module
from pathlib import Path

import yaml

from ct_assets.core.spec import ModelSpec

COMPONENT = "ContinuousTraining"
BESIDES_THE_SPEC = ("feature_sets", "own_feature_sets")


def load_specs(folder: Path = Path(__file__).parent) -> dict[str, ModelSpec]:
    """The spec of every model, by name; without Dagster, which servers and the command line need not load.

    Raises:
        ValueError: Two models have the same name.
    """
    modules = sorted(path.parent.name for path in folder.glob("*/spec.py"))
    specs = [import_module(f"{__name__}.{module}.spec").SPEC for module in modules]
    for path in sorted(folder.glob("*/defs.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if str(document["type"]).rpartition(".")[2] == COMPONENT:
                attributes = {
                    name: value for name, value in document["attributes"].items() if name not in BESIDES_THE_SPEC
                }
                specs.append(ModelSpec.model_validate(attributes))
    names = [spec.name for spec in specs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two models are called {twice[0]!r}; give each folder in {folder} a name of its own")
    return dict(zip(names, specs, strict=True))
