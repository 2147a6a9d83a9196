"""Assets of the model of late arrivals."""

import dagster as dg

from ct_assets.defs.features.flights import FEATURE_SETS
from ct_assets.defs.models.flight_delay.spec import SPEC
from ct_assets.defs.sources.contracts import SOURCES
from ct_assets.lib.model import build_model


@dg.definitions
def flight_delay() -> dg.Definitions:
    """Everything the platform does for `flight_delay`."""
    return build_model(SPEC, FEATURE_SETS, sources=SOURCES)
