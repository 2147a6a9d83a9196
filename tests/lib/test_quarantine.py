"""What a person decides about a rejected file, and what comes of it in the day's run."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pandera.pandas as pn
import pyarrow.parquet as pq
import pytest

from ct_assets import cli
from ct_assets.lake.contract import Domain, Source
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.ingest import Batch
from ct_assets.lake.quarantine import Quarantine, Rejection, find
from ct_assets.lib import quarantine, sources
from ct_assets.lib.arrivals import build_arrival_sensor
from ct_assets.lib.quarantine import drop, listed, release
from ct_assets.lib.sources import build_source
from ct_assets.resources.lake import LakeResource

DAY = "2024-06-01"
TRIPS = Source(
    name="trips",
    schema=pn.DataFrameSchema(
        {"id": pn.Column(int), "km": pn.Column(float, pn.Check.lt(100)), "known_at": pn.Column("datetime64[us, UTC]")}
    ),
    key=("id",),
    description="Trips",
    owner="team:test",
    domain=Domain("taxis", date(2024, 6, 1), date(2024, 6, 2)),
    format="csv",
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


class World:
    """A source, what has landed, and the runs over it."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = home, instance
        self.resource = LakeResource(home=str(home))

    def land(self, name: str, *rows: str) -> None:
        path = self.home / "landing" / "trips" / DAY / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("id,km,known_at\n" + "".join(f"{row},{DAY}T10:00:00Z\n" for row in rows))

    def check(self) -> bool:
        """Materialize the day, and say whether its contract holds."""
        assets = [a for a in build_source(TRIPS).assets or () if isinstance(a, dg.AssetsDefinition)]
        run = dg.materialize(
            assets, partition_key=DAY, resources={"lake": self.resource}, instance=self.instance, raise_on_error=False
        )
        (check,) = run.get_asset_check_evaluations()
        return check.passed

    def rejection(self) -> Rejection:
        (found,) = Quarantine(self.home, TRIPS).open(self.resource.lake().dataset("trips"))
        return found

    def ids(self) -> list[int]:
        dataset = self.resource.lake().dataset("trips")
        return sorted(i for path in dataset.paths(dataset.files()) for i in pq.read_table(path)["id"].to_pylist())


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    return World(tmp_path, instance)


def test_a_released_file_is_taken_in_although_a_value_is_out_of_range(world: World) -> None:
    world.land("shop.csv", "1,250", "2,5")
    assert not world.check()
    ledger = world.resource.ledger()
    release(world.home, ledger, TRIPS, world.rejection(), "a trip to Munich")
    assert (world.check(), world.ids()) == (True, [1, 2])
    (record,) = ledger.records("released")
    assert (record.model, record.evidence["reason"], record.evidence["rows"]) == ("trips", "a trip to Munich", 2)
    assert [r.closed for r in Quarantine(world.home, TRIPS).all()] == ["released"]


@pytest.mark.parametrize(
    ("partition", "begins"),
    [
        (WHOLE, "1970-01-01T00:00:00+00:00"),
        (DAY, f"{DAY}T00:00:00+00:00"),
        ("2026-03-09-13:00", "2026-03-09T13:00:00+00:00"),
        ("2026-03-09-week", "2026-03-09T00:00:00+00:00"),
    ],
)
def test_a_rejection_is_recorded_at_the_beginning_of_its_partition(world: World, partition: str, begins: str) -> None:
    batch = Batch("trips", partition, "shop.csv", "ab" * 32, "quarantined", 2, ("fare: too high",))
    sources._record(world.resource, [batch])
    rejection = Rejection("trips", partition, "shop.csv", "ab" * 32, 2, ("fare: too high",), ())
    quarantine._record(world.resource.ledger(), "dropped", rejection, "a test")
    assert [(r.kind, r.as_of) for r in world.resource.ledger().records()] == [
        ("quarantined", begins),
        ("dropped", begins),
    ]


def test_a_file_whose_types_are_wrong_cannot_be_released(world: World) -> None:
    world.land("shop.csv", "1.5,5")
    world.check()
    with pytest.raises(ValueError, match=r"shop\.csv cannot be released: column id: expected int64; found 1\.5"):
        release(world.home, world.resource.ledger(), TRIPS, world.rejection(), "please")
    assert world.resource.ledger().records("released") == []
    assert not world.check()


def test_a_dropped_file_lets_its_day_go_on_without_its_rows(world: World) -> None:
    world.land("shop.csv", "1,250")
    assert not world.check()
    rejection = world.rejection()
    drop(world.home, world.resource.ledger(), world.instance, TRIPS, rejection, "a test of the sender")
    event = world.instance.get_latest_materialization_event(dg.AssetKey(["landing", "trips"]))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.partition == DAY
    assert (world.check(), world.ids()) == (True, [])
    assert [record.kind for record in world.resource.ledger().records(model="trips")] == ["quarantined", "dropped"]
    assert Quarantine(world.home, TRIPS).path(rejection).exists()


def test_the_same_file_again_is_rejected_again_after_it_was_dropped(world: World) -> None:
    world.land("shop.csv", "1,250")
    world.check()
    drop(world.home, world.resource.ledger(), world.instance, TRIPS, world.rejection(), "a test")
    world.land("shop.csv", "1,250")
    assert not world.check()


def test_each_copy_of_a_rejected_file_is_dropped_by_an_id_of_its_own(world: World) -> None:
    world.land("bad.csv", "1,250")
    world.land("bad-retry.csv", "1,250")
    assert not world.check()
    ids = [rejection.id for rejection in Quarantine(world.home, TRIPS).all()]
    versions = set()
    for id in ids:
        source, rejection = find(world.home, [TRIPS], id)
        drop(world.home, world.resource.ledger(), world.instance, source, rejection, "a test of the sender")
        event = world.instance.get_latest_materialization_event(dg.AssetKey(["landing", "trips"]))
        assert event is not None
        assert event.asset_materialization is not None
        versions.add((event.asset_materialization.tags or {})["dagster/data_version"])
    assert len(versions) == 2, "the same version again would not have the day checked again"
    assert (world.check(), world.ids()) == (True, [])


@pytest.mark.parametrize("name", ["bad.csv", "bad-retry.csv"])
def test_either_copy_of_a_rejected_file_can_be_released(world: World, name: str) -> None:
    world.land("bad.csv", "1,250")
    world.land("bad-retry.csv", "1,250")
    assert not world.check()
    (chosen,) = (each for each in Quarantine(world.home, TRIPS).all() if each.file == name)
    release(world.home, world.resource.ledger(), TRIPS, chosen, "a trip to Munich")
    assert (world.check(), world.ids()) == (True, [1])


def test_a_list_shows_every_id_whole_and_every_text_as_it_is(world: World) -> None:
    world.land("[red]:x:.csv", "[/x],1")
    world.check()
    rejection = world.rejection()
    with cli.console.capture() as captured:
        cli.console.print(listed([rejection]), width=80)
    shown = captured.get()
    assert rejection.id in shown
    rows = [line.split("│")[1:-1] for line in shown.splitlines() if line.startswith("│")]
    name, reasons = ("".join(row[column].strip() for row in rows) for column in (3, 6))
    assert name == "[red]:x:.csv"
    assert "[/x]" in reasons


def test_a_file_is_found_by_the_beginning_of_its_id(world: World) -> None:
    world.land("a.csv", "1,250")
    world.land("b.csv", "2,250")
    world.check()
    one, other = Quarantine(world.home, TRIPS).all()
    assert find(world.home, [TRIPS], one.id) == (TRIPS, one)
    path = Quarantine(world.home, TRIPS).path(other)
    assert json.loads(path.with_name(f"{path.name}.json").read_text())["rows"] == 1
    assert find(world.home, [TRIPS], other.digest[:12]) == (TRIPS, other), "as earlier versions printed it"
    for id in ("", "nothing"):
        with pytest.raises(LookupError, match="expected an id that `ct quarantine list` prints"):
            find(world.home, [TRIPS], id)


def test_sensor_and_asset_agree_on_a_link_and_on_what_is_no_file(world: World) -> None:
    world.land("stored.csv", "1,5")
    folder = world.home / "landing" / "trips" / DAY
    (folder / "stored.csv").rename(world.home / "stored.csv")
    (folder / "linked.csv").symlink_to(world.home / "stored.csv")
    (folder / "lost.csv").symlink_to(world.home / "nothing")
    sensor = build_arrival_sensor(TRIPS.domain, [TRIPS])
    cursor = None
    reported = []
    for _ in range(2):
        resources = {"lake": world.resource}
        with dg.build_sensor_context(instance=world.instance, resources=resources, cursor=cursor) as context:
            result = sensor(context)
        cursor = result.cursor
        reported += result.asset_events
    assert [event.partition for event in reported] == [DAY]
    assert (world.check(), world.ids()) == (True, [1])
