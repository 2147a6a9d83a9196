"""The mistakes an upstream system makes on fixed days of the demo, and how it sends the data again."""

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ct_assets.feeds import Delivery, parquet_bytes
from ct_assets.feeds.nycflights import NycFlights

__all__ = ["FAULTS", "PlantedFault", "deliveries", "in_waves", "planted_faults"]

KILOMETRES_PER_MILE = 1.609344  # exact, by the international yard and pound agreement of 1959


@dataclass(frozen=True)
class PlantedFault:
    """One mistake of the upstream system.

    Parameters
    ----------
    kind : what is wrong with the file of the first wave
    source : the source it happens to
    day : UTC day of arrival
    resent : name of the file the second wave brings; always the undamaged bytes
    expected : what the platform should do, in words
    """

    kind: str
    source: str
    day: date
    resent: str
    expected: str


FAULTS: tuple[PlantedFault, ...] = (
    PlantedFault(
        kind="kilometres",
        source="flights",
        day=date(2013, 1, 20),
        resent="flights-resent.parquet",
        expected="quarantined: distance is about 1.6 times its history (kilometres); the resent file is accepted",
    ),
    PlantedFault(
        kind="missing_column",
        source="flight_outcomes",
        day=date(2013, 1, 27),
        resent="flight_outcomes-resent.parquet",
        expected="quarantined: column delay is missing; the resent file is accepted",
    ),
    PlantedFault(
        kind="truncated",
        source="weather",
        day=date(2013, 2, 10),
        resent="weather-resent.parquet",
        expected="quarantined: not a readable Parquet file; the resent file is accepted",
    ),
    PlantedFault(
        kind="duplicate",
        source="flight_outcomes",
        day=date(2013, 2, 17),
        resent="flight_outcomes-again.parquet",
        expected="archived as a duplicate of a batch already taken in: no row is counted twice, nothing is retrained",
    ),
)


def planted_faults(day: date) -> tuple[PlantedFault, ...]:
    """Return the mistakes planted on one UTC day; `FAULTS` lists them all."""
    return tuple(fault for fault in FAULTS if fault.day == day)


def deliveries(feed: NycFlights, day: date, faults: bool = True) -> list[list[Delivery]]:
    """Return what arrives on one UTC day, as waves: a wave is sent once the platform has dealt with the one before.

    Parameters
    ----------
    feed : the feed to take the day from
    day : UTC day of arrival
    faults : plant the mistakes of `FAULTS`; without them a day is always one wave

    Returns
    -------
    list of waves, each a list of Delivery in landing order; the first day's first wave starts with the reference
    tables

    Raises
    ------
    ValueError : `day` is outside `feed.first_day` .. `feed.last_day`
    """
    first = feed.day(day)
    if day == feed.first_day:
        first = feed.reference() + first
    return in_waves(first, planted_faults(day) if faults else (), _DAMAGE)


def in_waves(
    sent: list[Delivery], faults: Iterable[PlantedFault], damage: Mapping[str, Callable[[bytes], bytes]]
) -> list[list[Delivery]]:
    """Return a day's files with its mistakes, and as a second wave the files that make up for them.

    Parameters
    ----------
    sent : the undamaged files of the day, in landing order
    faults : the mistakes planted on that day
    damage : kind of mistake -> what it does to the bytes of a file
    """
    first, second = list(sent), []
    for fault in faults:
        index = next(i for i, each in enumerate(first) if each.source == fault.source)
        good = first[index]
        first[index] = replace(good, payload=damage[fault.kind](good.payload))
        second.append(replace(good, name=fault.resent))
    return [first, second] if second else [first]


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


_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "kilometres": _in_kilometres,
    "missing_column": _without_delay,
    "truncated": _truncated,
    "duplicate": _unharmed,
}
