"""What is archived is what was read; what is written meanwhile, or only linked, is not lost."""

import os
from pathlib import Path

import pandera.pandas as pn
import pytest

from ct_assets.lake import ingest as module
from ct_assets.lake.contract import Source
from ct_assets.lake.ingest import ingest
from ct_assets.lake.lake import Lake
from ct_assets.lake.landing import Landing

DAY = "2024-05-02"
VISITS = Source(
    name="visits",
    schema=pn.DataFrameSchema({"id": pn.Column(int), "known_at": pn.Column("datetime64[us, UTC]")}),
    key=("id",),
    description="Visits",
    owner="team:test",
    format="csv",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "landing" / "visits" / DAY
    made.mkdir(parents=True)
    return made


def rows(*ids: int) -> bytes:
    return ("id,known_at\n" + "".join(f"{number},{DAY}T10:00:00Z\n" for number in ids)).encode()


def replaced(path: Path, content: bytes) -> None:
    path.with_name(".new").write_bytes(content)
    path.with_name(".new").replace(path)


@pytest.mark.parametrize("rewrite", [replaced, Path.write_bytes], ids=["replaced", "in place"])
def test_a_file_that_is_written_again_while_it_is_checked_is_two_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rewrite: object
) -> None:
    file, lake, judged = folder / "export.csv", Lake(tmp_path), module.contract_breaches
    file.write_bytes(rows(1, 2))

    def slowly(*given: object) -> list[str]:
        rewrite(file, rows(3, 4, 5))  # type: ignore[operator]
        return judged(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as busy:
        busy.setattr(module, "contract_breaches", slowly)
        assert [batch.rows for batch in ingest(lake, VISITS, DAY)] == [2]
    archived = tmp_path / "archive" / "visits" / DAY
    assert (archived / "export.csv").read_bytes() == rows(1, 2)
    assert [batch.rows for batch in ingest(lake, VISITS, DAY)] == [3]
    assert lake.dataset("visits").rows() == 5
    assert sorted(path.read_bytes() for path in archived.iterdir()) == sorted([rows(1, 2), rows(3, 4, 5)])
    assert not folder.exists()


def test_a_file_that_comes_at_the_moment_of_removal_is_put_back(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, rename = folder / "export.csv", Path.rename
    file.write_bytes(rows(1))

    def late(path: Path, target: Path) -> Path:
        if path == file:
            replaced(file, rows(2))
        return rename(path, target)

    with monkeypatch.context() as busy:
        busy.setattr(Path, "rename", late)
        ingest(Lake(tmp_path), VISITS, DAY)
    assert file.read_bytes() == rows(2)


def test_a_file_that_a_crash_left_aside_is_taken_in(folder: Path, tmp_path: Path) -> None:
    (folder / ".taken").mkdir()
    (folder / ".taken" / "export.csv").write_bytes(rows(1))
    assert [batch.status for batch in ingest(Lake(tmp_path), VISITS, DAY)] == ["accepted"]


def test_links_to_files_and_folders_are_taken_in_and_others_are_reported(folder: Path, tmp_path: Path) -> None:
    stored, elsewhere = tmp_path / "stored.csv", tmp_path / "elsewhere"
    stored.write_bytes(rows(1))
    elsewhere.mkdir()
    (elsewhere / "b.csv").write_bytes(rows(2))
    (folder / "a.csv").symlink_to(stored)
    (folder / "lost.csv").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "pipe.csv")
    (folder.parent / "2024-05-03").symlink_to(elsewhere)
    landing = Landing(tmp_path, VISITS)
    assert list(landing.files()) == [f"{DAY}/a.csv", "2024-05-03/b.csv"]
    assert landing.strays() == [f"{DAY}/lost.csv", f"{DAY}/pipe.csv"]
    assert (landing.names(DAY), landing.names("2024-05-03")) == (["a.csv"], ["b.csv"])
    assert [batch.status for batch in ingest(Lake(tmp_path), VISITS, DAY)] == ["accepted"]
    assert stored.read_bytes() == rows(1)
    assert list(landing.files()) == ["2024-05-03/b.csv"]
