"""Mistakes of an upstream system on fixed days of a demo, and how it sends the data again."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import Protocol

from ct_assets.feeds import Delivery


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
    damage : what the mistake does to the bytes of the file
    """

    kind: str
    source: str
    day: date
    resent: str
    expected: str
    damage: Callable[[bytes], bytes]


class Feed(Protocol):
    """What is recorded of an upstream system: its reference tables, and what it sends on each day from the first on."""

    first_day: date

    def reference(self) -> list[Delivery]:
        """Return the reference tables."""

    def day(self, day: date) -> list[Delivery]:
        """Return the files of one UTC day of arrival."""


def delivered(planted: Iterable[PlantedFault], feed: Feed, day: date, faults: bool = True) -> list[list[Delivery]]:
    """Return what arrives on one UTC day, as waves: a wave is sent once the platform has dealt with the one before.

    Parameters
    ----------
    planted : the mistakes of all days
    feed : the feed to take the day from
    day : UTC day of arrival
    faults : plant the mistakes; without them a day is always one wave

    Returns
    -------
    list of waves, each a list of Delivery in landing order: the files of the day with its mistakes, and then those that
    make up for them; the first day's first wave starts with the reference tables

    Raises
    ------
    ValueError : `day` is outside of the recording
    """
    first, second = list(feed.day(day)), []
    if day == feed.first_day:
        first = feed.reference() + first
    for fault in planted:
        if faults and fault.day == day:
            index = next(i for i, each in enumerate(first) if each.source == fault.source)
            good = first[index]
            first[index] = replace(good, payload=fault.damage(good.payload))
            second.append(replace(good, name=fault.resent))
    return [first, second] if second else [first]
