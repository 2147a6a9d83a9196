"""Feature views of the flights."""

from datetime import timedelta
from functools import partial
from typing import Any

from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import FeastType, Float64, Int64, UnixTimestamp

from feature_repo.entities import carrier, destination, network, origin, origin_hour, route, tail
from feature_repo.lake_views import lake_view

OWNER = "data@ct-assets.example"


_view = partial(lake_view, owner=OWNER)


def _delays(prefix: str, windows: dict[str, tuple[str, ...]]) -> dict[str, FeastType]:
    """Feature names and types, such as `origin_mean_3h`: statistics of delays in minutes over a window."""
    return {
        f"{prefix}_{statistic}_{window}": Int64 if statistic == "count" else Float64
        for window, statistics in windows.items()
        for statistic in statistics
    }


route_info = _view(
    "route_info",
    route,
    ttl=timedelta(days=3),
    features={"distance": Float64},
    description="Great-circle distance in miles, as published with the schedule",
    upstream="flights",
)
origin_load = _view(
    "origin_load",
    origin_hour,
    ttl=timedelta(days=3),
    features={"scheduled_departures": Int64},
    description="Departures scheduled at an airport within a UTC hour",
    upstream="flights",
)
plane = _view(
    "plane",
    tail,
    ttl=timedelta(0),
    features={"year_built": Float64, "seats": Float64, "engines": Float64},
    description="The aircraft, from the registry of planes",
    upstream="planes",
)
weather = _view(
    "weather",
    origin,
    ttl=timedelta(hours=6),
    features={
        "temperature": Float64,
        "dew_point": Float64,
        "humidity": Float64,
        "wind_direction": Float64,
        "wind_speed": Float64,
        "precipitation": Float64,
        "pressure": Float64,
        "visibility": Float64,
    },
    description="Latest hourly observation at the airport (Fahrenheit, miles per hour, inches, millibars, miles)",
    upstream="weather",
)
origin_delays = _view(
    "origin_delays",
    origin,
    ttl=timedelta(days=1),
    features=_delays("origin", {"3h": ("mean", "late", "count"), "24h": ("mean", "count")}),
    description="Departure delays at the airport up to its latest departure",
    upstream="flight_outcomes",
)
carrier_delays = _view(
    "carrier_delays",
    carrier,
    ttl=timedelta(days=7),
    features=_delays("carrier", {"6h": ("mean", "count"), "7d": ("mean", "late")}),
    description="Arrival delays of the airline up to its latest arrival",
    upstream="flight_outcomes",
)
destination_delays = _view(
    "destination_delays",
    destination,
    ttl=timedelta(days=1),
    features=_delays("dest", {"24h": ("mean", "count")}),
    description="Arrival delays at the destination up to its latest arrival",
    upstream="flight_outcomes",
)
route_delays = _view(
    "route_delays",
    route,
    ttl=timedelta(days=7),
    features=_delays("route", {"7d": ("mean", "late", "count")}),
    description="Arrival delays on the route up to its latest arrival",
    upstream="flight_outcomes",
)
tail_delays = _view(
    "tail_delays",
    tail,
    ttl=timedelta(days=3),
    features=_delays("tail", {"3d": ("mean", "last", "count")}),
    description="Arrival delays of the aircraft up to its latest arrival",
    upstream="flight_outcomes",
)
network_delays = _view(
    "network_delays",
    network,
    ttl=timedelta(days=1),
    features=_delays("network", {"3h": ("mean", "late", "count")}),
    description="Departure delays of the whole network up to the latest departure",
    upstream="flight_outcomes",
)

VIEWS = [
    route_info,
    origin_load,
    plane,
    weather,
    origin_delays,
    carrier_delays,
    destination_delays,
    route_delays,
    tail_delays,
    network_delays,
]

flight_request = RequestSource(
    name="flight_request",
    schema=[Field(name="sched_dep", dtype=UnixTimestamp), Field(name="sched_arr", dtype=UnixTimestamp)],
)


@on_demand_feature_view(
    sources=[plane, flight_request],
    schema=[
        Field(name="departure_minute", dtype=Int64),
        Field(name="weekday", dtype=Int64),
        Field(name="scheduled_minutes", dtype=Float64),
        Field(name="plane_age", dtype=Float64),
    ],
    mode="python",
    description="Clock and calendar in New York, scheduled duration in minutes, age of the plane in years",
    owner=OWNER,
)
def flight_calendar(inputs: dict[str, Any]) -> dict[str, Any]:
    """Derive what the scheduled times say; lists in, lists out.

    Feast stores this function as source and runs it alone, so it imports what it needs. A time is a datetime from the
    offline store and whole seconds from a request.
    """
    import math
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    new_york = ZoneInfo("America/New_York")
    departures, arrivals = (
        [value if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC) for value in inputs[name]]
        for name in ("sched_dep", "sched_arr")
    )
    local = [moment.astimezone(new_york) for moment in departures]
    return {
        "departure_minute": [moment.hour * 60 + moment.minute for moment in local],
        "weekday": [moment.isoweekday() for moment in local],
        "scheduled_minutes": [(b - a).total_seconds() / 60 for a, b in zip(departures, arrivals, strict=True)],
        "plane_age": [
            None if built is None or math.isnan(built) else moment.year - built
            for moment, built in zip(local, inputs["year_built"], strict=True)
        ],
    }
