"""`ct land`: each row of a file reaches its day, whatever the file is called and however often it is landed."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandera.pandas as pa
import pytest

from ct_assets.lake.contract import Domain, Source
from ct_assets.lake.ingest import ingest
from ct_assets.lake.lake import Lake
from ct_assets.work import Taken, land

DAY = "2025-01-02"
VISITS = Source(
    name="visits",
    schema=pa.DataFrameSchema(
        {
            "visit": pa.Column(object),
            "pages": pa.Column(int, pa.Check.ge(0)),
            "known_at": pa.Column("datetime64[us, UTC]"),
        }
    ),
    key=("visit",),
    description="Visits.",
    owner="team:shop",
    domain=Domain("shop", first_day=date(2025, 1, 1)),
    format="csv",
)


def written(path: Path, *rows: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("visit,pages,known_at\n" + "".join(f"{row}\n" for row in rows))
    return path


def statuses(home: Path, source: Source = VISITS) -> list[str]:
    return [batch.status for batch in ingest(Lake(home), source, DAY)]


def test_two_files_of_one_name_lose_no_row(tmp_path: Path) -> None:
    for folder, row in (("january", f"a,1,{DAY}T01:00:00Z"), ("february", f"b,2,{DAY}T23:00:00Z")):
        assert land(tmp_path, VISITS, written(tmp_path / folder / "export.csv", row)) == Taken(landed=1, known=0)
    assert statuses(tmp_path) == ["accepted"] * 2
    assert [file.rows for file in Lake(tmp_path).dataset("visits").partition(DAY)] == [1, 1]


@pytest.mark.parametrize(
    "text", ["", "visit,pages\na,1\n", "visit,pages,known_at\na,1,\n", "visit,pages,known_at\na,1,2025-01-02\n"]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "second.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"second\.csv"):
        land(tmp_path, VISITS, file)


def test_a_file_that_breaks_the_contract_is_refused_as_a_whole(tmp_path: Path) -> None:
    file = written(tmp_path / "export.csv", f"a,-1,{DAY}T01:00:00Z", "b,1,2025-01-03T01:00:00Z")
    with pytest.raises(ValueError, match=r"export\.csv breaks the contract of visits, and nothing.*column pages.*-1"):
        land(tmp_path, VISITS, file)
    assert not (tmp_path / "landing").exists()
    columns = VISITS.schema.update_column("pages", checks=[])
    changed = Source(**{**vars(VISITS), "schema": columns})
    assert land(tmp_path, changed, file) == Taken(landed=2, known=0)
    assert statuses(tmp_path, changed) == ["accepted"]


def test_a_key_may_come_again_on_another_day_but_not_on_one(tmp_path: Path) -> None:
    two_days = written(tmp_path / "two.csv", f"a,1,{DAY}T01:00:00Z", "a,1,2025-01-03T01:00:00Z")
    assert land(tmp_path, VISITS, two_days).landed == 2
    with pytest.raises(ValueError, match="1 rows repeat the key visit"):
        land(tmp_path, VISITS, written(tmp_path / "one.csv", f"a,1,{DAY}T01:00:00Z", f"a,1,{DAY}T02:00:00Z"))


def test_a_row_that_was_accepted_with_other_values_is_refused(tmp_path: Path) -> None:
    land(tmp_path, VISITS, written(tmp_path / "a.csv", f"a,1,{DAY}T01:00:00Z"))
    assert statuses(tmp_path) == ["accepted"]
    with pytest.raises(ValueError, match="1 rows have a key visit that a-"):
        land(tmp_path, VISITS, written(tmp_path / "b.csv", f"a,2,{DAY}T01:00:00Z"))


SPARSE = [f"a,1,{DAY}T01:00:00Z", "b,1,2025-01-05T01:00:00Z"]


def test_days_without_rows_between_others_are_reported_where_the_source_allows_them(tmp_path: Path) -> None:
    file = written(tmp_path / "sparse.csv", *SPARSE)
    assert land(tmp_path, VISITS, file) == Taken(landed=2, known=0, silent=2)
    quiet = replace(VISITS, min_rows=0)
    assert land(tmp_path, quiet, file) == Taken(landed=4, known=0, silent=0)
    (nothing,) = ingest(Lake(tmp_path), quiet, "2025-01-04")
    assert (nothing.status, nothing.rows) == ("accepted", 0)


def test_days_with_too_few_rows_are_named_before_anything_lands(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"2 day.s. have fewer than the 2 rows of min_rows, such as {DAY} with 1"):
        land(tmp_path, replace(VISITS, min_rows=2), written(tmp_path / "sparse.csv", *SPARSE))
    assert not (tmp_path / "landing").exists()


def test_what_was_accepted_is_left_out_and_counted(tmp_path: Path) -> None:
    file = written(tmp_path / "export.csv", f"a,1,{DAY}T01:00:00Z")
    land(tmp_path, VISITS, file)
    assert land(tmp_path, VISITS, file) == Taken(landed=1, known=0), "it waits, and is written once more"
    assert statuses(tmp_path) == ["accepted"]
    written(file, f"a,1,{DAY}T01:00:00Z", "b,1,2025-01-03T01:00:00Z")
    assert land(tmp_path, VISITS, file) == Taken(landed=1, known=1)
    assert statuses(tmp_path) == []


def test_a_name_that_marks_unfinished_files_is_read_all_the_same(tmp_path: Path) -> None:
    land(tmp_path, VISITS, written(tmp_path / "_export.csv", f"a,1,{DAY}T01:00:00Z"))
    assert statuses(tmp_path) == ["accepted"]


def test_a_file_without_rows_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"export\.csv has no rows; expected at least one"):
        land(tmp_path, VISITS, written(tmp_path / "export.csv"))


def test_nothing_is_known_in_the_future(tmp_path: Path) -> None:
    later = datetime.now(UTC).date() + timedelta(days=2)
    with pytest.raises(ValueError, match=f"such as {later}; expected 2025-01-01 to today"):
        land(tmp_path, VISITS, written(tmp_path / "export.csv", f"a,1,{later}T01:00:00Z"))
    assert not (tmp_path / "landing").exists()
