"""The mistakes that are planted in the demo's year of flights."""

import io
from datetime import date
from functools import partial

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ct_assets.feeds import parquet_bytes
from ct_assets.feeds.faults import PlantedFault, delivered

KILOMETRES_PER_MILE = 1.609344  # exact, by the international yard and pound agreement of 1959


def _in_kilometres(payload: bytes) -> bytes:
    table = pq.read_table(io.BytesIO(payload))
    column = table.schema.get_field_index("distance")
    distance = pc.multiply(table["distance"], KILOMETRES_PER_MILE)
    return parquet_bytes(table.set_column(column, table.schema.field(column), distance))


def _without_delay(payload: bytes) -> bytes:
    return parquet_bytes(pq.read_table(io.BytesIO(payload)).drop_columns(["delay"]))


def _truncated(payload: bytes) -> bytes:
    return payload[: len(payload) * 6 // 10]


def _unharmed(payload: bytes) -> bytes:
    return payload


FAULTS: tuple[PlantedFault, ...] = (
    PlantedFault(
        kind="kilometres",
        source="flights",
        day=date(2013, 1, 20),
        resent="flights-resent.parquet",
        expected="quarantined: distance is about 1.6 times its history (kilometres); the resent file is accepted",
        damage=_in_kilometres,
    ),
    PlantedFault(
        kind="missing_column",
        source="flight_outcomes",
        day=date(2013, 1, 27),
        resent="flight_outcomes-resent.parquet",
        expected="quarantined: column delay is missing; the resent file is accepted",
        damage=_without_delay,
    ),
    PlantedFault(
        kind="truncated",
        source="weather",
        day=date(2013, 2, 10),
        resent="weather.parquet",
        expected="quarantined: not a readable Parquet file; the resent file is accepted",
        damage=_truncated,
    ),
    PlantedFault(
        kind="duplicate",
        source="flight_outcomes",
        day=date(2013, 2, 17),
        resent="flight_outcomes-again.parquet",
        expected="archived as a duplicate of a batch already taken in: no row is counted twice, nothing is retrained",
        damage=_unharmed,
    ),
)


deliveries = partial(delivered, FAULTS)
"""What arrives on a day, with these mistakes or without."""
