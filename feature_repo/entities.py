"""What features are about. Every view has one join key, so no store has to combine several."""

from feast import Entity
from feast.value_type import ValueType


def _entity(name: str, description: str) -> Entity:
    return Entity(name=name, join_keys=[name], value_type=ValueType.STRING, description=description)


origin = _entity("origin", "Departure airport, IATA code")
destination = _entity("dest", "Arrival airport, IATA code")
carrier = _entity("carrier", "Airline, IATA code")
route = _entity("route", "Departure and arrival airport, as JFK-LAX")
tail = _entity("tailnum", "Aircraft, by its registration")
origin_hour = _entity("origin_hour", "Departure airport and UTC hour, as JFK|2013-01-01T10")
network = _entity("network", "The whole network: always 'all'")
