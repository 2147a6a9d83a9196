"""The models of this deployment: one folder each, with its spec in `spec.py`."""

from importlib import import_module
from pathlib import Path

from ct_assets.core.spec import ModelSpec


def load_specs() -> dict[str, ModelSpec]:
    """The spec of every model, by name."""
    folders = sorted(path.parent.name for path in Path(__file__).parent.glob("*/spec.py"))
    specs = [import_module(f"{__name__}.{folder}.spec").SPEC for folder in folders]
    return {spec.name: spec for spec in specs}
