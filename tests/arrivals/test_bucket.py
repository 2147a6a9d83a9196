"""A bucket as the landing place: what becomes of an object, and what a crash leaves of it."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pytest
from s3_server import BUCKET, s3_server
from s3fs import S3FileSystem

from ct_assets.lake import landing as module
from ct_assets.lake.contract import Source
from ct_assets.lake.ingest import Batch, ingest, open_rejections
from ct_assets.lake.lake import Lake
from ct_assets.lake.landing import Landing

DAY = "2013-01-01"
PLACE = f"{BUCKET}/shop/orders"
ORDERS = Source(
    name="orders",
    schema=pa.DataFrameSchema(
        {
            "id": pa.Column(object),
            "price": pa.Column(float, pa.Check.ge(0)),
            "known_at": pa.Column("datetime64[us, UTC]"),
        }
    ),
    key=("id",),
    description="Orders",
    owner="team:test",
    format="csv",
    landing=f"s3://{PLACE}",
)


@pytest.fixture(scope="module")
def server() -> Iterator[S3FileSystem]:
    with s3_server() as fs:
        yield fs


@pytest.fixture
def bucket(server: S3FileSystem) -> Iterator[S3FileSystem]:
    yield server
    for path in server.find(BUCKET):
        server.rm_file(path)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def orders(*numbers: int, price: float = 1.0) -> bytes:
    rows = [{"id": f"o{n}", "price": price, "known_at": f"{DAY}T05:00:00Z"} for n in numbers]
    return pd.DataFrame(rows).to_csv(index=False).encode()


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def take_in(lake: Lake) -> list[tuple[str, str]]:
    return [(batch.name, batch.status) for batch in ingest(lake, ORDERS, DAY)]


def test_an_object_goes_to_the_lake_and_into_the_archive(bucket: S3FileSystem, lake: Lake) -> None:
    bucket.pipe_file(f"{PLACE}/{DAY}/orders.csv", orders(1, 2))
    assert take_in(lake) == [("orders.csv", "accepted")]
    assert bucket.find(BUCKET) == []
    assert (lake.home / "archive" / "orders" / DAY / "orders.csv").read_bytes() == orders(1, 2)
    assert lake.dataset("orders").rows() == 2


def test_the_same_object_again_changes_nothing(bucket: S3FileSystem, lake: Lake) -> None:
    for name, status in (("orders.csv", "accepted"), ("orders.csv", "duplicate"), ("again.csv", "duplicate")):
        bucket.pipe_file(f"{PLACE}/{DAY}/{name}", orders(1, 2))
        assert take_in(lake) == [(name, status)]
    assert lake.dataset("orders").rows() == 2
    assert below(lake.home / "archive" / "orders" / DAY) == ["again.csv", "orders.csv"]


def test_a_rejected_object_lies_in_quarantine(bucket: S3FileSystem, lake: Lake) -> None:
    bucket.pipe_file(f"{PLACE}/{DAY}/orders.csv", orders(1, price=-1.0))
    bucket.pipe_file(f"{PLACE}/{DAY}/more.csv", orders(2))
    assert take_in(lake) == [("more.csv", "accepted"), ("orders.csv", "quarantined")]
    digest = hashlib.sha256(orders(1, price=-1.0)).hexdigest()[:12]
    assert below(lake.home / "quarantine") == [
        f"orders/{DAY}/{digest}-orders.csv",
        f"orders/{DAY}/{digest}-orders.csv.json",
    ]
    assert "column price" in open_rejections(lake, ORDERS, DAY)[0]
    assert bucket.find(BUCKET) == []


def test_what_is_being_written_and_what_stands_for_a_folder_is_left_alone(bucket: S3FileSystem, lake: Lake) -> None:
    for name in (".orders.csv.part", "_SUCCESS", ""):
        bucket.pipe_file(f"{PLACE}/{DAY}/{name}", b"" if not name else b"half")
    assert take_in(lake) == []
    assert Landing(lake.home, ORDERS).files() == {}


def test_an_object_with_a_name_that_no_disk_takes_is_kept(bucket: S3FileSystem, lake: Lake) -> None:
    long = "ü" * 300 + ".csv"
    bucket.pipe_file(f"{PLACE}/{DAY}/{long}", orders(1))
    assert take_in(lake) == [(long, "accepted")]
    (kept,) = (lake.home / "archive" / "orders" / DAY).iterdir()
    assert kept.read_bytes() == orders(1)


def test_an_object_that_is_written_again_meanwhile_stays_for_the_next_look(bucket: S3FileSystem, lake: Lake) -> None:
    bucket.pipe_file(f"{PLACE}/{DAY}/orders.csv", orders(1))
    landing = Landing(lake.home, ORDERS)
    landed = landing.read(DAY, "orders.csv")
    bucket.pipe_file(f"{PLACE}/{DAY}/orders.csv", orders(2, 3))
    landing.move(landed, lake.home / "kept.csv")
    assert (lake.home / "kept.csv").read_bytes() == orders(1)
    assert take_in(lake) == [("orders.csv", "accepted")]
    assert lake.dataset("orders").rows() == 2


@pytest.mark.parametrize("content", [orders(1), orders(1, price=-1.0)], ids=["accepted", "quarantined"])
@pytest.mark.parametrize("step", ["mark", "copy", "remove", "after"])
def test_a_crash_while_an_object_moves_ends_as_if_there_had_been_none(
    bucket: S3FileSystem, lake: Lake, monkeypatch: pytest.MonkeyPatch, step: str, content: bytes
) -> None:
    bucket.pipe_file(f"{PLACE}/{DAY}/orders.csv", content)
    with monkeypatch.context() as broken:
        _crash_at(broken, step)
        with pytest.raises(OSError, match="the power went"):
            ingest(lake, ORDERS, DAY)
    again = ingest(lake, ORDERS, DAY)
    expected = [] if step == "after" else ["accepted" if content == orders(1) else "quarantined"]
    assert [batch.status for batch in again] == expected
    assert _end_state(bucket, lake) == _undisturbed(bucket, lake.home / "other", content)


def _crash_at(patch: pytest.MonkeyPatch, step: str) -> None:
    def crash(*_: object) -> None:
        raise OSError("the power went")

    write = module.write_atomically
    steps: dict[str, Any] = {
        "mark": lambda: patch.setattr(module, "write_atomically", crash),
        "copy": lambda: patch.setattr(
            module, "write_atomically", lambda path, payload: (path.name[0] == "." or crash()) and write(path, payload)
        ),
        "remove": lambda: patch.setattr(Landing, "_remove", crash),
        "after": lambda: patch.setattr(Path, "unlink", crash),
    }
    steps[step]()


def _end_state(bucket: S3FileSystem, lake: Lake) -> Any:
    kept = [[n for n in below(lake.home / name) if ".moving" not in n] for name in ("archive", "quarantine")]
    return bucket.find(BUCKET), kept, lake.dataset("orders").files(), open_rejections(lake, ORDERS, DAY)


def _undisturbed(bucket: S3FileSystem, home: Path, content: bytes) -> Any:
    other = Lake(home)
    bucket.pipe_file(f"{PLACE}/{DAY}/orders.csv", content)
    ingest(other, ORDERS, DAY)
    return _end_state(bucket, other)


def test_a_file_from_another_place_is_copied_and_then_removed(
    lake: Lake, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = elsewhere / DAY / "orders.csv"
    path.parent.mkdir()
    path.write_bytes(orders(1))
    batches: list[Batch] = ingest(lake, replace(ORDERS, landing=str(elsewhere)), DAY)
    assert [batch.status for batch in batches] == ["accepted"]
    assert below(elsewhere) == []
    assert below(lake.home / "archive") == [f"orders/{DAY}/orders.csv"]
