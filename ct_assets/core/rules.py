"""What a verdict was made by, as one digest."""

from ct_assets.core.canonical import digest
from ct_assets.core.spec import ModelSpec

#: Fields of a spec that say how a challenger is judged.
_FIELDS = ("task", "classes", "quantiles", "gate", "baseline", "slices")


def rules_digest(spec: ModelSpec) -> str:
    """SHA-256 of the rules by which a spec's challengers are judged: its gate, task, baseline and slices."""
    return digest(spec.model_dump(mode="json", include=set(_FIELDS)))
