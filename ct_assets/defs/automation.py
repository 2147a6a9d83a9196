"""The automation sensor of the data; each model brings its own, so that a tick of one does not wait for another."""

import dagster as dg

from ct_assets.lib.automation import automation_sensor
from ct_assets.lib.sources import GROUP


@dg.definitions
def automation() -> dg.Definitions:
    """The sensor that requests data assets."""
    return dg.Definitions(sensors=[automation_sensor(GROUP)])
