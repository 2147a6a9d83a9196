"""A disk that is full or read-only for a moment: the old state stands, and running again completes it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from small_days import day_of
from small_location import defs
from worlds import Driven

from ct_assets.feeds import Delivery, feed_wave
from ct_assets.lake.dataset import Dataset
from ct_assets.lib import driver as module
from ct_assets.lib.driver import Driver
from ct_assets.lib.instance import open_instance

DATA = ("flights", "flight_outcomes", "weather", "planes", "airports")
FIRST_DAY = (day_of(0), "all")
Days = list[list[list[Delivery]]]


def once(call: Callable, at: int, error: OSError) -> Callable:
    """The same call, which fails at its n-th use and never again."""
    uses = 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal uses
        uses += 1
        if uses == at:
            raise error
        return call(*args, **kwargs)

    return failing


def first_day_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [file for file in manifest["files"] if file["partition"] in FIRST_DAY]


@pytest.mark.parametrize(("fault", "at"), [("full", 1), ("full", 6), ("read-only", 3), ("read-only", 12)])
def test_a_run_that_could_not_write_is_made_again(
    calm: Driven, days: Days, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, at: int
) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path))
    feed_wave(days[0][0], str(tmp_path))
    with open_instance(tmp_path) as instance:
        monkeypatch.setattr(module, "SAVE_SECONDS", float("inf"))  # the first write is then one of a run
        driver = Driver(defs, instance, tmp_path / "driver", only=("flights_arrivals", "flights_ingestion"))
        driver.save()
        with monkeypatch.context() as broken:
            if fault == "full":
                broken.setattr(os, "fsync", once(os.fsync, at, OSError(errno.ENOSPC, "No space left on device")))
            else:
                broken.setattr(Path, "replace", once(Path.replace, at, OSError(errno.EROFS, "Read-only file system")))
            failed = [run for run in driver.settle() if not run.success]
        assert failed
        assert ("No space left" if fault == "full" else "Read-only") in str(failed[0].errors)
    for source in DATA:
        expected = first_day_of(calm.state["manifests"][f"lake/{source}/manifest.json"])
        assert [vars(file) for file in Dataset(tmp_path / "lake" / source).files()] == expected
    assert not [p for p in (tmp_path / "landing").rglob("*") if p.is_file()]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_dataset_that_could_not_be_written_is_the_one_from_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    dataset = Dataset(tmp_path / "numbers")
    dataset.write("2013-01-01", pa.table({"number": [1]}))
    before = dataset.files()
    for at in (1, 2):  # the rows, then the manifest
        with monkeypatch.context() as broken:
            target = os if name == "fsync" else Path
            broken.setattr(
                target, name, once(getattr(target, name), at, OSError(errno.ENOSPC, "No space left on device"))
            )
            with pytest.raises(OSError, match="No space left"):
                dataset.write("2013-01-01", pa.table({"number": [2 + at]}))
        assert dataset.files() == before
    dataset.write("2013-01-01", pa.table({"number": [4]}))
    assert [file.rows for file in dataset.files()] == [1]
    assert dataset.files() != before
