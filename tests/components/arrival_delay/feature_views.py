"""Features of the flights that this model reads."""

from feast import FeatureService

from feature_repo.views import carrier_delays, origin_delays, route_delays, route_info, weather

VIEWS = [route_info, weather, origin_delays, carrier_delays, route_delays]
OBJECTS = [FeatureService(name="arrival_delay_v1", features=VIEWS)]
