"""The sensor that automates a group of assets."""

import dagster as dg

SENSOR_TAG = "dagster/sensor_name"
"""Dagster's tag of runs that a sensor asked for; a run without it was started by a person."""
DAEMON_ONLY = {"ct/daemon_only": "true"}
"""Tags of a sensor that looks after other processes: the driver, which is one, does the same by itself."""
LANE = "ct/lane"
"""Tag of runs that go one after the other; `dagster.yaml` limits each of its values to one run at a time.

A day's features look back at the days before, so a backlog that ran two days at once would compute them from half of
the past.
"""


def automation_sensor(
    name: str, target: dg.AssetSelection, minimum_interval_seconds: int = 10
) -> dg.AutomationConditionSensorDefinition:
    """The sensor that requests the assets of `target` when their conditions say so, in a lane of their own."""
    return dg.AutomationConditionSensorDefinition(
        name,
        target=target,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=minimum_interval_seconds,
        emit_backfills=False,
        run_tags={LANE: name},
    )
