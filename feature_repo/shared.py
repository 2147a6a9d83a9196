"""The entities, views and services of the flights."""

from feature_repo.entities import carrier, destination, network, origin, origin_hour, route, tail
from feature_repo.services import SERVICES
from feature_repo.views import VIEWS, flight_calendar

OBJECTS = [carrier, destination, network, origin, origin_hour, route, tail, *VIEWS, flight_calendar, *SERVICES]
