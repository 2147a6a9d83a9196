import multiprocessing
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64, Int64, String

from ct_assets.stores.unavailable import OnlineStoreUnavailable

KEY = Entity(name="key", join_keys=["key"], value_type=ValueType.INT64)
START = datetime(2013, 1, 1, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def view(features=(("x", Float64),), *, name="view", path="rows.parquet", entities=(KEY,), ttl=None) -> FeatureView:
    source = FileSource(
        name=f"{name}_source", path=path, timestamp_field="event_timestamp", created_timestamp_column="created"
    )
    schema = [Field(name=entity.name, dtype=Int64) for entity in entities]
    schema += [Field(name=feature, dtype=dtype) for feature, dtype in features]
    return FeatureView(name=name, entities=list(entities), schema=schema, source=source, ttl=ttl)


@pytest.fixture
def write(open_store):
    """Writes one feature row the way Feast does: write(key, event, created, x=..., ...)."""
    store = open_store()

    def one(key, event, created=None, *, table=None, **values):
        write_rows(store, [(key, event, created, values)], table)

    return one


def write_rows(store, rows, table=None):
    data = [
        (
            EntityKey(join_keys=["key"], entity_values=[Value(int64_val=key)]),
            {name: Value() if value is None else Value(double_val=value) for name, value in values.items()},
            event,
            created,
        )
        for key, event, created, values in rows
    ]
    store._get_provider().online_write_batch(store.config, table or view(), data, None)


def read(store, keys, *features):
    refs = [feature if ":" in feature else f"view:{feature}" for feature in features or ("x",)]
    answer = store.get_online_features(refs, [{"key": key} for key in keys]).to_dict(include_event_timestamps=True)
    return {name: values for name, values in answer.items() if name not in ("key", "key__ts")}


# --- which write wins -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "created", "wins"),
    [
        (9, 100, False),  # older event, however late it was created
        (10, 19, False),  # the same event, an older edition
        (10, None, False),  # the same event, of no known edition
        (10, 20, True),  # the same row again
        (10, 21, True),  # a correction
        (11, 0, True),
        (11, None, True),
        (10 + 1e-6 / 60, None, True),  # one microsecond newer
    ],
)
def test_a_write_wins_only_when_its_event_and_created_times_are_not_older(open_store, write, event, created, wins):
    store = open_store()
    store.apply([KEY, view()])
    write(1, at(10), at(20), x=1.0)
    write(1, at(event), None if created is None else at(created), x=2.0)
    assert read(store, [1])["x"] == [2.0 if wins else 1.0]


def test_rows_of_one_batch_may_come_in_any_order(open_store):
    store = open_store()
    store.apply([KEY, view()])
    rows = [(key, at(minute), at(minute), {"x": key * 100.0 + minute}) for key in range(5) for minute in range(20)]
    order = np.random.default_rng(0).permutation(len(rows))
    write_rows(store, [rows[i] for i in order])
    assert read(store, range(5))["x"] == [key * 100.0 + 19 for key in range(5)]


def test_naive_times_are_utc_and_a_missing_event_time_is_an_error(open_store, write):
    store = open_store()
    store.apply([KEY, view()])
    write(1, at(10).replace(tzinfo=None), pd.NaT, x=1.0)
    assert read(store, [1])["x__ts"] == [int(at(10).timestamp())]
    with pytest.raises(ValueError, match="'test/view' has no event time"):
        write(1, pd.NaT, x=2.0)


def test_materializing_old_windows_again_changes_nothing_and_a_correction_is_taken(tmp_path, open_store):
    path = tmp_path / "rows.parquet"
    store = open_store()
    store.apply([KEY, view(path=str(path))])

    def load(rows, *window):
        data = pd.DataFrame(rows, columns=["event_timestamp", "created", "key", "x"])
        for name in ("event_timestamp", "created"):
            data[name] = data[name].astype("datetime64[us, UTC]")
        data.to_parquet(path)
        store.materialize(*window, feature_views=["view"])
        return read(store, [1, 2])

    rows = [(at(0), at(0), 1, 0.0), (at(10), at(10), 1, 10.0), (at(5), at(5), 2, 5.0)]
    expected = {"x": [10.0, 5.0], "x__ts": [int(at(10).timestamp()), int(at(5).timestamp())]}
    assert load(rows, at(0), at(20)) == expected
    assert load(rows, at(0), at(20)) == expected  # idempotent
    assert load(rows, at(0), at(1)) == expected  # the backfill of an old partition after a new one
    corrected = [*rows, (at(10), at(30), 1, 10.5)]
    assert load(corrected, at(0), at(20))["x"] == [10.5, 5.0]
    assert load(rows, at(0), at(20))["x"] == [10.5, 5.0]


def test_the_online_row_is_the_last_offline_row(tmp_path, open_store):
    rng = np.random.default_rng(5)
    count = 2000
    event = pd.Timestamp(START) + pd.to_timedelta(rng.integers(0, 500, count), unit="min")
    rows = pd.DataFrame(
        {"event_timestamp": event, "created": event + pd.to_timedelta(rng.integers(0, 9, count), "min")}
    )
    rows = rows.astype({"event_timestamp": "datetime64[us, UTC]", "created": "datetime64[us, UTC]"})
    rows["key"] = rng.integers(0, 100, count)
    rows["x"] = np.where(rng.random(count) < 0.2, np.nan, rng.normal(size=count))
    rows["n"], rows["s"] = rng.integers(0, 10**15, count), rng.integers(0, 9, count).astype(str)
    rows.iloc[rng.permutation(count)].to_parquet(tmp_path / "rows.parquet", index=False)
    features = (("x", Float64), ("n", Int64), ("s", String))
    store = open_store()
    store.apply([KEY, view(features)])
    for start in range(0, 500, 125):  # window by window, as partitions arrive
        store.materialize(at(start), at(start + 125), feature_views=["view"])
    keys = list(range(105))
    entities = pd.DataFrame({"key": keys, "event_timestamp": pd.Timestamp(at(1000))})
    offline = store.get_historical_features(entities, ["view:x", "view:n", "view:s"]).to_df()
    online = pd.DataFrame(read(store, keys, "x", "n", "s"))
    assert offline.n.notna().sum() == rows.key.nunique() >= 95
    for name in ("x", "n", "s"):
        pd.testing.assert_series_equal(online[name], offline[name], check_dtype=False)


# --- shapes ---------------------------------------------------------------------------------------------------------


def test_a_view_without_entities_has_one_row(tmp_path, open_store):
    rows = pd.DataFrame({"event_timestamp": [at(0), at(1)], "created": [at(0), at(1)], "x": [1.0, 2.0]})
    rows.to_parquet(tmp_path / "rows.parquet")
    store = open_store()
    store.apply([KEY, view(entities=())])
    store.materialize(at(0), at(5), feature_views=["view"])
    assert store.get_online_features(["view:x"], [{"key": 1}, {"key": 2}]).to_dict()["x"] == [2.0, 2.0]


def test_rows_of_an_older_schema_never_shift_columns(open_store, write):
    store = open_store()
    first = view((("a", Float64), ("b", Float64)))
    store.apply([KEY, first])
    write(1, at(0), a=1.0, b=2.0)
    changed = view((("c", Float64), ("b", Float64)))  # a is gone, c is new and comes first
    store.apply([KEY, changed])
    write(2, at(0), table=changed, c=30.0, b=20.0)
    answer = read(open_store(), [1, 2], "b", "c")
    assert answer["b"] == [2.0, 20.0]
    assert answer["c"] == [None, 30.0]


def test_a_null_feature_is_stored_and_replaces_a_value(open_store, write):
    store = open_store()
    store.apply([KEY, view()])
    write(1, at(0), x=1.0)
    write(1, at(1), x=None)
    assert read(store, [1]) == {"x": [None], "x__ts": [int(at(1).timestamp())]}


def test_more_keys_than_one_query_takes_come_back_in_order_with_absent_ones_missing(open_store):
    store = open_store()
    store.apply([KEY, view()])
    write_rows(store, [(key, at(0), None, {"x": float(key)}) for key in range(0, 24_000, 2)])
    keys = [EntityKey(join_keys=["key"], entity_values=[Value(int64_val=key)]) for key in range(23_999, -1, -1)]
    answers = store._get_provider().online_read(store.config, view(), keys, ["x"])
    assert [row["x"].double_val if row else None for _, row in answers] == [
        None if key % 2 else float(key) for key in range(23_999, -1, -1)
    ]


def test_versions_of_a_view_are_kept_apart(tmp_path, open_store):
    registry = {
        "registry_type": "sql",
        "path": f"sqlite:///{tmp_path}/registry.db",
        "enable_online_feature_view_versioning": True,
    }
    store = open_store(registry=registry)
    for value, features in ((1.0, (("x", Float64),)), (2.0, (("x", Float64), ("y", Float64)))):
        store.apply([KEY, view(features)])
        stored = store.get_feature_view("view")
        write_rows(store, [(1, at(0), None, {"x": value, "y": value})], stored)
    assert [v["version"] for v in store.list_feature_view_versions("view")] == ["v0", "v1"]
    assert read(store, [1], "view@v0:x")["x"] == [1.0]
    assert read(store, [1], "view@v1:x")["x"] == [2.0]
    assert read(store, [1], "view:x")["x"] == [2.0]


def test_the_ttl_is_enforced_only_when_asked(tmp_path, open_store, write):
    store = open_store()
    store.apply([KEY, view(ttl=timedelta(hours=1))])
    now = datetime.now(UTC)
    write(1, now - timedelta(minutes=59), x=1.0)
    write(2, now - timedelta(minutes=61), x=2.0)
    assert read(store, [1, 2])["x"] == [1.0, 2.0]
    online = {"type": "ct_assets.stores.row_sqlite.RowSqliteOnlineStore", "path": "online.db", "enforce_ttl": True}
    assert read(open_store(online_store=online), [1, 2])["x"] == [1.0, None]


def test_deleting_a_view_deletes_its_rows_and_no_others(tmp_path, open_store, write):
    store = open_store()
    gone, stays = view(name="gone"), view(name="stays")
    store.apply([KEY, gone, stays])
    for table in (gone, stays):
        write(1, at(0), table=table, x=1.0)
    store.apply([KEY, stays], objects_to_delete=[store.get_feature_view("gone")], partial=False)
    with sqlite3.connect(tmp_path / "online.db") as con:
        assert con.execute("SELECT view FROM entity_rows").fetchall() == [("test/stays",)]
    store.teardown()
    with sqlite3.connect(tmp_path / "online.db") as con:
        assert con.execute("SELECT count(*) FROM entity_rows").fetchall() == [(0,)]


# --- others at work -------------------------------------------------------------------------------------------------

_HOLD_THE_WRITE_LOCK = """
import sqlite3, sys
con = sqlite3.connect(sys.argv[1], isolation_level=None)
con.execute("BEGIN IMMEDIATE")
con.execute("UPDATE entity_rows SET event_us = 0, features = x'00'")
print("locked", flush=True)
sys.stdin.readline()
con.execute("ROLLBACK")
"""


def test_reads_go_on_while_another_process_writes_and_a_writer_waits_its_turn(tmp_path, open_store, write):
    store = open_store()
    store.apply([KEY, view()])
    write(1, at(0), x=1.0)
    command = [sys.executable, "-c", _HOLD_THE_WRITE_LOCK, str(tmp_path / "online.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        for reader in (store, open_store()):  # a connection opened before the lock, and one opened during it
            started = time.perf_counter()
            assert read(reader, [1])["x"] == [1.0]
            assert time.perf_counter() - started < 10  # it waited for no writer, which would take 30
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(write, 1, at(1), x=2.0)
            time.sleep(0.3)
            assert not waiting.done()
            other.stdin.write("\n")
            other.stdin.flush()
            waiting.result(timeout=300)
    assert read(store, [1])["x"] == [2.0]


def test_threads_share_a_store(open_store, write):
    store = open_store()
    store.apply([KEY, view()])
    for key in range(8):
        write(key, at(0), x=float(key))

    def work(key):
        if key % 4 == 0:
            write(key, at(1), x=float(key))
        return [read(store, [key])["x"] for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [[[float(key)]] * 20 for key in range(8)]


def test_processes_that_create_and_write_the_file_at_once_leave_the_newest_values(open_store, tmp_path):
    store = open_store()
    store.registry.apply_entity(KEY, store.project)
    store.registry.apply_feature_view(view(), store.project)
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)

    def writer(worker):
        start.wait()
        for minute in np.random.default_rng(worker).permutation(40):
            moment = int(minute) * 4 + worker
            write_rows(store, [(key, at(moment), None, {"x": float(moment)}) for key in range(20)])

    assert not (tmp_path / "online.db").exists()
    workers = [context.Process(target=writer, args=(worker,)) for worker in range(4)]
    for process in workers:
        process.start()
    for process in workers:
        process.join(timeout=600)
    assert [process.exitcode for process in workers] == [0] * 4
    assert read(store, range(20))["x"] == [159.0] * 20


# --- what cannot be read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage", ["features = x'ffff'", "features = x''", "features = 5", "layout = 999", "event_us = 1 << 62"]
)
def test_a_damaged_row_is_named_and_the_others_are_read(tmp_path, open_store, write, damage):
    for key in (1, 2):
        write(key, at(1), x=1.5)
    with sqlite3.connect(tmp_path / "online.db") as con:
        whole = con.execute("SELECT entity_key FROM entity_rows ORDER BY entity_key DESC LIMIT 1").fetchone()
        con.execute(f"UPDATE entity_rows SET {damage} WHERE entity_key <> ?", whole)
    con.close()
    store = open_store()
    store.apply([KEY, view()])
    with pytest.raises(
        OnlineStoreUnavailable, match=r"online\.db: the row of view view for key=1 is damaged \(.*restore"
    ):
        read(store, [2, 1])
    assert read(store, [2])["x"] == [1.5]


def test_a_store_that_became_a_link_to_itself_cannot_be_read(tmp_path, open_store, write):
    write(1, at(1), x=1.5)
    store = open_store()
    store.apply([KEY, view()])
    read(store, [1])
    for path in tmp_path.glob("online.db*"):
        path.unlink()
    (tmp_path / "online.db").symlink_to(tmp_path / "online.db")
    with pytest.raises(OnlineStoreUnavailable, match=r"online\.db cannot be read \(.*symbolic links"):
        read(store, [1])
