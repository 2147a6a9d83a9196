"""What the arrival sensor reports, look by look."""

import json
import os
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from ct_assets.defs.sources.contracts import FLIGHTS, PLANES, SOURCES, WEATHER
from ct_assets.lake.contract import Domain, Source
from ct_assets.lake.ingest import ingest
from ct_assets.lake.lake import Lake
from ct_assets.lib.arrivals import MOST_NAMES, PROGRESS, SETTLE_SECONDS, build_arrival_sensor, unreachable
from ct_assets.resources.lake import LakeResource

DAY, NEXT = "2013-01-05", "2013-01-06"


class Sensor:
    """The sensor with its cursor, over one home."""

    def __init__(self, home: Path, sources: tuple[Source, ...] = SOURCES) -> None:
        self.home = home
        self.sensor = build_arrival_sensor(sources[0].domain, sources)
        self.cursor: str | None = None
        self.warnings: list[str] = []

    def look(self) -> list[tuple[str, str | None, int]]:
        """One evaluation: source, partition and number of files of each report."""
        return [(e.asset_key.path[-1], e.partition, e.metadata["files"].value) for e in self.events()]

    def events(self) -> list[dg.AssetMaterialization]:
        with dg.build_sensor_context(
            instance=dg.DagsterInstance.ephemeral(),
            cursor=self.cursor,
            resources={"lake": LakeResource(home=str(self.home))},
        ) as context:
            context.log.warning = self.warnings.append  # type: ignore[method-assign]
            result = self.sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        assert not result.run_requests
        return list(result.asset_events)

    def land(self, name: str, content: bytes = b"rows", age: float = 60.0) -> Path:
        path = self.home / "landing" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        changed = time.time() - age
        os.utime(path, (changed, changed))
        return path


@pytest.fixture
def sensor(tmp_path: Path) -> Sensor:
    return Sensor(tmp_path)


def test_an_empty_home_has_nothing_to_report(sensor: Sensor) -> None:
    assert sensor.look() == []


def test_a_file_is_reported_once_for_its_source_and_day(sensor: Sensor) -> None:
    sensor.land(f"flights/{DAY}/flights.parquet")
    assert sensor.look() == [("flights", DAY, 1)]
    assert [sensor.look(), sensor.look()] == [[], []]


def test_a_reference_table_is_reported_without_a_partition(sensor: Sensor) -> None:
    sensor.land("planes/planes.parquet")
    assert sensor.look() == [("planes", None, 1)]


def test_two_files_of_one_day_are_one_report(sensor: Sensor) -> None:
    sensor.land(f"flights/{DAY}/a.parquet")
    sensor.land(f"flights/{DAY}/b.parquet")
    sensor.land(f"flights/{NEXT}/c.parquet")
    assert sensor.look() == [("flights", DAY, 2), ("flights", NEXT, 1)]


def test_a_second_file_of_a_day_is_a_second_report(sensor: Sensor) -> None:
    sensor.land(f"flights/{DAY}/a.parquet")
    sensor.look()
    sensor.land(f"flights/{DAY}/b.parquet")
    assert sensor.look() == [("flights", DAY, 1)]


# -- What is not whole yet


def test_a_young_file_waits_until_it_looks_the_same_twice(sensor: Sensor) -> None:
    path = sensor.land(f"flights/{DAY}/flights.parquet", b"half", age=-5)
    assert sensor.look() == []
    path.write_bytes(b"half and more")
    os.utime(path, (time.time() + 5, time.time() + 5))
    assert sensor.look() == []
    assert sensor.look() == [("flights", DAY, 1)]


def test_a_file_that_has_not_changed_for_a_while_is_reported_at_the_first_look(sensor: Sensor) -> None:
    sensor.land(f"flights/{DAY}/flights.parquet", age=SETTLE_SECONDS + 1)
    assert sensor.look() == [("flights", DAY, 1)]


def test_a_file_that_grows_after_its_report_is_reported_again(sensor: Sensor) -> None:
    sensor.land(f"flights/{DAY}/flights.parquet", b"1", age=60)
    sensor.look()
    sensor.land(f"flights/{DAY}/flights.parquet", b"12", age=50)
    assert sensor.look() == [("flights", DAY, 1)]


@pytest.mark.parametrize("name", [".flights.parquet.part", "_SUCCESS", "_tmp/flights.parquet", ".hidden/x.parquet"])
def test_temporary_and_hidden_names_are_passed_by(sensor: Sensor, name: str) -> None:
    sensor.land(f"flights/{DAY}/{name}")
    assert [sensor.look(), sensor.look()] == [[], []]
    assert sensor.warnings == []


def test_a_file_of_today_is_reported_at_once_and_one_of_tomorrow_waits(tmp_path: Path) -> None:
    """What arrives is taken in at once; a sender whose clock is ahead is not lost."""
    live = replace(WEATHER, domain=Domain("live", date(2024, 1, 1)))
    sensor, today = Sensor(tmp_path, (live,)), datetime.now(UTC).date()
    sensor.land(f"weather/{today}/weather.parquet")
    sensor.land(f"weather/{today + timedelta(days=1)}/weather.parquet")
    sensor.land("weather/2190-01-01/weather.parquet")
    assert [sensor.look(), sensor.look()] == [[("weather", str(today), 1)], []]
    (warning,) = sensor.warnings
    assert ("2190-01-01" in warning, str(today + timedelta(days=1)) in warning) == (True, False)


# -- What comes again


def test_a_file_that_was_taken_in_and_is_sent_again_is_reported_again(sensor: Sensor) -> None:
    path = sensor.land(f"flights/{DAY}/flights.parquet")
    sensor.look()
    path.unlink()
    assert sensor.look() == []
    sensor.land(f"flights/{DAY}/flights.parquet")
    assert sensor.look() == [("flights", DAY, 1)]


def test_a_file_sent_again_between_two_looks_is_reported_again(sensor: Sensor) -> None:
    path = sensor.land(f"flights/{DAY}/flights.parquet", age=60)
    sensor.look()
    path.unlink()
    sensor.land(f"flights/{DAY}/flights.parquet", age=30)
    assert sensor.look() == [("flights", DAY, 1)]


def test_a_resent_file_under_another_name_is_reported_for_the_same_day(sensor: Sensor) -> None:
    sensor.land(f"flights/{DAY}/flights.parquet").unlink()
    sensor.look()
    sensor.land(f"flights/{DAY}/flights-resent.parquet")
    assert sensor.look() == [("flights", DAY, 1)]


def test_what_landed_differs_in_its_data_version(sensor: Sensor) -> None:
    sensor.land(f"flights/{DAY}/a.parquet")
    (first,) = sensor.events()
    sensor.land(f"flights/{DAY}/b.parquet")
    (second,) = sensor.events()
    assert first.tags["dagster/data_version"] != second.tags["dagster/data_version"]


# -- What lies in the wrong place

MISPLACED = [
    "flights/2012-01-01/flights.parquet",
    "flights/2031-01-01/flights.parquet",
    "flights/garbage/flights.parquet",
    "flights/2013-01-5/flights.parquet",
    "flights/2013-02-30/flights.parquet",
    "flights/flights.parquet",
    f"flights/{DAY}/deeper/flights.parquet",
    f"planes/{DAY}/planes.parquet",
]


@pytest.mark.parametrize("name", MISPLACED)
def test_a_file_in_no_arrival_day_is_named_once_and_blocks_no_other(sensor: Sensor, name: str) -> None:
    sensor.land(name)
    sensor.land(f"flights/{DAY}/flights.parquet")
    sensor.land("planes/planes.parquet")
    assert sensor.look() == [("flights", DAY, 1), ("planes", None, 1)]
    (warning,) = sensor.warnings
    assert name in warning
    assert "2013-01-01 to 2014-01-01" in warning
    assert "move" in warning
    sensor.look()
    assert len(sensor.warnings) == 1


@pytest.mark.parametrize("name", [*MISPLACED, "flihgts/flights.parquet", "loose.parquet"])
def test_a_file_that_nothing_takes_in_is_named_after_all_work(sensor: Sensor, name: str) -> None:
    sensor.land(f"flights/{DAY}/flights.parquet")
    sensor.land("planes/planes.parquet")
    assert unreachable(sensor.home, SOURCES) == []
    sensor.land(name)
    (warning,) = unreachable(sensor.home, SOURCES)
    assert name.removesuffix("/flights.parquet") in warning
    assert "expected" in warning
    assert "move the" in warning


def test_what_is_no_file_is_named_after_all_work(sensor: Sensor) -> None:
    folder = sensor.land(f"flights/{DAY}/flights.parquet").parent
    os.mkfifo(folder / "pipe.parquet")
    (folder / "lost.parquet").symlink_to(folder / "nothing")
    (warning,) = unreachable(sensor.home, SOURCES)
    assert f"not being files: flights/{DAY}/lost.parquet, flights/{DAY}/pipe.parquet; expected files" in warning


def test_many_files_that_nothing_takes_in_are_counted(sensor: Sensor) -> None:
    for number in range(MOST_NAMES + 5):
        sensor.land(f"flights/{number:02}.parquet")
    (warning,) = unreachable(sensor.home, SOURCES)
    assert "flights/19.parquet and 5 more; expected" in warning


def test_what_is_reported_is_what_the_source_takes_in(sensor: Sensor) -> None:
    for name in MISPLACED:
        sensor.land(name)
    sensor.land(f"flights/{DAY}/flights.parquet")
    sensor.land("planes/planes.parquet")
    by_name = {FLIGHTS.name: FLIGHTS, PLANES.name: PLANES}
    for name, partition, files in sensor.look():
        assert len(ingest(Lake(sensor.home), by_name[name], partition or "all")) == files


def test_a_folder_of_an_unknown_source_is_none_of_its_business(sensor: Sensor) -> None:
    sensor.land(f"gossip/{DAY}/gossip.parquet")
    assert sensor.look() == []


# -- The cursor


def test_the_cursor_is_as_small_as_the_backlog(tmp_path: Path) -> None:
    sensor = Sensor(tmp_path, (WEATHER,))
    for n in range(1, 29):
        sensor.land(f"weather/2013-01-{n:02d}/weather.parquet")
    sensor.look()
    assert len(json.loads(sensor.cursor or "")["weather"]) == 28
    for path in (tmp_path / "landing" / "weather").rglob("*.parquet"):
        path.unlink()
    sensor.look()
    assert json.loads(sensor.cursor or "") == {"weather": {}}


def test_files_that_nothing_takes_in_are_named_and_no_longer_waited_for(tmp_path: Path) -> None:
    sensor = Sensor(tmp_path, (WEATHER,))
    for day in (DAY, NEXT):
        sensor.land(f"weather/{day}/weather.parquet")
    sensor.events()
    Lake(tmp_path).dataset("weather").write(NEXT, pa.table({"known_at": pa.array([], pa.timestamp("us", "UTC"))}))
    assert not sensor.warnings
    cursor = json.loads(sensor.cursor or "")
    long_ago = pd.Timestamp(cursor[PROGRESS]["at"]) - WEATHER.domain.closes_after
    sensor.cursor = json.dumps(cursor | {PROGRESS: {"at": long_ago.isoformat()}})
    closed = [event.partition for event in sensor.events() if event.asset_key.path[0] == "calendar"]
    assert closed[0] == DAY
    assert f"weather/{DAY}/weather.parquet" in sensor.warnings[0]
    # Once something is taken in, the rest is waited for again.
    (tmp_path / "landing" / "weather" / NEXT / "weather.parquet").unlink()
    sensor.warnings.clear()
    sensor.events()
    assert not sensor.warnings


def test_a_sensor_goes_on_from_its_cursor(sensor: Sensor) -> None:
    sensor.land(f"flights/{DAY}/flights.parquet")
    sensor.look()
    restarted = Sensor(sensor.home)
    restarted.cursor = sensor.cursor
    assert restarted.look() == []
