"""Recorded feeds by the name of the model that lives on them: what arrives on which day."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial

from ct_assets.feeds import Delivery

__all__ = ["RECORDINGS", "Recording", "open_recording"]


@dataclass(frozen=True)
class Recording:
    """Days of a feed that was recorded.

    Parameters
    ----------
    first_day : first UTC day of arrival
    last_day : last UTC day of arrival
    source : a source that sends a file every day, by which the newest day that was fed is found again
    waves : what arrives on a day, with or without planted mistakes; a wave is sent once the platform has dealt with
        the one before
    """

    first_day: date
    last_day: date
    source: str
    waves: Callable[[date, bool], list[list[Delivery]]]


def _flights() -> Recording:
    from ct_assets.feeds.nycflights import NycFlights
    from ct_assets.feeds.nycflights_faults import deliveries

    feed = NycFlights()
    return Recording(feed.first_day, feed.last_day, "flights", partial(deliveries, feed))


def _household_power() -> Recording:
    from ct_assets.feeds.household_power import HouseholdPower, deliveries

    feed = HouseholdPower()
    return Recording(feed.first_day, feed.last_day, "meter", partial(deliveries, feed))


def _orders() -> Recording:
    from ct_assets.feeds.online_retail import OnlineRetail, deliveries

    feed = OnlineRetail()
    return Recording(feed.first_day, feed.last_day, "orders", partial(deliveries, feed))


RECORDINGS: Mapping[str, Callable[[], Recording]] = {
    "flight_delay": _flights,
    "repurchase": _orders,
    "household_power": _household_power,
}
"""Model name to what opens its recording; reading it takes seconds."""


def open_recording(name: str) -> Recording:
    """Open the recording of a model.

    Raises
    ------
    ValueError : there is none of that name
    """
    if name not in RECORDINGS:
        raise ValueError(f"there is no recording of {name!r}; recorded are: {', '.join(RECORDINGS)}")
    return RECORDINGS[name]()
