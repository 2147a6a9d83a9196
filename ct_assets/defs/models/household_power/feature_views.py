"""The same view for Feast, and the calendar of the hour to predict."""

from datetime import timedelta
from typing import Any

from feast import FeatureService, Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, UnixTimestamp

from feature_repo.lake_views import lake_view, text_entity

LOADS = ("6h", "24h", "7d", "28d", "2_days_before", "week_before", "same_hour_7d", "same_hour_28d")
FEATURES = (*(f"load_{each}" for each in LOADS), "heater_share_7d", "machines_share_7d", "voltage_24h")
household = text_entity("household", "Behind one meter")
load_history = lake_view(
    "load_history",
    household,
    ttl=timedelta(days=1),
    features=dict.fromkeys(FEATURES, Float64),
    description="Load of a household up to its latest whole hour (kilowatts, shares of the energy, volts)",
    upstream="meter",
    owner="team:power",
)
asked = RequestSource(name="household_power_request", schema=[Field(name="target", dtype=UnixTimestamp)])


@on_demand_feature_view(
    sources=[asked], schema=[Field(name="hour", dtype=Int64), Field(name="weekday", dtype=Int64)], mode="python"
)
def load_calendar(inputs: dict[str, Any]) -> dict[str, Any]:
    """The clock and calendar in Paris; Feast runs this alone. A time is a datetime, or whole seconds in a request."""
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    moments = [each if isinstance(each, datetime) else datetime.fromtimestamp(each, UTC) for each in inputs["target"]]
    local = [moment.astimezone(ZoneInfo("Europe/Paris")) for moment in moments]
    return {"hour": [each.hour for each in local], "weekday": [each.isoweekday() for each in local]}


household_power_v1 = FeatureService(name="household_power_v1", features=[load_history, load_calendar])
OBJECTS = [household, load_history, load_calendar, household_power_v1]
