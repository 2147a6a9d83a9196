"""Publication: what the server has of a view is what the lake says it has, at every time."""

import sqlite3
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from threadpoolctl import ThreadpoolController

from ct_assets.core.inputs import model_inputs
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.spec import EstimatorSpec, EventSpec, LabelSpec, ModelSpec
from ct_assets.lake.contract import Domain
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.examples import with_features
from ct_assets.lake.frames import to_frame
from ct_assets.lake.lake import Lake
from ct_assets.lib.online_rows import as_online
from ct_assets.lib.publishing import (
    MOST_FILES,
    ONLINE_AT,
    USUAL_DELAY,
    Availability,
    availability,
    measured_delay,
    publish,
)
from ct_assets.resources.feast import _import_feast
from ct_assets.serving.features import FeatureReader
from ct_assets.serving.live import Live

DAY, NEXT = "2024-05-01", "2024-05-02"
TIME = pa.timestamp("us", "UTC")
BIG = 2**53 + 1


class Shop:
    """A home with one view, `shelf`, of whole numbers keyed by text."""

    def __init__(self, home: Path) -> None:
        _import_feast()
        from feast import FeatureStore, RepoConfig
        from feast.types import Int64

        from feature_repo.lake_views import lake_view, text_entity

        self.lake = Lake(home)
        store = "ct_assets.stores"
        self.store = FeatureStore(
            config=RepoConfig(
                project="shop",
                provider="local",
                repo_path=home,
                registry={"registry_type": "sql", "path": f"sqlite:///{home}/registry.db"},
                offline_store={"type": f"{store}.asof_duckdb.AsofDuckDBOfflineStore", "root": str(home / "lake")},
                online_store={"type": f"{store}.row_sqlite.RowSqliteOnlineStore", "path": "online.db"},
                entity_key_serialization_version=3,
            )
        )
        item = text_entity("item", "What is sold")
        shelf = lake_view(
            "shelf",
            item,
            ttl=timedelta(0),
            features={"stock": Int64},
            description="d",
            upstream="u",
            owner="team:t",
        )
        price = lake_view(
            "price",
            item,
            ttl=timedelta(days=2),
            features={"cents": Int64},
            description="d",
            upstream="u",
            owner="team:t",
        )
        self.store.apply([item, shelf, price])

    def publish(self, rows, definition="one", partition=DAY, view=("shelf", "stock"), **available):
        items, times, stock = zip(*rows, strict=True) if rows else ((), (), ())
        table = pa.table(
            {
                "item": pa.array(items, pa.string()),
                "event_timestamp": pa.array([pd.Timestamp(t) for t in times], TIME),
                "created": pa.array([pd.Timestamp(t) for t in times], TIME),
                view[1]: pa.array(stock, pa.int64()),
            }
        )
        return publish(self.lake, self.store, view[0], partition, table, definition, lambda: Availability(**available))

    def online(self, item, view="shelf:stock"):
        return self.store.get_online_features([view], [{"item": item}]).to_dict()[view.partition(":")[2]][0]

    @property
    def database(self):
        return self.lake.home / "online.db"

    def offline(self, item, at):
        asked = pa.table({"item": [item], "event_timestamp": pa.array([pd.Timestamp(at)], TIME)})
        job = self.store.get_historical_features(asked.to_pandas(), ["shelf:stock"], filter_by_created_timestamp=True)
        return job.to_arrow()["stock"].to_pylist()[0]

    def files(self):
        return self.lake.dataset("features/shelf", "event_timestamp").partition(DAY)


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


def at(clock):
    return datetime.fromisoformat(f"{DAY}T{clock}:00+00:00")


def test_live_rows_are_available_from_their_publication_on(shop):
    shop.publish([("apple", f"{DAY}T09:00Z", 5)], live=True, now=at("09:07"))
    assert shop.offline("apple", f"{DAY}T09:06:59Z") is None
    assert (shop.offline("apple", f"{DAY}T09:07Z"), shop.online("apple")) == (5, 5)


def test_a_row_that_changes_is_a_version_of_its_own_and_the_others_keep_their_time(shop):
    rows = [("apple", f"{DAY}T09:00Z", 5), ("pear", f"{DAY}T09:00Z", 7)]
    shop.publish(rows, live=True, now=at("09:07"))
    rows[0] = ("apple", f"{DAY}T09:00Z", 4)
    published = shop.publish([*rows, ("fig", f"{DAY}T09:10Z", 1)], live=True, now=at("09:12"))
    assert published.rows == 2
    seen = [shop.offline("apple", f"{DAY}T{clock}Z") for clock in ("09:06", "09:11:59", "09:12")]
    assert seen == [None, 5, 4]
    assert shop.offline("pear", f"{DAY}T09:07Z") == 7
    assert [shop.online(item) for item in ("apple", "pear", "fig")] == [4, 7, 1]
    assert shop.publish([*rows, ("fig", f"{DAY}T09:10Z", 1)], live=True, now=at("09:20")).rows == 0


def test_a_value_that_returns_is_a_version_again(shop):
    for minute, stock in enumerate((5, 4, 5)):
        shop.publish([("apple", f"{DAY}T09:00Z", stock)], live=True, now=at(f"09:1{minute}"))
    assert [shop.offline("apple", f"{DAY}T09:1{minute}Z") for minute in range(3)] == [5, 4, 5]
    assert shop.online("apple") == 5


def test_many_small_publications_end_in_few_files_with_every_version(shop):
    for minute in range(MOST_FILES + 6):
        shop.publish([("apple", f"{DAY}T09:00Z", minute)], live=True, now=at(f"09:{minute:02}"))
    assert len(shop.files()) <= MOST_FILES
    seen = [shop.offline("apple", f"{DAY}T09:{minute:02}Z") for minute in range(MOST_FILES + 6)]
    assert seen == list(range(MOST_FILES + 6))


def test_recorded_rows_are_available_after_the_declared_delay(shop):
    shop.publish([("apple", f"{DAY}T09:00Z", 5)], delay=timedelta(minutes=5))
    assert shop.offline("apple", f"{DAY}T09:04:59Z") is None
    assert shop.offline("apple", f"{DAY}T09:05Z") == 5


def test_a_changed_definition_replaces_the_rows_online_too(shop):
    shop.publish([("apple", f"{DAY}T09:00Z", 100), ("pear", f"{DAY}T09:00Z", 200)])
    shop.publish([("apple", f"{DAY}T08:40Z", 1)], definition="two")
    assert (shop.online("apple"), shop.offline("apple", f"{DAY}T12:00Z")) == (1, 1)
    assert (shop.online("pear"), shop.offline("pear", f"{DAY}T12:00Z")) == (None, None)


def test_a_key_that_a_changed_definition_leaves_out_gets_the_row_before_it(shop):
    shop.publish([("apple", f"{DAY}T09:00Z", 1), ("pear", f"{DAY}T09:00Z", 2)])
    shop.publish([("apple", f"{NEXT}T09:00Z", 3), ("pear", f"{NEXT}T09:00Z", 4)], partition=NEXT)
    shop.publish([("apple", f"{NEXT}T09:00Z", 30)], definition="two", partition=NEXT)
    assert [shop.online(item) for item in ("apple", "pear")] == [30, 2]


def test_past_rows_of_a_changed_definition_leave_newer_ones_online(shop):
    shop.publish([("apple", f"{DAY}T09:00Z", 1), ("pear", f"{DAY}T09:00Z", 2)])
    shop.publish([("apple", f"{NEXT}T09:00Z", 3)], partition=NEXT)
    shop.publish([("apple", f"{DAY}T09:30Z", 10)], definition="two")
    assert [shop.online(item) for item in ("apple", "pear")] == [3, None]


def test_a_live_partition_of_a_changed_definition_is_replaced(shop):
    shop.publish([("apple", f"{DAY}T09:00Z", 1), ("pear", f"{DAY}T09:00Z", 2)], live=True, now=at("09:07"))
    delay = timedelta(minutes=5)
    shop.publish([("apple", f"{DAY}T09:00Z", 10)], definition="two", live=True, delay=delay, now=at("10:00"))
    assert [shop.online(item) for item in ("apple", "pear")] == [10, None]
    assert shop.offline("apple", f"{DAY}T09:05Z") == 10


def test_rows_without_a_key_are_left_out_and_counted(shop):
    published = shop.publish([("apple", f"{DAY}T09:00Z", 1), (None, f"{DAY}T09:00Z", 2)])
    assert (published.rows, published.without_key) == (1, 1)
    assert shop.online("apple") == 1
    (file,) = shop.files()
    assert file.rows == 1


def test_whole_numbers_stay_exact_beside_missing_ones(shop):
    shop.publish([("apple", f"{DAY}T09:00Z", BIG), ("pear", f"{DAY}T09:00Z", None), ("fig", f"{DAY}T09:00Z", -BIG)])
    assert [shop.online(item) for item in ("apple", "pear", "fig")] == [BIG, None, -BIG]
    assert [shop.offline(item, f"{DAY}T10:00Z") for item in ("apple", "pear", "fig")] == [BIG, None, -BIG]
    (file,) = shop.files()
    stored = pq.read_table(shop.lake.dataset("features/shelf").paths([file])[0])
    assert stored.schema.field("stock").type == pa.int64()


def test_whole_numbers_beside_missing_ones_are_the_same_category_in_training_and_serving(shop):
    """As the number of a shelf that stands for itself: of three neighbours none becomes the other."""
    from feast import FeatureService

    stock = {"apple": BIG, "fig": BIG - 1, "pear": None}
    shop.publish([(item, f"{DAY}T09:00Z", number) for item, number in stock.items()])
    shop.store.apply([FeatureService(name="shelves_v1", features=[shop.store.get_feature_view("shelf")])])
    spec = ModelSpec(
        name="shelves",
        owner="team:t",
        description="d",
        events=EventSpec(source="sales", sql="SELECT 1", id_column="sale"),
        label=LabelSpec(source="sales", sql="SELECT 1", delay=timedelta(days=1)),
        entities=("item",),
        feature_service="shelves_v1",
        inputs={"stock": "categorical", "promised": "categorical"},
        request={"promised": "number"},
        estimator=EstimatorSpec(path="sklearn.dummy.DummyClassifier"),
        policy=RetrainPolicy(),
    )
    expected = [str(BIG), str(BIG - 1), "(missing)"]
    moment = pa.array([pd.Timestamp(f"{DAY}T10:00Z")] * 3, TIME)
    promised = pa.array([BIG, BIG - 1, None], pa.int64())
    asked = to_frame(pa.table({"sale": [1, 2, 3], "event_timestamp": moment, "item": [*stock], "promised": promised}))
    examples = model_inputs(spec, with_features(shop.store, spec, asked))
    assert examples["stock"].tolist() == expected
    assert examples["promised"].tolist() == expected

    live = Live(spec, None, None, FeatureReader(shop.store, spec), ThreadpoolController(), at("10:00"))
    given = {"item": [*stock], "promised": [BIG, BIG - 1, None]}
    served, _ = live.read(given, at("10:00"))
    assert served["stock"].tolist() == expected
    assert served["promised"].tolist() == expected


def test_a_publication_that_was_interrupted_is_finished_by_the_next(shop, monkeypatch):
    shop.publish([("apple", f"{DAY}T09:00Z", 1), ("pear", f"{DAY}T09:00Z", 2)])
    with monkeypatch.context() as broken:
        broken.setattr("ct_assets.lake.dataset.Dataset.write", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            shop.publish([("apple", f"{DAY}T08:00Z", 3)], definition="two")
    shop.publish([("apple", f"{DAY}T08:00Z", 3)], definition="two")
    assert [shop.online(item) for item in ("apple", "pear")] == [3, None]


def test_a_group_goes_live_with_its_first_open_partition(tmp_path):
    lake, live = Lake(tmp_path), Domain("live", date(2020, 1, 1))
    delay = timedelta(minutes=5)

    def is_live(partition, now, domain=live):
        return availability(lake, domain, "shelf", partition, delay, datetime.fromisoformat(now)).live

    assert not is_live("2024-04-20", f"{DAY}T10:00+00:00"), "a backfill from before it went live"
    assert is_live(DAY, f"{DAY}T10:00+00:00")
    assert is_live(DAY, "2024-06-01T00:00+00:00"), "late rows of a live day are available when they come"
    assert not is_live("2024-04-30", "2024-06-01T00:00+00:00")
    recorded = Domain("recorded", date(2020, 1, 1), date(2024, 12, 31))
    assert not is_live(DAY, f"{DAY}T10:00+00:00", recorded)


def test_the_first_publication_of_a_reference_table_is_a_backfill(shop):
    live = Domain("live", date(2020, 1, 1))
    first = availability(shop.lake, live, "shelf", WHOLE, timedelta(0))
    shop.publish([("apple", f"{DAY}T09:00Z", 1)], partition=WHOLE)
    second = availability(shop.lake, live, "shelf", WHOLE, timedelta(0))
    assert (first.live, second.live) == (False, True)
    before = datetime.now(UTC)
    assert before <= second.clock().cast(TIME).as_py() <= datetime.now(UTC)


def lose(shop):
    shop.database.unlink()


def lose_all_files(shop):
    for path in shop.lake.home.glob("online.db*"):
        path.unlink()


def empty(shop):
    with sqlite3.connect(shop.database) as online:
        online.execute("DELETE FROM entity_rows")


def empty_one_view(shop):
    with sqlite3.connect(shop.database) as online:
        online.execute("DELETE FROM entity_rows WHERE view = 'shop/shelf'")


def put_an_older_copy_in_its_place(shop):
    copy = shop.lake.home / "copy.db"
    with sqlite3.connect(shop.database) as online, sqlite3.connect(copy) as aside:
        online.execute("DELETE FROM entity_rows WHERE view = 'shop/price'")
        online.commit()
        online.backup(aside)
    lose_all_files(shop)
    copy.rename(shop.database)


@pytest.mark.parametrize("damage", [lose, lose_all_files, empty, empty_one_view, put_an_older_copy_in_its_place])
def test_an_online_store_that_was_lost_is_restored_by_the_next_publication(shop, damage):
    price = ("price", "cents")
    shop.publish([("old", "2024-04-20T09:00Z", 9), ("apple", "2024-04-20T09:00Z", 8)], partition="2024-04-20")
    shop.publish([("old", "2024-04-20T09:00Z", 900)], partition="2024-04-20", view=price)
    shop.publish([("apple", f"{DAY}T09:00Z", 5), ("pear", f"{DAY}T09:00Z", BIG)])
    shop.publish([("apple", f"{DAY}T09:00Z", 120), ("pear", f"{DAY}T10:00Z", None)], view=price)
    damage(shop)
    shop.publish([("apple", f"{NEXT}T09:00Z", 4)], partition=NEXT)
    items = ("apple", "pear", "old")
    assert [shop.online(item) for item in items] == [4, BIG, 9]
    # The oldest price has expired: where it was lost, it is not worth a place.
    expired = 900 if damage is empty_one_view else None
    assert [shop.online(item, "price:cents") for item in items] == [120, None, expired]


def test_a_reader_sees_an_empty_store_or_a_whole_one(shop, monkeypatch):
    price = ("price", "cents")
    shop.publish([(f"item{n}", f"{DAY}T09:00Z", n) for n in range(50)])
    shop.publish([(f"item{n}", f"{DAY}T09:00Z", n) for n in range(50)], view=price)
    lose(shop)
    seen = []

    def watch(view, rows):
        parts = as_online(view, rows)
        with sqlite3.connect(shop.database) as online:
            seen.append(online.execute("SELECT count(*) FROM entity_rows").fetchone()[0])
        return parts

    monkeypatch.setattr("ct_assets.lib.restoring.as_online", watch)
    monkeypatch.setattr("ct_assets.lib.restoring.BATCH", 20)
    shop.publish([], partition=NEXT)
    assert seen == [0] * 6
    assert [shop.online("item7"), shop.online("item49", "price:cents")] == [7, 49]


def test_a_store_that_is_whole_is_left_alone(shop, monkeypatch):
    shop.publish([("apple", f"{DAY}T09:00Z", 5)])
    monkeypatch.setattr("ct_assets.lib.restoring._parts", lambda *_: 1 / 0)
    shop.publish([("apple", f"{NEXT}T09:00Z", 4)], partition=NEXT)
    shop.publish([], partition=NEXT, view=("price", "cents"))
    assert shop.online("apple") == 4


def test_a_live_row_says_when_the_online_store_had_it(shop):
    before = datetime.now(UTC)
    shop.publish([("apple", f"{DAY}T09:00Z", 5)], live=True)
    shop.publish([("apple", f"{DAY}T09:00Z", 5), ("pear", f"{DAY}T10:00Z", 1)], live=True, now=at("23:00"))
    dataset = shop.lake.dataset("features/shelf")
    rows = [row for path in dataset.paths(shop.files()) for row in pq.read_table(path).to_pylist()]
    found = {row["item"]: (row["created"], row[ONLINE_AT]) for row in rows}
    assert found["pear"] == (at("23:00"), at("23:00"))
    assert before <= found["apple"][0] <= found["apple"][1] <= datetime.now(UTC)


def test_the_past_of_a_live_group_has_the_delay_that_was_measured(shop):
    live, recorded = Domain("live", date(2020, 1, 1)), Domain("recorded", date(2020, 1, 1), date(2024, 12, 31))

    def given(partition, now, domain=live):
        return vars(availability(shop.lake, domain, "shelf", partition, None, now))

    assert measured_delay(shop.lake, "shelf") == USUAL_DELAY
    shop.publish([("apple", "2024-04-20T09:00Z", 1)], partition="2024-04-20", **given("2024-04-20", at("08:00")))
    seen = [shop.offline("apple", f"2024-04-20T09:{clock}Z") for clock in ("04:59", "05:00")]
    assert seen == [None, 1]
    rows = []
    for minute, late in ((10, 2), (20, 3), (30, 90)):
        rows.append((f"item{minute}", f"{DAY}T09:{minute}Z", minute))
        shop.publish(rows, **given(DAY, at(f"09:{minute}") + timedelta(minutes=late)))
    # 2, 3 and 90 minutes: an outage does not count for more than it was.
    assert measured_delay(shop.lake, "shelf") == timedelta(minutes=3)
    shop.publish([("pear", "2024-04-21T09:00Z", 2)], partition="2024-04-21", **given("2024-04-21", at("12:00")))
    seen = [shop.offline("pear", f"2024-04-21T09:{clock}Z") for clock in ("02:59", "03:00")]
    assert seen == [None, 2]
    assert given(DAY, at("12:00"), recorded)["delay"] == timedelta(0)


def rows_of(**columns):
    times = pa.array([at("09:00")] * len(columns["stock"]), TIME)
    return pa.table({"item": columns.pop("item"), "event_timestamp": times, "created": times, **columns})


@pytest.mark.parametrize(
    ("stock", "problem"),
    [
        (pa.array([12.9, 1.0]), "stock is declared as INT64 and its SQL yields double; 1 of 2 values do not fit"),
        (pa.array(["5", "6"]), "stock is declared as INT64 and its SQL yields string; 2 of 2 values do not fit"),
        (pa.array([2**63, 1], pa.uint64()), "1 of 2 values do not fit, such as 9223372036854775808"),
        (pa.array([float("inf"), 1.0]), "1 of 2 values do not fit, such as inf"),
    ],
    ids=["fraction", "text", "too large", "infinite"],
)
def test_what_the_declared_type_does_not_have_is_refused_before_anything_is_stored(shop, stock, problem):
    with pytest.raises(ValueError, match="view shelf: " if "stock is" not in problem else problem) as told:
        publish(shop.lake, shop.store, "shelf", DAY, rows_of(item=["apple", "pear"], stock=stock), "one")
    assert problem in str(told.value)
    assert shop.files() == [] and shop.online("apple") is None


@pytest.mark.parametrize("kind", [pa.float64(), pa.int8(), pa.decimal128(38, 0), pa.uint16()])
def test_the_declared_type_is_the_stored_one(shop, kind):
    publish(shop.lake, shop.store, "shelf", DAY, rows_of(item=["apple"], stock=pa.array([5]).cast(kind)), "one")
    (file,) = shop.lake.dataset("features/shelf", "event_timestamp").paths(shop.files())
    assert pq.read_table(file)["stock"].type == pa.int64()
    assert shop.offline("apple", f"{NEXT}T00:00Z") == shop.online("apple") == 5


def test_two_rows_of_one_key_and_time_are_refused_if_they_differ_and_one_if_not(shop):
    with pytest.raises(
        ValueError, match="view shelf: its SQL yields 2 rows for item apple, event_timestamp 2024-05-01"
    ):
        publish(shop.lake, shop.store, "shelf", DAY, rows_of(item=["apple", "apple"], stock=[5, 6]), "one")
    publish(shop.lake, shop.store, "shelf", DAY, rows_of(item=["apple", "pear", "apple"], stock=[5, 6, 5]), "one")
    assert sum(file.rows for file in shop.files()) == 2
    assert (shop.online("apple"), shop.online("pear")) == (5, 6)


def test_a_row_without_a_time_is_refused(shop):
    rows = rows_of(item=["apple", "pear"], stock=[5, 6])
    rows = rows.set_column(1, "event_timestamp", pa.array([at("09:00"), None], TIME))
    with pytest.raises(ValueError, match="view shelf: 1 of 2 rows have no event_timestamp"):
        publish(shop.lake, shop.store, "shelf", DAY, rows, "one")


def test_whole_numbers_beside_missing_ones_stay_whole_in_pandas(shop):
    rows = rows_of(item=["apple", "pear", "plum"], stock=pa.array([BIG, None, BIG + 2]))
    publish(shop.lake, shop.store, "shelf", DAY, rows, "one")
    asked = pd.DataFrame({"item": ["apple", "pear", "plum"], "event_timestamp": pd.Timestamp(f"{NEXT}T00:00Z")})
    found = shop.store.get_historical_features(asked, ["shelf:stock"]).to_df()
    assert found.set_index("item")["stock"].to_dict() == {"apple": BIG, "pear": None, "plum": BIG + 2}
