"""From sources to their assets and sensors, one set of sensors for each domain."""

from collections.abc import Sequence

import dagster as dg

from ct_assets.lake.contract import Source
from ct_assets.lake.declaration import check_together
from ct_assets.lib.arrivals import build_arrival_sensor
from ct_assets.lib.automation import automation_sensor
from ct_assets.lib.closing import calendar_asset
from ct_assets.lib.model_assets import MODEL_TAG
from ct_assets.lib.sources import build_source
from ct_assets.lib.tables import build_table_sensor


def build_sources(sources: Sequence[Source], minimum_interval_seconds: int = 10) -> dg.Definitions:
    """The assets of sources, and for each of their domains the sensors that report and automate what arrives.

    A tick of one domain then does not wait for another.

    Args:
        sources: All sources of their domains.
        minimum_interval_seconds: Time between two ticks of a sensor.

    Raises:
        DeclarationError: Two sources get in each other's way.
    """
    check_together(sources)
    sensors: list[dg.SensorDefinition] = []
    domains = list(dict.fromkeys(source.domain for source in sources))
    for domain in domains:
        members = [source for source in sources if source.domain == domain]
        sensors.append(build_arrival_sensor(domain, members, minimum_interval_seconds))
        if any(source.table for source in members):
            sensors.append(build_table_sensor(domain, members))
        # A model may have the name of the group, and is automated by a sensor of its own.
        target = dg.AssetSelection.groups(domain.name) - dg.AssetSelection.tag(MODEL_TAG, domain.name)
        sensors.append(automation_sensor(f"{domain.name}_ingestion", target, minimum_interval_seconds))
    calendars = [
        calendar_asset(domain, sorted({source.owner for source in sources if source.domain == domain}))
        for domain in domains
    ]
    return dg.Definitions.merge(*map(build_source, sources), dg.Definitions(assets=calendars, sensors=sensors))
