"""Assets of the sources, and the sensor that reports arrivals."""

import dagster as dg

from ct_assets.defs.sources.contracts import SOURCES
from ct_assets.lib.arrivals import build_arrival_sensor
from ct_assets.lib.sources import build_source


@dg.definitions
def sources() -> dg.Definitions:
    """Every source's assets and the arrival sensor."""
    return dg.Definitions.merge(
        *(build_source(source) for source in SOURCES), dg.Definitions(sensors=[build_arrival_sensor(SOURCES)])
    )
