"""Mistakes of an upstream system on fixed days of a demo, and how it sends the data again."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date

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


def in_waves(sent: list[Delivery], day: date, faults: Iterable[PlantedFault]) -> list[list[Delivery]]:
    """Return a day's files with its mistakes, and as a second wave the files that make up for them.

    Parameters
    ----------
    sent : the undamaged files of the day, in landing order
    day : UTC day of arrival
    faults : the mistakes of all days
    """
    first, second = list(sent), []
    for fault in faults:
        if fault.day == day:
            index = next(i for i, each in enumerate(first) if each.source == fault.source)
            good = first[index]
            first[index] = replace(good, payload=fault.damage(good.payload))
            second.append(replace(good, name=fault.resent))
    return [first, second] if second else [first]
