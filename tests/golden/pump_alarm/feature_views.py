"""The same view for Feast."""

from datetime import timedelta

from feast import FeatureService
from feast.types import Float64, Int64

from feature_repo.lake_views import lake_view, text_entity

OWNER = "team:pumps"
pump = text_entity("pump", "A pump")
pump_day = lake_view(
    "pump_day",
    pump,
    ttl=timedelta(days=7),
    features={"mean_heat": Float64, "readings": Int64},
    description="Mean heat and number of the pump's readings in the day up to the newest one",
    upstream="readings",
    owner=OWNER,
)
pump_alarm_v1 = FeatureService(name="pump_alarm_v1", features=[pump_day])
OBJECTS = [pump, pump_day, pump_alarm_v1]
