"""The table sensor: it lands what is new in database tables, for the arrival sensor to report."""

import json
from collections.abc import Sequence

import dagster as dg

from ct_assets.lake.contract import Domain, Source
from ct_assets.lake.table import look
from ct_assets.resources.lake import LakeResource


def build_table_sensor(
    domain: Domain, sources: Sequence[Source], minimum_interval_seconds: int = 30
) -> dg.SensorDefinition:
    """A sensor that looks at the table of every source of a domain that has one.

    Where each look left off is kept with the files it made, not in the cursor: what the cursor says is how many looks
    have landed something, so that another sensor's cursor, or none, reads nothing twice.
    """
    tables = [source for source in sources if source.table is not None]

    @dg.sensor(
        name=f"{domain.name}_tables",
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Lands new rows of database tables as files.",
    )
    def table_sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
        looks: dict[str, int] = json.loads(context.cursor or "{}")
        for source in tables:
            try:
                found = look(lake.path, source)
            except Exception as error:
                # One database that does not answer must not hold up the others.
                context.log.error(f"the table of {source.name} cannot be read; the next look tries again: {error}")
                continue
            if found.rows:
                looks[source.name] = found.number
                context.log.info(f"{source.name}: {found.rows} row(s) landed in {found.files} file(s)")
        return dg.SensorResult(cursor=json.dumps(looks))

    return table_sensor
