"""Where the feeder begins, and where it ends."""

from datetime import date
from pathlib import Path

import pytest

from ct_assets.feeds.pace import land_days, mark_of


def fed(home: Path, days: int, first: str = "") -> list[date]:
    return [day for day, _ in land_days(home, "flight_delay", days, first)]


def test_it_begins_with_the_first_day_and_goes_on_after_the_last_one_fed(tmp_path: Path) -> None:
    assert fed(tmp_path, 2) == [date(2013, 1, 1), date(2013, 1, 2)]
    assert fed(tmp_path, 1) == [date(2013, 1, 3)]


def test_it_goes_on_after_what_the_demo_has_taken_in(tmp_path: Path) -> None:
    for name in ("2013-03-09", "2013-03-10", "abcd-ef-gh", "2014-07-01"):
        (tmp_path / "archive" / "flights" / name).mkdir(parents=True)
    assert fed(tmp_path, 1) == [date(2013, 3, 11)]


def test_a_mark_that_is_no_date_is_passed_by(tmp_path: Path) -> None:
    mark_of(tmp_path, "flight_delay").parent.mkdir(parents=True)
    mark_of(tmp_path, "flight_delay").write_text("half of a da")
    assert fed(tmp_path, 1) == [date(2013, 1, 1)]


@pytest.mark.parametrize("first", ["2012-12-31", "2015-01-01"])
def test_a_first_day_outside_of_the_recording_is_an_error(tmp_path: Path, first: str) -> None:
    with pytest.raises(ValueError, match=f"first day {first} was not recorded; expected YYYY-MM-DD from 2013-01-01 to"):
        fed(tmp_path, 1, first)


def test_a_first_day_that_is_no_date_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="first day 2013-99-01 is no date; expected YYYY-MM-DD from 2013-01-01 to"):
        fed(tmp_path, 1, "2013-99-01")


def test_after_the_last_day_nothing_lands(tmp_path: Path) -> None:
    (tmp_path / "archive" / "flights" / "2014-01-01").mkdir(parents=True)
    (tmp_path / "archive" / "flights" / "2013-12-31").mkdir(parents=True)
    assert fed(tmp_path, 3) in ([], [date(2014, 1, 1)])
