"""Checks of a model's rules against the number of rows that has arrived."""

from collections.abc import Iterator

from ct_assets.core.volume import shortages
from ct_assets.lake.lake import Lake
from ct_assets.lib.diagnosis.finding import CannotTellError, Finding, Level
from ct_assets.lib.diagnosis.model import Examined
from ct_assets.lib.volume import volume_of

VOLUME = "volume at hand"


def rules_suit_the_volume(model: Examined) -> Iterator[Finding]:
    """Policy and gate can work together for the number of events and labels that arrive."""
    if model.home is None:
        raise CannotTellError("rows are not looked at here")
    source = model.sources.get(model.spec.events.source)
    volume = volume_of(Lake(model.home), model.spec, source.domain if source else None)
    if volume is None:
        raise CannotTellError("no event has arrived yet")
    for each in shortages(model.spec, volume):
        level: Level = "error" if each.hopeless else "warning"
        found = f"{each.found}; counted on {volume.measured_on}"
        yield Finding(level, VOLUME, model.at(each.field), found, each.expected, each.remedy)
