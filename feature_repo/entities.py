"""What features are about. Every view has one join key, so no store has to combine several."""

from feature_repo.lake_views import text_entity

origin = text_entity("origin", "Departure airport, IATA code")
destination = text_entity("dest", "Arrival airport, IATA code")
carrier = text_entity("carrier", "Airline, IATA code")
route = text_entity("route", "Departure and arrival airport, as JFK-LAX")
tail = text_entity("tailnum", "Aircraft, by its registration")
origin_hour = text_entity("origin_hour", "Departure airport and UTC hour, as JFK|2013-01-01T10")
network = text_entity("network", "The whole network: always 'all'")
