"""The manifest against a plain list of its files, and what an arrival costs beside a long history."""

import json
import random
import threading
from pathlib import Path

import pytest

from ct_assets.lake import manifest as module
from ct_assets.lake.manifest import DataFile, Manifest, entries

DAYS = [f"2013-01-{day:02d}" for day in range(1, 29)]


def a_file(partition: str, name: str, rows: int = 1) -> DataFile:
    at = f"{partition}T00:00:00+00:00" if rows else None
    return DataFile(f"{partition}/{name}.parquet", partition, name * 2, rows, at, at)


def read_from_scratch(manifest: Manifest) -> list[DataFile]:
    module._leaf.cache_clear()
    return Manifest(manifest.folder, "known_at").files()


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest(tmp_path / "d", "known_at")


@pytest.fixture
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAF", 3)
    monkeypatch.setattr(module, "FAN", 3)


@pytest.mark.usefixtures("small_leaves")
@pytest.mark.parametrize("seed", range(3))
def test_it_lists_what_a_plain_list_would(manifest: Manifest, seed: int) -> None:
    """Days in any order, replaced and appended to, one of them large: files, windows and sums are those of a list."""
    chance = random.Random(seed)
    expected: list[DataFile] = []
    for _ in range(120):
        partition = chance.choice([*DAYS, *["2013-01-07"] * 9, "all"])
        new = a_file(partition, f"{chance.randrange(40):02d}", chance.randrange(3))
        append = chance.random() < 0.7
        expected = [f for f in expected if f.path != new.path and (append or f.partition != partition)]
        expected = sorted([*expected, new], key=lambda f: (f.partition, f.path))
        manifest.add(new, append)
        assert manifest.files() == expected
    assert read_from_scratch(manifest) == expected
    assert manifest.rows() == sum(f.rows for f in expected)
    for _ in range(50):
        first, last = sorted(chance.choices(DAYS, k=2))
        assert manifest.files(first, last) == [f for f in expected if first <= f.partition <= last]
        assert manifest.files(first) == [f for f in expected if first <= f.partition]
        assert manifest.files(last=last) == [f for f in expected if f.partition <= last]


@pytest.mark.usefixtures("small_leaves")
def test_leaves_hold_the_range_of_their_times_and_no_other_file_stays(manifest: Manifest) -> None:
    for day in DAYS:
        manifest.add(a_file(day, "aa"), append=False)
    manifest.add(a_file(DAYS[3], "bb"), append=True)
    leaves = json.loads(manifest.path.read_text())["leaves"]
    spans = [(leaf["min_time"][:10], leaf["max_time"][:10]) for leaf in leaves]
    assert spans == sorted(spans)
    assert spans[0] == ("2013-01-01", "2013-01-09")
    assert sorted(p.name for p in (manifest.folder / "manifest").iterdir()) == sorted(
        Path(leaf["path"]).name for leaf in leaves
    )


def test_a_manifest_without_leaves_is_read_and_continued(manifest: Manifest) -> None:
    """As it was before there were leaves, and as another program writes it."""
    old = [a_file(f"2012-{month:02d}-{day:02d}", "aa") for month in range(1, 13) for day in range(1, 29)]
    manifest.folder.mkdir()
    manifest.path.write_text(json.dumps({"time_column": "known_at", "files": [vars(f) for f in old]}))
    assert manifest.files() == old
    new = a_file("2013-01-01", "aa")
    manifest.add(new, append=False)
    assert read_from_scratch(manifest) == [*old, new]
    assert len(json.loads(manifest.path.read_text())["files"]) <= 2 * module.LEAF


@pytest.mark.usefixtures("small_leaves")
@pytest.mark.parametrize("late", [False, True])
def test_a_crash_at_any_write_leaves_the_old_list_or_the_new_one(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    write = module.write_atomically
    days = [*DAYS[:3], *DAYS[4:18]]
    for day in days:
        manifest.add(a_file(day, "aa"), append=False)
    new = a_file(DAYS[3] if late else DAYS[20], "bb")
    before, steps = manifest.files(), 0
    while manifest.files() == before:
        steps, left = steps + 1, steps

        def crash(path: Path, payload: bytes) -> None:
            nonlocal left
            if left == 0:
                raise OSError("the power went")
            left -= 1
            write(path, payload)

        with monkeypatch.context() as broken:
            broken.setattr(module, "write_atomically", crash)
            try:
                manifest.add(new, append=False)
            except OSError:
                assert read_from_scratch(manifest) == before
    assert steps > 1
    assert read_from_scratch(manifest) == sorted([*before, new], key=lambda f: f.partition)


@pytest.mark.usefixtures("small_leaves")
def test_a_reader_beside_a_writer_sees_whole_versions(manifest: Manifest) -> None:
    """A day is always replaced by another file of it, so that every version has each day once."""
    for day in DAYS:
        manifest.add(a_file(day, "00"), append=False)
    done, wrong = threading.Event(), list[int]()

    def read() -> None:
        while not done.is_set():
            found = [f.partition for f in read_from_scratch(manifest)]
            if found != DAYS:
                wrong.append(len(found))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        manifest.add(a_file(DAYS[number * 5 % len(DAYS)], f"{number:02d}"), append=False)
    done.set()
    reader.join()
    assert wrong == []


def test_a_leaf_that_is_gone_is_an_error_and_no_shorter_list(manifest: Manifest) -> None:
    manifest.write([a_file(f"2012-{month:02d}-{day:02d}", "aa") for month in range(1, 13) for day in range(1, 29)])
    next((manifest.folder / "manifest").iterdir()).unlink()
    with pytest.raises(FileNotFoundError):
        read_from_scratch(manifest)


def test_an_arrival_costs_the_same_after_ten_years(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes written and read, by any process; and a version of the list that was replaced is not remembered."""

    def cost(history: int) -> tuple[int, int]:
        manifest = Manifest(tmp_path / str(history), "known_at")
        manifest.write([a_file(f"{10000 + number}", "a" * 32) for number in range(history)])
        written, read, write, load = list[int](), list[int](), module.write_atomically, Path.read_bytes

        def counted_write(path: Path, payload: bytes) -> None:
            written.append(len(payload))
            write(path, payload)

        def counted_read(path: Path) -> bytes:
            payload = load(path)
            read.append(len(payload))
            return payload

        with monkeypatch.context() as counting:
            counting.setattr(module, "write_atomically", counted_write)
            counting.setattr(Path, "read_bytes", counted_read)
            for number in range(3 * module.LEAF):
                module._leaf.cache_clear()
                partition = f"{90000 + number}"
                manifest.add(a_file(partition, "b" * 32), append=False)
                assert len(manifest.files("9")) == number + 1
                assert len(entries(str(manifest.path), lambda leaf: leaf["max_time"] >= "9")) <= 20 * module.LEAF
        return sum(written), sum(read)

    few, many = cost(300), cost(3650)
    assert many[0] < 1.7 * few[0]
    assert many[1] < 1.7 * few[1]
