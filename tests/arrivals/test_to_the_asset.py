"""Each way in, to the end: what arrives by itself becomes rows of a materialized source."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import httpx
import pandera.pandas as pa
import pytest
import sqlalchemy as sa
from events_server import ORDERS as EVENTS
from events_server import event, events_server
from s3_server import BUCKET, s3_server
from s3fs import S3FileSystem

from ct_assets.lake.contract import Source, SqlTable
from ct_assets.lake.landing import Landing
from ct_assets.lib.arrivals import build_arrival_sensor
from ct_assets.lib.domains import build_sources
from ct_assets.lib.driver import Driver
from ct_assets.lib.tables import build_table_sensor
from ct_assets.resources.lake import LakeResource

DAY = "2013-01-01"
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
)
IN_A_BUCKET = replace(ORDERS, format="csv", landing=f"s3://{BUCKET}/orders")
IN_A_TABLE = replace(
    ORDERS,
    table=SqlTable(
        "SHOP_URL", table="orders", cursor="number", lag=timedelta(0), every=timedelta(0), known_at="at", zone="UTC"
    ),
)


class Place:
    """One source with its sensors and automation, on a home."""

    def __init__(self, home: Path, source: Source) -> None:
        self.source = source
        self.lake = LakeResource(home=str(home))
        self.instance = dg.DagsterInstance.ephemeral()
        resources = dg.Definitions(resources={"lake": self.lake}, executor=dg.in_process_executor)
        defs = dg.Definitions.merge(build_sources([source]), resources)
        self.driver = Driver(defs, self.instance, home / "driver")

    def settle(self) -> list[tuple[str | None, bool]]:
        """Let automation do what it does; the partition and success of each run."""
        return [(run.partition, run.success) for run in self.driver.settle()]

    def ids(self, partition: str = DAY) -> list[str]:
        import pyarrow.parquet as pq

        dataset = self.lake.lake().dataset(self.source.name)
        return sorted(
            i for p in dataset.paths(dataset.partition(partition)) for i in pq.read_table(p)["id"].to_pylist()
        )

    def recorded(self) -> list[tuple[str, str]]:
        return [(record.kind, record.evidence["file"]) for record in self.lake.ledger().records()]


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3FileSystem]:
    with s3_server() as fs:
        yield fs


def csv(*rows: tuple[str, float]) -> bytes:
    return "\n".join(["id,price,known_at", *(f"{i},{p},{DAY}T05:00:00Z" for i, p in rows)]).encode()


def test_an_object_in_a_bucket_becomes_rows_of_the_source(bucket: S3FileSystem, tmp_path: Path) -> None:
    place = Place(tmp_path, IN_A_BUCKET)
    folder = f"{BUCKET}/orders/{DAY}"
    bucket.pipe_file(f"{folder}/a.csv", csv(("a", 1), ("b", 2)))
    assert place.settle() == [(DAY, True)]
    bucket.pipe_file(f"{folder}/bad.csv", csv(("c", -1)))
    assert place.settle() == [(DAY, False)]
    bucket.pipe_file(f"{folder}/again.csv", csv(("a", 1), ("b", 2)))
    bucket.pipe_file(f"{folder}/c.csv", csv(("c", 3)))
    assert place.settle() == [(DAY, True)]
    assert place.ids() == ["a", "b", "c"]
    assert place.recorded() == [("quarantined", "bad.csv"), ("duplicate", "again.csv")]
    assert bucket.find(BUCKET) == []
    assert place.settle() == []


def test_a_bucket_that_cannot_be_reached_hides_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Landing.files
    sensor = build_arrival_sensor(ORDERS.domain, [replace(ORDERS, name="far", landing="/far"), ORDERS])
    landing = Landing(tmp_path, ORDERS)
    landing.write(DAY, "a.parquet", b"rows")
    seen, cursor = [], None

    def answering(self: Landing) -> object:
        if self._root == "/far":
            raise TimeoutError("no answer")
        return files(self)

    monkeypatch.setattr(Landing, "files", answering)
    for _ in range(2):  # a young file is reported at the second look
        lake = LakeResource(home=str(tmp_path))
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(instance, cursor=cursor, resources={"lake": lake}) as context,
        ):
            result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor
        seen += [report.asset_key.path[-1] for report in result.asset_events]
    assert seen == ["orders"]


def test_new_rows_of_a_table_become_rows_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_URL", f"sqlite:///{tmp_path}/shop.db")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")
    columns = [sa.Column("number", sa.Integer), sa.Column("id", sa.Text), sa.Column("price", sa.Float)]
    table = sa.Table("orders", sa.MetaData(), *columns, sa.Column("at", sa.DateTime))
    table.create(engine)

    def insert(number: int, price: float, day: int = 1) -> None:
        row = {"number": number, "id": f"o{number}", "price": price, "at": datetime(2013, 1, day, 5)}
        with engine.begin() as connection:
            connection.execute(table.insert(), row)

    place = Place(tmp_path / "home", IN_A_TABLE)
    assert place.settle() == []
    insert(1, 1.0)
    insert(2, 2.0, day=2)
    assert place.settle() == [(DAY, True), ("2013-01-02", True)]
    insert(3, -1.0)
    assert place.settle() == [(DAY, False)]
    insert(4, 1.0)
    # The third one's row is missing still.
    assert place.settle() == [(DAY, False)]
    assert (place.ids(), place.ids("2013-01-02")) == (["o1", "o4"], ["o2"])
    assert [kind for kind, _ in place.recorded()] == ["quarantined"]
    assert Place(tmp_path / "home", IN_A_TABLE).lake.lake().dataset("orders").rows() == 3
    engine.dispose()


def test_a_table_without_its_variable_is_told_and_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOP_URL", raising=False)
    told: list[str] = []
    context = dg.build_sensor_context(resources={"lake": LakeResource(home=str(tmp_path))})
    with context:
        context.log.error = told.append  # type: ignore[method-assign]
        result = build_table_sensor(ORDERS.domain, [IN_A_TABLE])(context)
    assert isinstance(result, dg.SensorResult)
    assert "the environment variable SHOP_URL is not set" in told[0]


def test_events_become_rows_of_the_source(tmp_path: Path) -> None:
    place = Place(tmp_path, EVENTS)
    kind = {"content-type": "application/cloudevents+json"}
    for numbers in ((1, 2), (2, 3)):
        with events_server(tmp_path) as client:
            for number in numbers:
                answer: httpx.Response = client.post("/v1/events", json=event(number), headers=kind)
                assert answer.status_code == 202
        assert place.settle() == [(DAY, True)]
    assert place.ids() == ["o1", "o2", "o3"]
    assert place.recorded() == []
    stored = place.lake.lake().dataset("orders").files()
    assert {f.min_time for f in stored} == {datetime(2013, 1, 1, 5, tzinfo=UTC).isoformat()}
