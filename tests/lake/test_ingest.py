"""What becomes of a file that lands; expected outcomes are written down by hand."""

import io
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pyarrow as arrow
import pyarrow.parquet as pq
import pytest

from ct_assets.defs.sources.contracts import FLIGHT_OUTCOMES, FLIGHTS, PLANES, WEATHER
from ct_assets.feeds import Delivery, feed_wave, parquet_bytes
from ct_assets.feeds.nycflights import NycFlights
from ct_assets.feeds.nycflights_faults import FAULTS, deliveries
from ct_assets.lake import formats
from ct_assets.lake import ingest as module
from ct_assets.lake.columns import Content
from ct_assets.lake.contract import Source
from ct_assets.lake.dataset import WHOLE, Dataset
from ct_assets.lake.ingest import Batch, ingest, open_rejections
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.landing import Landing
from ct_assets.lake.quarantine import Quarantine

READINGS = Source(
    name="readings",
    schema=pa.DataFrameSchema(
        {
            "id": pa.Column(object),
            "value": pa.Column(float, pa.Check.in_range(0, 1000), coerce=True),
            "note": pa.Column(object, nullable=True),
            "known_at": pa.Column("datetime64[us, UTC]"),
        }
    ),
    key=("id",),
    description="Readings",
    owner="team:test",
    stable=("value",),
    min_rows=2,
)
DAY, NEXT = "2013-01-01", "2013-01-02"
BY_NAME = {source.name: source for source in (FLIGHTS, FLIGHT_OUTCOMES, WEATHER)}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


@pytest.fixture(scope="module")
def feed() -> NycFlights:
    return NycFlights()


def readings(rows: int = 40, **columns: object) -> pd.DataFrame:
    content = {
        "id": [f"r{i}" for i in range(rows)],
        "value": [10.0 + i % 7 for i in range(rows)],
        "note": [None if i % 3 else "fine" for i in range(rows)],
        "known_at": pd.to_datetime([f"{DAY}T{i % 24:02d}:00Z" for i in range(rows)]).as_unit("us"),
    }
    return pd.DataFrame(content | columns)


def payload(frame: pd.DataFrame) -> bytes:
    return parquet_bytes(arrow.Table.from_pandas(frame, preserve_index=False))


NEXT_DAY = pd.Timestamp(NEXT, tz="UTC").as_unit("us")


def land(lake: Lake, content: pd.DataFrame | bytes, name: str = "readings.parquet", folder: str = DAY) -> Path:
    path = lake.home / "landing" / "readings" / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else payload(content))
    return path


def ingest_one(lake: Lake, partition: str = DAY) -> Batch:
    (batch,) = ingest(lake, READINGS, partition)
    return batch


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def ids(lake: Lake, partition: str = DAY) -> list[str]:
    dataset = lake.dataset("readings")
    return sorted(i for p in dataset.paths(dataset.partition(partition)) for i in pq.read_table(p)["id"].to_pylist())


def test_of_two_processes_one_takes_a_file_in(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    land(lake, readings())
    judge, at_the_same_time = module.judge, ThreadPoolExecutor(1)
    others: list[Future[list[Batch]]] = []

    def slow(*given: Any) -> Any:
        if not others:
            others.append(at_the_same_time.submit(ingest, lake, READINGS, DAY))
            with pytest.raises(TimeoutError):
                others[0].result(timeout=0.5)
        return judge(*given)

    monkeypatch.setattr(module, "judge", slow)
    assert ingest_one(lake).status == "accepted"
    assert others[0].result() == []
    assert len(ids(lake)) == 40
    assert open_rejections(lake, READINGS, DAY) == []


# -- What is accepted


def test_an_accepted_batch_is_in_the_lake_and_its_file_in_the_archive(lake: Lake) -> None:
    land(lake, readings())
    batch = ingest_one(lake)
    assert (batch.status, batch.rows, batch.reasons) == ("accepted", 40, ())
    assert ids(lake) == sorted(readings()["id"])
    assert below(lake.home / "landing") == []
    assert below(lake.home / "archive") == [f"readings/{DAY}/readings.parquet"]


def test_a_name_with_spaces_is_a_name(lake: Lake) -> None:
    land(lake, readings(), "my readings (1).parquet")
    assert ingest_one(lake).status == "accepted"
    assert below(lake.home / "archive") == [f"readings/{DAY}/my readings (1).parquet"]


def test_columns_that_nobody_asked_for_are_left_out(lake: Lake) -> None:
    land(lake, readings(secret="x"))
    assert ingest_one(lake).status == "accepted"
    dataset = lake.dataset("readings")
    assert pq.read_table(dataset.paths(dataset.files())[0]).column_names == ["id", "value", "note", "known_at"]


def test_an_all_null_text_column_keeps_the_contract(lake: Lake) -> None:
    land(lake, readings(note=None))
    assert ingest_one(lake).status == "accepted"


def test_two_files_of_one_day_add_up(lake: Lake) -> None:
    land(lake, readings(20), "a.parquet")
    land(lake, readings().iloc[20:], "b.parquet")
    assert [b.status for b in ingest(lake, READINGS, DAY)] == ["accepted", "accepted"]
    assert ids(lake) == sorted(readings()["id"])


def test_hidden_and_temporary_files_are_not_looked_at(lake: Lake) -> None:
    land(lake, b"half", ".readings.parquet.part")
    land(lake, b"half", "_SUCCESS")
    assert ingest(lake, READINGS, DAY) == []
    assert len(below(lake.home / "landing")) == 2


def test_nothing_landed_is_nothing_taken_in(lake: Lake) -> None:
    assert ingest(lake, READINGS, DAY) == []


# -- What arrives twice


def test_the_same_content_again_is_a_duplicate_whatever_its_name(lake: Lake) -> None:
    land(lake, readings())
    ingest(lake, READINGS, DAY)
    for name in ("again.parquet", "readings.parquet"):
        land(lake, readings(), name)
        assert ingest_one(lake).status == "duplicate"
    assert lake.dataset("readings").rows() == 40
    assert below(lake.home / "archive" / "readings") == [f"{DAY}/again.parquet", f"{DAY}/readings.parquet"]


def test_the_same_content_twice_in_one_run_is_counted_once(lake: Lake) -> None:
    land(lake, readings(), "a.parquet")
    land(lake, readings(), "b.parquet")
    assert [b.status for b in ingest(lake, READINGS, DAY)] == ["accepted", "duplicate"]
    assert lake.dataset("readings").rows() == 40


def test_rows_of_another_day_are_rejected_and_not_taken_for_a_duplicate(lake: Lake) -> None:
    """Under the wrong day no feature would ever see them."""
    land(lake, readings())
    land(lake, readings(), folder=NEXT)
    assert ingest_one(lake).status == "accepted"
    batch = ingest_one(lake, NEXT)
    assert batch.status == "quarantined"
    assert f"column known_at: 40 row(s) lie outside of {NEXT} (UTC)" in batch.reasons[0]
    assert lake.dataset("readings").rows() == 40


def test_numbers_sent_as_text_are_rejected_with_the_column(lake: Lake) -> None:
    land(lake, readings().assign(value=lambda frame: frame["value"].astype(str)))
    batch = ingest_one(lake)
    assert batch.status == "quarantined"
    assert any("column value: expected float64; found text, such as 10.0" in reason for reason in batch.reasons)


def test_a_file_with_damaged_pages_is_quarantined(lake: Lake) -> None:
    path = land(lake, readings())
    payload = bytearray(path.read_bytes())
    payload[40:160] = bytes(120)
    path.write_bytes(payload)
    assert ingest_one(lake).status == "quarantined"


def test_text_of_another_arrow_type_joins_the_rows_of_the_day(lake: Lake) -> None:
    land(lake, readings(20))
    assert ingest_one(lake).status == "accepted"
    table = arrow.Table.from_pandas(readings().iloc[20:], preserve_index=False)
    large = [
        arrow.field(f.name, arrow.large_string() if arrow.types.is_string(f.type) else f.type) for f in table.schema
    ]
    path = lake.home / "landing" / "readings" / DAY / "large.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.cast(arrow.schema(large)), path)
    assert ingest_one(lake).status == "accepted"
    assert lake.dataset("readings").rows() == 40


def test_a_rejected_file_with_a_very_long_name_is_kept(lake: Lake) -> None:
    path = land(lake, readings())
    path.rename(path.with_name("x" * 240 + ".parquet")).write_bytes(b"garbage")
    assert ingest_one(lake).status == "quarantined"


def test_other_content_under_a_used_name_does_not_overwrite_the_archive(lake: Lake) -> None:
    land(lake, readings(20))
    first = ingest_one(lake)
    land(lake, readings().iloc[20:])
    second = ingest_one(lake)
    assert second.status == "accepted"
    kept = lake.home / "archive" / "readings" / DAY
    assert below(kept) == sorted(["readings.parquet", f"{second.digest[:12]}-readings.parquet"])
    assert module.hashlib.sha256((kept / "readings.parquet").read_bytes()).hexdigest() == first.digest


def test_a_row_that_an_earlier_batch_of_the_day_brought_is_not_counted_twice(lake: Lake) -> None:
    land(lake, readings(20), "a.parquet")
    ingest(lake, READINGS, DAY)
    land(lake, readings().iloc[15:], "b.parquet")
    batch = ingest_one(lake)
    assert batch.status == "quarantined"
    assert "5 rows have a key id that a.parquet brought already" in batch.reasons[0]
    land(lake, readings().iloc[20:], "c.parquet")
    assert ingest_one(lake).status == "accepted"
    assert ids(lake) == sorted(readings()["id"])


def sent_again(lake: Lake, name: str, table: pd.DataFrame) -> Batch:
    payload = parquet_bytes(arrow.Table.from_pandas(table, preserve_index=False))
    feed_wave([Delivery("planes", None, name, payload)], str(lake.home))
    (batch,) = ingest(lake, PLANES, WHOLE)
    return batch


def test_a_reference_table_that_is_sent_again_brings_what_changed(lake: Lake, feed: NycFlights) -> None:
    planes = next(d for d in feed.reference() if d.source == "planes")
    table = pq.read_table(io.BytesIO(planes.payload)).to_pandas()
    first, second, *_ = table["tailnum"]
    assert sent_again(lake, "planes.parquet", table).status == "accepted"
    later = table.assign(seats=table["seats"].where(table["tailnum"] != first, 7))
    later["known_at"] = table["known_at"].where(table["tailnum"] != first, table["known_at"] + pd.Timedelta(days=9))
    assert sent_again(lake, "planes-2.parquet", later).status == "accepted"
    assert lake.dataset("planes").rows() == len(table) + 1
    known = {"planes": Window()}
    for days, seats in ((8, table["seats"].iloc[0]), (9, 7)):
        at = table["known_at"].iloc[0] + pd.Timedelta(days=days)
        sql = f"SELECT seats FROM planes WHERE tailnum = '{first}' ORDER BY known_at DESC LIMIT 1"
        assert lake.query(sql, known, at)["seats"].to_pylist() == [seats]
    changed_in_place = table.assign(seats=table["seats"].where(table["tailnum"] != second, 1))
    rewritten = sent_again(lake, "planes-3.parquet", changed_in_place)
    assert rewritten.status == "quarantined"
    assert (
        f"1 row(s) differ from what is held and are not known later than that, the first for {second}"
        in rewritten.reasons[0]
    )
    assert lake.dataset("planes").rows() == len(table) + 1
    archived = ["planes/planes-2.parquet", "planes/planes.parquet"]
    assert below(lake.home / "archive") == archived


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first", "second"])
def test_a_reference_table_with_a_column_of_nothing_keeps_its_type(
    lake: Lake, feed: NycFlights, order: tuple[int, int]
) -> None:
    planes = next(d for d in feed.reference() if d.source == "planes")
    table = pq.read_table(io.BytesIO(planes.payload)).to_pandas()
    half = len(table) // 2
    files = [table.iloc[:half].assign(year_built=None), table.iloc[half:]]
    for number in order:
        assert sent_again(lake, f"planes-{number}.parquet", files[number]).status == "accepted"
    stored = lake.query("SELECT year_built FROM planes", {"planes": Window()}, pd.Timestamp.now("UTC"))
    assert stored.schema.field("year_built").type == arrow.float64()
    assert stored["year_built"].null_count >= half


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda known: known - pd.Timedelta(days=400), "not known later than that"),
        (lambda known: known + pd.DateOffset(years=180), "lie in the future"),
    ],
    ids=["earlier", "in the future"],
)
def test_a_reference_row_from_another_time_is_rejected(
    lake: Lake, feed: NycFlights, change: Callable[[pd.Series], pd.Series], reason: str
) -> None:
    planes = next(d for d in feed.reference() if d.source == "planes")
    table = pq.read_table(io.BytesIO(planes.payload)).to_pandas()
    assert sent_again(lake, "planes.parquet", table).status == "accepted"
    moved = table.iloc[:3].assign(seats=1, known_at=change(table["known_at"].iloc[:3]).dt.as_unit("us"))
    batch = sent_again(lake, "moved.parquet", moved)
    assert batch.status == "quarantined"
    assert reason in batch.reasons[0]


# -- What is rejected

REJECTED: dict[str, tuple[Callable[[], pd.DataFrame | bytes], str]] = {
    "an empty file": (lambda: b"", "not a whole Parquet file.*ask the sender to resend it"),
    "a CSV file": (lambda: readings().to_csv().encode(), "not a whole Parquet file.*ask the sender to resend it"),
    "half a file": (lambda: payload(readings())[:700], "not a whole Parquet file"),
    "too few rows": (lambda: readings(1), "1 rows; expected at least 2: the batch is incomplete"),
    "no rows": (lambda: readings(0), "0 rows; expected at least 2"),
    "a missing column": (lambda: readings().drop(columns="value"), "value missing; found id, note.*ask the sender"),
    "text for a number": (lambda: readings(value="many"), "column value: expected.*float64"),
    "a number for text": (lambda: readings(id=range(40)), "column id: expected.*object"),
    "true for a number": (lambda: readings(value=[True] * 40), "column value: expected float64; found true and false"),
    "lists for text": (lambda: readings(id=[["r", str(i)] for i in range(40)]), "column id: expected text"),
    "bytes for text": (lambda: readings(note=b"x"), "column note: expected text.*found binary values"),
    "a time without a zone": (
        lambda: readings(known_at=readings()["known_at"].dt.tz_localize(None)),
        r"column known_at: expected.*datetime64\[us, UTC\]",
    ),
    "times as text": (lambda: readings(known_at=readings()["known_at"].astype(str)), "column known_at: expected"),
    "a null in the key": (
        lambda: readings(id=[None, *readings()["id"][1:]]),
        "column id: expected not_nullable.*1 row",
    ),
    "a repeated key": (
        lambda: readings(id=["r1", *readings()["id"][1:]]),
        "1 rows repeat the key id; expected one row per key",
    ),
    "a value out of range": (
        lambda: readings(value=[1001.0, *readings()["value"][1:]]),
        r"column value: expected in_range\(0, 1000\); found 1001.0 at 1 row\(s\), first 0",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_batch_that_breaks_the_contract_is_kept_in_quarantine_with_its_reasons(lake: Lake, case: str) -> None:
    make, expected = REJECTED[case]
    landed = land(lake, make())
    content = landed.read_bytes()
    batch = ingest_one(lake)
    assert batch.status == "quarantined"
    assert pd.Series(batch.reasons).str.contains(expected).any(), batch.reasons
    folder = lake.home / "quarantine" / "readings" / DAY
    name = f"{batch.digest[:12]}-readings.parquet"
    assert below(folder) == [name, f"{name}.json"]
    assert (folder / name).read_bytes() == content
    note = json.loads((folder / f"{name}.json").read_text())
    assert (note["file"], note["digest"], note["reasons"]) == ("readings.parquet", batch.digest, list(batch.reasons))
    assert below(lake.home / "landing") == []
    assert lake.dataset("readings").files() == []


def test_every_breach_is_named_at_once(lake: Lake) -> None:
    land(lake, readings(id=["r1", *readings()["id"][1:]], value=-1.0))
    reasons = ingest_one(lake).reasons
    assert len(reasons) == 2
    assert "column value" in reasons[0]
    assert "repeat the key" in reasons[1]


def test_a_good_file_is_taken_in_beside_a_bad_one(lake: Lake) -> None:
    land(lake, b"", "a.parquet")
    land(lake, readings(), "b.parquet")
    assert [(b.name, b.status) for b in ingest(lake, READINGS, DAY)] == [
        ("a.parquet", "quarantined"),
        ("b.parquet", "accepted"),
    ]
    assert lake.dataset("readings").rows() == 40


@pytest.mark.parametrize("column", ["known_at", "value", "note"])
def test_a_time_beyond_all_calendars_rejects_its_own_file_alone(lake: Lake, column: str) -> None:
    far = arrow.array([10**18] * 40, arrow.timestamp("us", "UTC"))
    bad = arrow.Table.from_pandas(readings(), preserve_index=False)
    bad = bad.set_column(bad.column_names.index(column), column, far)
    land(lake, parquet_bytes(bad), "bad.parquet")
    land(lake, readings(id=[f"g{i}" for i in range(40)]), "good.parquet")
    rejected, accepted = ingest(lake, READINGS, DAY)
    assert (rejected.status, accepted.status) == ("quarantined", "accepted")
    assert f"column {column}: expected " in rejected.reasons[0]
    assert f"{10**18} as timestamp[us, tz=UTC]" in rejected.reasons[0]
    assert open_rejections(lake, READINGS, DAY)[0].startswith("bad.parquet (")


def test_what_nobody_foresaw_in_a_file_rejects_it_alone(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def reading(source: Source, payload: bytes) -> Content:
        if payload == b"bad":
            raise OverflowError("date value out of range")
        return fit_parquet(source, payload)

    fit_parquet = formats._READERS["parquet"]
    monkeypatch.setattr(formats, "_READERS", {"parquet": reading})
    land(lake, b"bad", "bad.parquet")
    land(lake, readings(), "good.parquet")
    rejected, accepted = ingest(lake, READINGS, DAY)
    assert (rejected.name, accepted.status) == ("bad.parquet", "accepted")
    assert rejected.reasons[0].startswith("something in it cannot be read (OverflowError: date value out of range)")


def test_an_error_that_is_not_the_senders_keeps_its_file_and_no_other(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = module.judge

    def judging(lake: Lake, source: Source, partition: str, content: Content) -> tuple[arrow.Table, list[str]]:
        if content.table.num_rows == 39:
            raise ValueError("the lake is damaged")
        return judge(lake, source, partition, content)

    monkeypatch.setattr(module, "judge", judging)
    land(lake, readings(39), "a.parquet")
    land(lake, readings(), "b.parquet")
    with pytest.raises(ValueError, match="the lake is damaged") as raised:
        ingest(lake, READINGS, DAY)
    assert raised.value.__notes__ == ["while a.parquet of source 'readings' was taken in for 2013-01-01"]
    assert below(lake.home / "landing") == [f"readings/{DAY}/a.parquet"]
    assert ids(lake) == sorted(readings()["id"])


def test_a_rejected_file_that_arrives_again_is_rejected_again_and_kept_once(lake: Lake) -> None:
    for _ in range(2):
        land(lake, b"")
        assert ingest_one(lake).status == "quarantined"
    assert len(below(lake.home / "quarantine")) == 2


# -- When the contract is broken, and until when


def test_a_rejection_stays_open_when_a_later_run_finds_no_file(lake: Lake) -> None:
    land(lake, b"")
    ingest(lake, READINGS, DAY)
    assert ingest(lake, READINGS, DAY) == []
    (reason,) = open_rejections(lake, READINGS, DAY)
    (rejection,) = Quarantine(lake.home, READINGS).all(DAY)
    assert reason.startswith(f"readings.parquet ({rejection.id}): not a whole Parquet file")
    assert open_rejections(lake, READINGS, NEXT) == []


def test_an_unreadable_file_is_made_up_for_by_one_of_its_name_alone(lake: Lake) -> None:
    land(lake, b"", "shop-1.parquet")
    ingest(lake, READINGS, DAY)
    land(lake, readings(20), "shop-2.parquet")
    ingest(lake, READINGS, DAY)
    assert len(open_rejections(lake, READINGS, DAY)) == 1
    land(lake, readings().iloc[20:], "shop-1.parquet")
    ingest(lake, READINGS, DAY)
    assert open_rejections(lake, READINGS, DAY) == []


def test_a_readable_file_is_made_up_for_by_its_rows_whatever_their_file_is_called(lake: Lake) -> None:
    land(lake, readings(20, value=-1.0), "shop-1.parquet")
    land(lake, readings().iloc[20:30], "shop-2.parquet")
    ingest(lake, READINGS, DAY)
    assert len(open_rejections(lake, READINGS, DAY)) == 1, "another shop's rows"
    land(lake, readings(12), "shop-1.parquet")
    ingest(lake, READINGS, DAY)
    assert len(open_rejections(lake, READINGS, DAY)) == 1, "a part of them, although under the name"
    land(lake, readings().iloc[12:20], "the-rest.parquet")
    ingest(lake, READINGS, DAY)
    assert open_rejections(lake, READINGS, DAY) == []


def test_rows_without_a_key_are_made_up_for_under_the_same_name(lake: Lake) -> None:
    land(lake, readings(20, id=[None, *readings(20)["id"][1:]]), "a.parquet")
    ingest(lake, READINGS, DAY)
    land(lake, readings(20).iloc[1:], "b.parquet")
    ingest(lake, READINGS, DAY)
    assert len(open_rejections(lake, READINGS, DAY)) == 1
    land(lake, readings(30).iloc[20:].iloc[:2], "a.parquet")
    ingest(lake, READINGS, DAY)
    assert open_rejections(lake, READINGS, DAY) == []


def test_a_file_that_contradicts_what_is_held_waits_for_a_person(lake: Lake) -> None:
    land(lake, readings(20), "a.parquet")
    ingest(lake, READINGS, DAY)
    land(lake, readings(20, value=11.0), "b.parquet")
    ingest(lake, READINGS, DAY)
    land(lake, readings().iloc[20:], "c.parquet")
    ingest(lake, READINGS, DAY)
    (reason,) = open_rejections(lake, READINGS, DAY)
    assert reason.startswith("b.parquet")


@pytest.mark.parametrize(("bad", "good"), [("a.parquet", "b.parquet"), ("b.parquet", "a.parquet")])
def test_a_batch_accepted_in_the_same_run_does_not_make_up_for_a_rejected_one(lake: Lake, bad: str, good: str) -> None:
    land(lake, b"", bad)
    land(lake, readings(), good)
    ingest(lake, READINGS, DAY)
    assert len(open_rejections(lake, READINGS, DAY)) == 1


def test_a_duplicate_does_not_make_up_for_a_rejected_batch(lake: Lake) -> None:
    land(lake, readings(20), "a.parquet")
    ingest(lake, READINGS, DAY)
    land(lake, b"", "b.parquet")
    ingest(lake, READINGS, DAY)
    land(lake, readings(20), "c.parquet")
    assert ingest_one(lake).status == "duplicate"
    assert len(open_rejections(lake, READINGS, DAY)) == 1


def test_a_file_moved_out_of_quarantine_by_hand_no_longer_counts(lake: Lake) -> None:
    land(lake, b"", "odd.json")
    batch = ingest_one(lake)
    assert len(open_rejections(lake, READINGS, DAY)) == 1
    (lake.home / "quarantine" / "readings" / DAY / f"{batch.digest[:12]}-odd.json").rename(lake.home / "looked-at")
    assert open_rejections(lake, READINGS, DAY) == []


# -- A change at the sender


def test_another_unit_is_noticed_although_every_value_is_in_range(lake: Lake) -> None:
    land(lake, readings())
    ingest(lake, READINGS, DAY)
    land(lake, readings(value=readings()["value"] * 1.609344, known_at=NEXT_DAY), folder=NEXT)
    batch = ingest_one(lake, NEXT)
    assert batch.status == "quarantined"
    assert "mean went from" in batch.reasons[0]
    assert "1.609" in batch.reasons[0]


def test_without_history_there_is_nothing_to_compare_with(lake: Lake) -> None:
    land(lake, readings(value=readings()["value"] * 1.609344, known_at=NEXT_DAY), folder=NEXT)
    assert ingest_one(lake, NEXT).status == "accepted"


def test_a_later_day_is_no_history_of_an_earlier_one(lake: Lake) -> None:
    land(lake, readings(value=readings()["value"] * 1.609344, known_at=NEXT_DAY), folder=NEXT)
    ingest(lake, READINGS, NEXT)
    land(lake, readings())
    assert ingest_one(lake).status == "accepted"


def test_kilometres_are_noticed_without_the_one_flight_that_breaks_the_range(lake: Lake, feed: NycFlights) -> None:
    for n in (18, 19):
        (flights,) = (d for d in deliveries(feed, date(2013, 1, n))[0] if d.source == "flights")
        feed_wave([flights], str(lake.home))
        assert [b.status for b in ingest(lake, FLIGHTS, f"2013-01-{n}")] == ["accepted"]
    (wrong,) = (d for d in deliveries(feed, date(2013, 1, 20))[0] if d.source == "flights")
    frame = pq.read_table(io.BytesIO(wrong.payload)).to_pandas()
    near = frame[frame["dest"] != "HNL"]
    assert near["distance"].max() < 6000
    table = arrow.Table.from_pandas(near, preserve_index=False)
    feed_wave([Delivery("flights", date(2013, 1, 20), wrong.name, parquet_bytes(table))], str(lake.home))
    (batch,) = ingest(lake, FLIGHTS, "2013-01-20")
    assert batch.status == "quarantined"
    assert [r.partition(":")[0] for r in batch.reasons] == ["column distance"]
    assert "kilometres" in batch.reasons[0]


# -- The planted mistakes of the demo

PLANTED = {
    "kilometres": ("quarantined", "distance|mean went from"),
    "missing_column": ("quarantined", "column.* delay missing"),
    "truncated": ("quarantined", "not a whole Parquet file"),
    "duplicate": ("accepted", None),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.kind)
def test_a_planted_fault_is_handled_and_its_second_wave_settles_the_day(lake: Lake, feed: NycFlights, fault) -> None:
    source, partition = BY_NAME[fault.source], fault.day.isoformat()
    first, second = deliveries(feed, fault.day)
    feed_wave([d for d in first if d.source == fault.source], str(lake.home))
    (batch,) = ingest(lake, source, partition)
    status, reason = PLANTED[fault.kind]
    assert batch.status == status
    assert reason is None or pd.Series(batch.reasons).str.contains(reason).any(), batch.reasons
    assert bool(open_rejections(lake, source, partition)) == (status == "quarantined")
    feed_wave(second, str(lake.home))
    (again,) = ingest(lake, source, partition)
    assert (again.name, again.status) == (fault.resent, "accepted" if status == "quarantined" else "duplicate")
    assert open_rejections(lake, source, partition) == []
    (good,) = second
    assert lake.dataset(source.name).rows() == pq.read_table(io.BytesIO(good.payload)).num_rows


# -- A crash at every step

STEPS = ["remember", "write", "settle", "move", "after"]


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_ends_as_if_there_had_been_none(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    land(lake, readings())
    _crash_at(monkeypatch, step)
    with pytest.raises(OSError, match="the power went"):
        ingest(lake, READINGS, DAY)
    monkeypatch.undo()
    again = ingest(lake, READINGS, DAY)
    assert [b.status for b in again] == ([] if step == "after" else ["accepted"])
    assert _end_state(lake) == _undisturbed(lake.home / "other", payload(readings()))


@pytest.mark.parametrize("step", ["note", "move", "after"])
def test_a_crash_while_rejecting_ends_as_if_there_had_been_none(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    land(lake, b"")
    _crash_at(monkeypatch, step)
    with pytest.raises(OSError, match="the power went"):
        ingest(lake, READINGS, DAY)
    monkeypatch.undo()
    ingest(lake, READINGS, DAY)
    assert len(open_rejections(lake, READINGS, DAY)) == 1
    assert _end_state(lake) == _undisturbed(lake.home / "other", b"")


def _crash_at(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def crash(*args: object, **kwargs: object) -> None:
        raise OSError("the power went")

    owners = {"write": Dataset, "remember": module.stability, "settle": Quarantine, "note": Quarantine, "move": Landing}
    if step == "after":
        move = Landing.move
        monkeypatch.setattr(Landing, "move", lambda *args: (move(*args), crash()))
    else:
        monkeypatch.setattr(owners[step], step, crash)


def _end_state(lake: Lake) -> tuple[list[str], list[str], list[str], object]:
    kept = [below(lake.home / name) for name in ("landing", "archive", "quarantine")]
    return (*kept, lake.dataset("readings").files())


def _undisturbed(home: Path, content: bytes) -> tuple[list[str], list[str], list[str], object]:
    other = Lake(home)
    land(other, content)
    ingest(other, READINGS, DAY)
    return _end_state(other)
