import multiprocessing
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from ct_assets.lake import dataset as rows_module
from ct_assets.lake import manifest as manifest_module
from ct_assets.lake.dataset import Dataset
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.paths import default_home


def rows(day: str, numbers: list[int]) -> pa.Table:
    moments = pd.to_datetime([f"{day}T{hour:02d}:00Z" for hour in range(len(numbers))]).as_unit("us")
    return pa.Table.from_pandas(pd.DataFrame({"n": numbers, "known_at": moments}), preserve_index=False)


def numbers(home: Path, as_of: str = "2013-02-01", window: Window | None = None) -> list[int]:
    table = Lake(home).query("SELECT n FROM d ORDER BY n", {"d": window or Window()}, pd.Timestamp(as_of, tz="UTC"))
    return table["n"].to_pylist()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Lake(tmp_path).dataset("d")


def test_a_partition_is_replaced_unless_one_appends(dataset: Dataset, tmp_path: Path) -> None:
    dataset.write("2013-01-01", rows("2013-01-01", [1, 2]))
    dataset.write("2013-01-01", rows("2013-01-01", [3]))
    assert numbers(tmp_path) == [3]
    dataset.write("2013-01-01", rows("2013-01-01", [4]), append=True)
    dataset.write("2013-01-02", rows("2013-01-02", [5]))
    assert numbers(tmp_path) == [3, 4, 5]
    assert dataset.rows() == 3


def test_a_replaced_file_stays_on_disk_and_is_not_read(dataset: Dataset, tmp_path: Path) -> None:
    old = dataset.write("2013-01-01", rows("2013-01-01", [1]))
    dataset.write("2013-01-01", rows("2013-01-01", [2]))
    assert (dataset.root / old.path).exists()
    assert numbers(tmp_path) == [2]


def test_the_same_content_written_again_changes_nothing(dataset: Dataset) -> None:
    first = dataset.write("2013-01-01", rows("2013-01-01", [1, 2]), append=True)
    manifest = dataset.manifest_path.read_bytes()
    written = (dataset.root / first.path).stat().st_mtime_ns
    assert dataset.write("2013-01-01", rows("2013-01-01", [1, 2]), append=True) == first
    assert dataset.manifest_path.read_bytes() == manifest
    assert (dataset.root / first.path).stat().st_mtime_ns == written


def test_equal_tables_of_two_days_are_two_files(dataset: Dataset) -> None:
    same = rows("2013-01-01", [1])
    assert dataset.write("2013-01-01", same).path != dataset.write("2013-01-02", same).path
    assert dataset.rows() == 2


def test_files_note_the_range_of_their_times(dataset: Dataset) -> None:
    file = dataset.write("2013-01-01", rows("2013-01-01", [1, 2, 3]))
    assert (file.min_time, file.max_time) == ("2013-01-01T00:00:00+00:00", "2013-01-01T02:00:00+00:00")
    empty = dataset.write("2013-01-02", rows("2013-01-02", []))
    assert (empty.rows, empty.min_time, empty.max_time) == (0, None, None)


def test_files_are_chosen_by_partition_with_both_ends(dataset: Dataset) -> None:
    for day in ("2013-01-03", "2013-01-01", "2013-01-02"):
        dataset.write(day, rows(day, [1]))
    assert [f.partition for f in dataset.files("2013-01-01", "2013-01-02")] == ["2013-01-01", "2013-01-02"]
    assert [f.partition for f in dataset.files(last="2013-01-01")] == ["2013-01-01"]
    assert len(dataset.files()) == 3


def test_a_query_sees_what_was_known_at_the_moment_itself_and_nothing_later(dataset: Dataset, tmp_path: Path) -> None:
    dataset.write("2013-01-01", rows("2013-01-01", [1, 2, 3]))
    assert numbers(tmp_path, "2013-01-01T01:00") == [1, 2]
    assert numbers(tmp_path, "2013-01-01T00:59:59.999999") == [1]


def test_a_window_without_rows_is_empty_and_a_dataset_without_files_says_what_to_do(
    dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="dataset 'd' has no files.*materialize 'd'"):
        numbers(tmp_path)
    dataset.write("2013-01-01", rows("2013-01-01", [1]))
    assert numbers(tmp_path, window=Window("2013-01-02", None)) == []


def test_a_torn_temporary_file_is_not_read(dataset: Dataset, tmp_path: Path) -> None:
    dataset.write("2013-01-01", rows("2013-01-01", [1]))
    (dataset.root / "2013-01-01" / ".half.parquet.1a2b3c4d").write_bytes(b"PAR1 torn")
    (dataset.root / ".manifest.json.1a2b3c4d").write_text('{"files": [')
    assert numbers(tmp_path) == [1]


@pytest.mark.parametrize("step", [1, 2])
def test_a_crash_while_writing_leaves_the_old_version(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    dataset.write("2013-01-01", rows("2013-01-01", [1]))
    done, write = [], rows_module.write_atomically

    def crash(path: Path, payload: bytes) -> None:
        done.append(path)
        if len(done) == step:
            raise OSError("the power went")
        write(path, payload)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        for module in (rows_module, manifest_module):
            patch.setattr(module, "write_atomically", crash)
        dataset.write("2013-01-01", rows("2013-01-01", [2]))
    assert numbers(tmp_path) == [1]
    dataset.write("2013-01-01", rows("2013-01-01", [2]))
    assert numbers(tmp_path) == [2]


def _write_many(root: str, writer: int) -> None:
    for i in range(40):
        Dataset(Path(root)).write("2013-01-01", rows("2013-01-01", [writer * 1000 + i]), append=True)


def test_two_processes_write_and_no_file_is_lost(tmp_path: Path) -> None:
    root = tmp_path / "lake" / "d"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(str(root), writer)) for writer in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(Dataset(root).files()) == 80
    assert numbers(tmp_path) == sorted(w * 1000 + i for w in (1, 2) for i in range(40))


def test_the_home_is_read_from_the_environment_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path))
    assert default_home() == tmp_path
    monkeypatch.delenv("CT_HOME")
    assert default_home().name == ".ct"
