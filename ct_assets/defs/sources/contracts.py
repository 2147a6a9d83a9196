"""What each source promises."""

from datetime import date, timedelta

import pandera.pandas as pa

from ct_assets.lake.contract import Domain, Source

OWNER = "data@ct-assets.example"
DOMAIN = Domain("flights", date(2013, 1, 1), date(2014, 1, 1))
"""A recording, so its days end."""
UTC_MICROSECONDS = "datetime64[us, UTC]"
AIRPORT = r"^[A-Z0-9]{3}$"


def _moment() -> pa.Column:
    return pa.Column(UTC_MICROSECONDS)


def _text(pattern: str | None = None, nullable: bool = False) -> pa.Column:
    return pa.Column(object, pa.Check.str_matches(pattern) if pattern else None, nullable=nullable)


def _number(low: float, high: float, nullable: bool = True) -> pa.Column:
    return pa.Column(float, pa.Check.in_range(low, high), nullable=nullable, coerce=True)


FLIGHTS = Source(
    name="flights",
    schema=pa.DataFrameSchema(
        {
            "flight_id": _text(),
            "carrier": _text(r"^[A-Z0-9]{2}$"),
            "flight": pa.Column(int, pa.Check.ge(1), coerce=True),
            "tailnum": _text(nullable=True),
            "origin": _text(AIRPORT),
            "dest": _text(AIRPORT),
            "route": _text(r"^[A-Z0-9]{3}-[A-Z0-9]{3}$"),
            "sched_dep": _moment(),
            "sched_arr": _moment(),
            "distance": _number(1, 6000, nullable=False),
            "known_at": _moment(),
        },
        checks=pa.Check(lambda f: f["sched_arr"] > f["sched_dep"], error="arrival scheduled after departure"),
    ),
    key=("flight_id",),
    description="The schedule of one New York day, published the evening before.",
    owner=OWNER,
    domain=DOMAIN,
    stable=("distance",),
    min_rows=100,
)

FLIGHT_OUTCOMES = Source(
    name="flight_outcomes",
    schema=pa.DataFrameSchema(
        {
            "flight_id": _text(),
            "kind": pa.Column(object, pa.Check.isin(["departure", "arrival"])),
            "carrier": _text(r"^[A-Z0-9]{2}$"),
            "origin": _text(AIRPORT),
            "dest": _text(AIRPORT),
            "route": _text(),
            "tailnum": _text(nullable=True),
            "sched_dep": _moment(),
            "delay": _number(-180, 2880, nullable=False),
            "known_at": _moment(),
        }
    ),
    key=("flight_id", "kind"),
    description="Departure and arrival messages, each on the day it happened.",
    owner=OWNER,
    domain=DOMAIN,
)

WEATHER = Source(
    name="weather",
    schema=pa.DataFrameSchema(
        {
            "origin": _text(AIRPORT),
            "observed_at": _moment(),
            "known_at": _moment(),
            "temp": _number(-60, 140),
            "dewp": _number(-80, 100),
            "humid": _number(0, 100),
            "wind_dir": _number(0, 360),
            # A broken gauge once reported 1048 mph; one such row must not cost the day, so the feature drops it.
            "wind_speed": _number(0, 2000),
            "wind_gust": _number(0, 2000),
            "precip": _number(0, 20),
            "pressure": _number(850, 1100),
            "visib": _number(0, 100),
        }
    ),
    key=("origin", "observed_at"),
    description="Hourly observations at the three New York airports.",
    owner=OWNER,
    domain=DOMAIN,
    min_rows=36,
)

PLANES = Source(
    name="planes",
    schema=pa.DataFrameSchema(
        {
            "tailnum": _text(),
            "year_built": _number(1903, 2100),
            "type": _text(nullable=True),
            "manufacturer": _text(nullable=True),
            "model": _text(nullable=True),
            "engines": _number(1, 8),
            "seats": _number(1, 900),
            "known_at": _moment(),
        }
    ),
    key=("tailnum",),
    description="The registry of aircraft, a reference table.",
    owner=OWNER,
    domain=DOMAIN,
    daily=False,
    fresh_within=timedelta(days=400),
)

AIRPORTS = Source(
    name="airports",
    schema=pa.DataFrameSchema(
        {
            "faa": _text(AIRPORT),
            "name": _text(),
            "lat": _number(-90, 90, nullable=False),
            "lon": _number(-180, 180, nullable=False),
            "tzone": _text(nullable=True),
            "known_at": _moment(),
        }
    ),
    key=("faa",),
    description="Airports with their places and time zones, a reference table.",
    owner=OWNER,
    domain=DOMAIN,
    daily=False,
    fresh_within=timedelta(days=400),
)

SOURCES = (FLIGHTS, FLIGHT_OUTCOMES, WEATHER, PLANES, AIRPORTS)
