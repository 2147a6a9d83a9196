"""Rows of a table arrive once each, whatever the order in which they were committed."""

import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandera.pandas as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from databases import postgres
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.lake import outbox as outbox_module
from ct_assets.lake.contract import Source, SqlTable
from ct_assets.lake.ingest import ingest
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.landing import Landing
from ct_assets.lake.table import TableError, look

URL = "TEST_DATABASE_URL"
ORDERS = Source(
    name="orders",
    schema=pa.DataFrameSchema(
        {
            "id": pa.Column(int),
            "country": pa.Column(object, nullable=True),
            "price": pa.Column(float, pa.Check.ge(0)),
            "known_at": pa.Column("datetime64[us, UTC]"),
        }
    ),
    key=("id", "known_at"),
    description="Orders",
    owner="team:test",
    table=SqlTable(
        url=URL, table="orders", cursor="id", known_at="updated_at", lag=timedelta(0), every=timedelta(0), zone="UTC"
    ),
)
START = datetime(2013, 1, 1, 22, tzinfo=UTC)


def with_table(source: Source = ORDERS, **changes: Any) -> Source:
    assert source.table
    return replace(source, table=replace(source.table, **changes))


class Database:
    """A table of orders."""

    def __init__(self, url: str, zoned: bool) -> None:
        self.engine = sa.create_engine(url)
        self.zoned = zoned
        self.orders = sa.Table(
            "orders",
            sa.MetaData(),
            sa.Column("id", sa.BigInteger),
            sa.Column("country", sa.Text),
            sa.Column("price", sa.Numeric(10, 2)),
            sa.Column("secret", sa.Text),
            sa.Column("updated_at", sa.DateTime(timezone=zoned)),
        )
        self.orders.drop(self.engine, checkfirst=True)
        self.orders.create(self.engine)

    def order(self, number: int, at: datetime | None = None) -> dict[str, Any]:
        moment = at or START + timedelta(minutes=number)
        return {
            "id": number,
            "country": None if number % 3 else "DE",
            "price": number + 0.25,
            "secret": "x",
            "updated_at": moment if self.zoned else moment.replace(tzinfo=None),
        }

    def insert(self, *numbers: int, at: datetime | None = None) -> None:
        with self.engine.begin() as connection:
            connection.execute(self.orders.insert(), [self.order(n, at) for n in numbers])


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/shop.db" if sqlite else request.getfixturevalue("postgres_url")
    monkeypatch.setenv(URL, url)
    found = Database(url, zoned=not sqlite)
    yield found
    found.engine.dispose()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "home")


def landed(lake: Lake, source: Source = ORDERS) -> dict[str, list[int]]:
    """What lies in landing: the ids by arrival day, in the order of the files."""
    landing = Landing(lake.home, source)
    days: dict[str, list[int]] = {}
    for path in landing.files():
        day, name = path.split("/")
        days.setdefault(day, []).extend(pq.read_table(io.BytesIO(landing.read(day, name).payload))["id"].to_pylist())
    return days


# -- What arrives


def test_new_rows_land_once_on_the_day_they_became_known(database: Database, lake: Lake) -> None:
    database.insert(1, 2, 130)
    assert look(lake.home, ORDERS).rows == 3
    assert landed(lake) == {"2013-01-01": [1, 2], "2013-01-02": [130]}
    assert look(lake.home, ORDERS).rows == 0
    database.insert(131)
    assert look(lake.home, ORDERS).rows == 1
    assert landed(lake) == {"2013-01-01": [1, 2], "2013-01-02": [130, 131]}


def test_rows_of_a_table_are_ordinary_batches(database: Database, lake: Lake) -> None:
    database.insert(1, 2, 3)
    look(lake.home, ORDERS)
    (batch,) = ingest(lake, ORDERS, "2013-01-01")
    assert (batch.status, batch.rows, batch.reasons) == ("accepted", 3, ())
    stored = lake.query("SELECT * FROM orders ORDER BY id", {"orders": Window()}, pd_end())
    assert stored.to_pydict() == {
        "id": [1, 2, 3],
        "country": [None, None, "DE"],
        "price": [1.25, 2.25, 3.25],
        "known_at": [START + timedelta(minutes=n) for n in (1, 2, 3)],
    }


def pd_end() -> Any:
    import pandas as pd

    return pd.Timestamp("2014-01-01", tz="UTC")


def test_a_backlog_comes_in_pieces(database: Database, lake: Lake) -> None:
    database.insert(*range(1, 12))
    source = with_table(batch_rows=4, every=timedelta(hours=1))
    assert [look(lake.home, source).rows for _ in range(4)] == [4, 4, 3, 0]
    assert landed(lake) == {"2013-01-01": list(range(1, 12))}


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 100])
def test_rows_of_one_moment_are_neither_lost_nor_doubled(database: Database, lake: Lake, batch_rows: int) -> None:
    source = with_table(cursor="updated_at", batch_rows=batch_rows)
    for numbers in ((1, 2, 3, 4, 5), (6, 7)):
        database.insert(*numbers, at=START)
        while look(lake.home, source).rows:
            pass
    assert sorted(landed(lake)["2013-01-01"]) == [1, 2, 3, 4, 5, 6, 7]


def test_a_row_that_changes_arrives_again(database: Database, lake: Lake) -> None:
    source = with_table(cursor="updated_at")
    database.insert(1, 2)
    look(lake.home, source)
    with database.engine.begin() as connection:
        later = database.order(1, START + timedelta(minutes=30))
        connection.execute(database.orders.update().where(database.orders.c.id == 1).values(later))
    look(lake.home, source)
    assert sorted(landed(lake)["2013-01-01"]) == [1, 1, 2]
    assert {batch.status for batch in ingest(lake, source, "2013-01-01")} == {"accepted"}


def test_a_query_reads_what_it_selects(database: Database, lake: Lake) -> None:
    database.insert(1, 2, 3)
    text = "SELECT id, 'FR' AS country, price, updated_at FROM orders WHERE id <> 2"
    assert look(lake.home, with_table(table="", query=text)).rows == 2
    assert landed(lake) == {"2013-01-01": [1, 3]}


# -- What is committed late


def test_a_row_committed_after_a_newer_one_is_not_lost(database: Database, lake: Lake) -> None:
    source = with_table(lag=timedelta(seconds=60))
    database.insert(1, 3)
    assert look(lake.home, source, now=0).rows == 0
    database.insert(2)  # its number was given before 3's, its transaction took 50 seconds
    assert look(lake.home, source, now=50).rows == 0
    database.insert(4)
    assert look(lake.home, source, now=61).rows == 3
    assert landed(lake) == {"2013-01-01": [1, 2, 3]}
    assert look(lake.home, source, now=122).rows == 1
    assert landed(lake) == {"2013-01-01": [1, 2, 3, 4]}


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_every_row_arrives_once_whatever_the_order_of_commits(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Numbers are given in order, each is committed up to 20 s later; looks come at any time."""
    home = tmp_path_factory.mktemp("home")
    url = f"sqlite:///{home}/shop.db"
    given_at = sorted(data.draw(st.lists(st.integers(0, 100), min_size=1, max_size=10)))
    commits = [(at + data.draw(st.integers(0, 20)), number) for number, at in enumerate(given_at, start=1)]
    looks = data.draw(st.lists(st.integers(0, 150), max_size=6))
    source = with_table(lag=timedelta(seconds=21), batch_rows=data.draw(st.integers(1, 5)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(URL, url)
        database = Database(url, zoned=False)
        events = [(at, 0, number) for at, number in commits] + [(at, 1, 0) for at in looks]
        for at, is_look, number in sorted(events):
            if is_look:
                look(home, source, now=at)
            else:
                database.insert(number)
        look(home, source, now=200)
        while look(home, source, now=300).rows:
            pass
        database.engine.dispose()
    found = sorted(number for numbers in landed(Lake(home), source).values() for number in numbers)
    assert found == list(range(1, len(given_at) + 1))


# -- A clock that is set back, and numbers


@pytest.mark.parametrize("as_text", [False, True], ids=["timestamps", "text"])
def test_no_row_is_lost_or_doubled_when_a_local_clock_is_set_back(
    tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch, as_text: bool
) -> None:
    """Clocks in New York go from 02:00 back to 01:00 at 06:00 UTC on 2013-11-03; one row comes every seven minutes."""
    monkeypatch.setenv(URL, f"sqlite:///{tmp_path}/shop.db")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")
    kind = "TEXT" if as_text else "DATETIME"
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE orders (id INTEGER, country TEXT, price FLOAT, updated_at {kind})"))
    source = with_table(cursor="updated_at", zone="America/New_York", lag=timedelta(seconds=30))
    start = datetime(2013, 11, 3, 3, tzinfo=UTC)
    for number in range(60):
        at = start + timedelta(minutes=7 * number)
        local = at.astimezone(ZoneInfo("America/New_York"))
        with engine.begin() as connection:
            values = {"id": number, "at": local.strftime("%Y-%m-%d %H:%M:%S.%f")}
            connection.execute(sa.text("INSERT INTO orders VALUES (:id, 'DE', 1.0, :at)"), values)
        for seconds in (1, 40):
            look(lake.home, source, (at + timedelta(seconds=seconds)).timestamp())
    assert sorted(number for ids in landed(lake, source).values() for number in ids) == list(range(60))
    engine.dispose()


def test_a_cursor_on_a_clock_that_nobody_names_is_told(
    tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, f"sqlite:///{tmp_path}/shop.db")
    text = "SELECT id, country, price, '2013-01-01T05:00:00Z' AS updated_at, updated_at AS clock FROM orders"
    source = with_table(table="", query=text, cursor="clock", zone="")
    database = Database(f"sqlite:///{tmp_path}/shop.db", zoned=False)
    database.insert(1)
    with pytest.raises(TableError, match="column clock holds timestamps without a time zone.*expected the zone"):
        look(lake.home, source)
    database.engine.dispose()


def test_numbers_of_a_database_arrive_exactly(postgres_url: str, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, postgres_url)
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(
            sa.text("CREATE TABLE exact (id NUMERIC(20), price NUMERIC, country UUID, updated_at TIMESTAMPTZ)")
        )
        connection.execute(
            sa.text(
                "INSERT INTO exact VALUES (9007199254740993, 9.95, '12345678-1234-5678-1234-567812345678', :at), "
                "(9007199254740992, 1::numeric / 3, NULL, :at), (1, 'NaN', NULL, :at)"
            ),
            {"at": START},
        )
    prices = ORDERS.schema.update_column("price", nullable=True)
    source = replace(with_table(table="exact", cursor="updated_at"), schema=prices)
    look(lake.home, source)
    (batch,) = ingest(lake, source, "2013-01-01")
    assert (batch.status, batch.reasons) == ("accepted", ())
    stored = lake.query("SELECT id, price, country FROM orders ORDER BY id", {"orders": Window()}, pd_end())
    assert stored.to_pydict() == {
        "id": [1, 2**53, 2**53 + 1],
        "price": [None, 1 / 3, 9.95],
        "country": [None, None, "12345678-1234-5678-1234-567812345678"],
    }
    engine.dispose()


COINS = replace(
    ORDERS,
    schema=pa.DataFrameSchema(
        {
            "id": pa.Column(int),
            "x": pa.Column("Int64", nullable=True),
            "paid_at": pa.Column("datetime64[us, UTC]", nullable=True),
            "known_at": pa.Column("datetime64[us, UTC]"),
        }
    ),
    key=("id",),
)
NOON = "2013-01-01T12:00:00Z"


@pytest.fixture
def coins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    monkeypatch.setenv(URL, f"sqlite:///{tmp_path}/shop.db")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")
    with engine.begin() as connection:
        connection.execute(
            sa.text("CREATE TABLE orders (id NUMERIC(20,0), x DECIMAL(20,2), paid_at TEXT, updated_at TEXT, odd)")
        )
    yield engine
    engine.dispose()


def pay(coins: sa.Engine, id: int, x: Any = 1, paid_at: Any = NOON, updated_at: Any = NOON, odd: Any = None) -> None:
    with coins.begin() as connection:
        row = {"id": id, "x": x, "paid_at": paid_at, "updated_at": updated_at, "odd": odd}
        connection.execute(sa.text("INSERT INTO orders VALUES (:id, :x, :paid_at, :updated_at, :odd)"), row)


def test_large_whole_numbers_of_sqlite_are_exact_as_value_key_and_cursor(coins: sa.Engine, lake: Lake) -> None:
    for id in (2**53, 2**53 + 1):
        pay(coins, id, x=id)
    assert look(lake.home, COINS).rows == 2
    assert look(lake.home, COINS).rows == 0
    pay(coins, 2**53 + 3)
    assert look(lake.home, COINS).rows == 1
    assert [batch.reasons for batch in ingest(lake, COINS, "2013-01-01")] == [(), ()]
    stored = lake.query("SELECT id, x FROM orders ORDER BY id", {"orders": Window()}, pd_end())
    assert stored.to_pydict() == {"id": [2**53, 2**53 + 1, 2**53 + 3], "x": [2**53, 2**53 + 1, 1]}


@pytest.mark.parametrize("column", ["x", "odd"])
def test_whole_numbers_beside_fractions_are_judged_one_by_one(coins: sa.Engine, lake: Lake, column: str) -> None:
    for id, value in enumerate([2**53 + 1, 1.5, 0.1, None]):
        pay(coins, id, **{column: value})
    query = "SELECT id, odd AS x, paid_at, updated_at FROM orders"
    source = COINS if column == "x" else with_table(COINS, table="", query=query)
    look(lake.home, source)
    (batch,) = ingest(lake, source, "2013-01-01")
    assert "column x: expected Int64; found 1.5" in batch.reasons[0]
    assert "at 2 row(s), first 1, 2" in batch.reasons[0]


def test_a_decimal_of_sqlite_is_text_as_it_is_written(coins: sa.Engine, lake: Lake) -> None:
    pay(coins, 1, x=9.95)
    source = replace(COINS, schema=COINS.schema.update_column("x", dtype=object))
    look(lake.home, source)
    ingest(lake, source, "2013-01-01")
    assert lake.query("SELECT x FROM orders", {"orders": Window()}, pd_end())["x"].to_pylist() == ["9.95"]


STRAYS = ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "0000-01-01T00:00:00Z", "never"]


@pytest.mark.parametrize("column", ["paid_at", "updated_at"])
@pytest.mark.parametrize("stray", STRAYS)
def test_a_moment_that_is_none_costs_its_own_row_alone(coins: sa.Engine, lake: Lake, stray: str, column: str) -> None:
    pay(coins, 1)
    pay(coins, 2, **{column: stray})
    pay(coins, 3)
    assert look(lake.home, COINS).rows == 3
    batches = {batch.status: batch for batch in ingest(lake, COINS, "2013-01-01")}
    assert batches["accepted"].rows == 2
    (reason,) = batches["quarantined"].reasons
    name = "known_at" if column == "updated_at" else column
    assert reason.startswith(f"column {name}: expected datetime64[us, UTC]; found text, such as {stray} at 1 row(s)")


def test_a_row_that_no_day_is_known_of_lands_today(coins: sa.Engine, lake: Lake) -> None:
    pay(coins, 1, updated_at=STRAYS[0])
    assert look(lake.home, COINS, now=START.timestamp()).rows == 1
    assert landed(lake, COINS) == {"2013-01-01": [1]}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1, "a"], "numbers and text"),
        ([b"a", b"b"], "bytes"),
        (["2013-01-01T05:00:00", b"a"], "bytes"),
        (["2013-01-01 05:00:00", "9999-12-31 23:59:59"], "9999-12-31 23:59:59, at the end of all time"),
    ],
)
def test_a_cursor_without_an_order_is_told(coins: sa.Engine, lake: Lake, values: list[Any], told: str) -> None:
    for id, value in enumerate(values):
        pay(coins, id, odd=value)
    source = with_table(COINS, cursor="odd", zone="America/New_York")
    with pytest.raises(TableError, match=f"column odd holds {told}"):
        look(lake.home, source)


def test_a_table_without_known_at_needs_a_column_named_for_it(coins: sa.Engine, lake: Lake) -> None:
    pay(coins, 1)
    with pytest.raises(TableError, match="unknown column 'known_at'.*updated_at"):
        look(lake.home, with_table(COINS, known_at="known_at"))


# -- A crash


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6])
def test_a_crash_at_any_write_neither_loses_nor_doubles_rows(
    tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    monkeypatch.setenv(URL, url)
    database = Database(url, zoned=False)
    database.insert(1)
    look(lake.home, ORDERS)
    database.insert(2, 3, 130)
    uses = 0
    kept, written = outbox_module.write_atomically, Landing.write

    def dying(call: Any) -> Any:
        def wrapped(*args: Any) -> Any:
            nonlocal uses
            uses += 1
            if uses == at:
                raise OSError("the power went")
            return call(*args)

        return wrapped

    with monkeypatch.context() as broken:
        broken.setattr(outbox_module, "write_atomically", dying(kept))
        broken.setattr(Landing, "write", dying(written))
        if at <= 5:
            with pytest.raises(OSError, match="the power went"):
                look(lake.home, ORDERS)
        else:
            look(lake.home, ORDERS)
    database.insert(131)
    look(lake.home, ORDERS)
    assert {day: sorted(ids) for day, ids in landed(lake).items()} == {
        "2013-01-01": [1, 2, 3],
        "2013-01-02": [130, 131],
    }
    assert sorted(p.name for p in (lake.home / "tables" / "orders").iterdir()) == [".lock", "position.json"]


# -- What is told in words


def test_a_variable_that_is_not_set_is_told_by_its_name(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL, raising=False)
    with pytest.raises(TableError, match=f"source 'orders': the environment variable {URL} is not set"):
        look(lake.home, ORDERS)


def test_an_unknown_column_is_told_with_the_nearest_one(database: Database, lake: Lake) -> None:
    database.insert(1)
    with pytest.raises(TableError, match="unknown column 'update_at', did you mean 'updated_at'"):
        look(lake.home, with_table(known_at="update_at"))
    with pytest.raises(TableError, match="the database has no table 'order'"):
        look(lake.home, with_table(table="order"))


def test_moments_without_a_zone_need_one_named(tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    monkeypatch.setenv(URL, url)
    Database(url, zoned=False).insert(1)
    with pytest.raises(
        TableError, match="column updated_at: 1 value.s., such as .* without a time zone.*or name its zone"
    ):
        look(lake.home, with_table(zone=""))
    assert look(lake.home, with_table(zone="America/New_York")).rows == 1
    assert landed(lake) == {"2013-01-02": [1]}  # 22:01 in New York is 03:01 UTC
