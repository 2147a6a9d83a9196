"""Feature services: one for each model, named with a version."""

from feast import FeatureService

from feature_repo.views import OWNER, VIEWS, flight_calendar

flight_delay_v1 = FeatureService(
    name="flight_delay_v1",
    features=[*VIEWS, flight_calendar],
    owner=OWNER,
    description="All that is known of a flight two hours before its scheduled departure",
)

SERVICES = [flight_delay_v1]
