import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.data_format import DeltaFormat
from feast.errors import FeastEntityDFMissingColumnsError, SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String

START = pd.Timestamp("2013-01-01", tz="UTC")


def at(minutes: float) -> pd.Timestamp:
    return START + pd.Timedelta(minutes=minutes)


def frame(**columns) -> pd.DataFrame:
    data = pd.DataFrame(columns)
    for name in data.columns.intersection(["event_timestamp", "created"]):
        data[name] = pd.to_datetime(data[name], utc=True).astype("datetime64[us, UTC]")
    return data


def write(path: Path, data: pd.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.to_parquet(path, index=False)
    return path


def write_manifest(folder: Path, files: Sequence[str | dict[str, object]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"files": files}))
    return manifest


def entity(name: str, kind: ValueType = ValueType.INT64) -> Entity:
    return Entity(name=name, join_keys=[name], value_type=kind)


KEY = entity("key")


def view(
    path, *, name="view", entities=(KEY,), features=("x",), ttl=None, created=True, keys=None, dtype=Float64, **kw
):
    schema = [Field(name=key, dtype=kind) for key, kind in (keys or {e.name: Int64 for e in entities}).items()]
    source = FileSource(
        name=f"{name}_source",
        path=str(path),
        timestamp_field="event_timestamp",
        created_timestamp_column="created" if created else "",
        **kw,
    )
    schema += [Field(name=feature, dtype=dtype) for feature in features]
    return FeatureView(name=name, entities=list(entities), ttl=ttl, schema=schema, source=source)


@pytest.fixture
def ask(open_store):
    """Applies views and returns a point-in-time query on them."""
    store = open_store()

    def query(views, entities, refs=None, job=False, **kw):
        views = views if isinstance(views, list) else [views]
        store.apply([*{e for v in views for e in (KEY,) if "key" in v.entities}, *views])
        refs = refs or [f"{v.name}:{f.name}" for v in views for f in v.features if f.name != "key"]
        result = store.get_historical_features(entities, refs, **kw)
        return result if job else result.to_df()

    return query


# --- against a brute-force join -------------------------------------------------------------------------------------


def brute_force(entities, rows, keys, feature, ttl, filtered):
    """One row at a time: every visible row of the key, sorted, the last."""
    rows = rows.sort_values(["event_timestamp", "created"], kind="stable")  # ties stay in file order
    event, created = (rows[name].to_numpy("datetime64[us]") for name in ("event_timestamp", "created"))
    stored, asked_at = (
        {key: frame[key].to_numpy(float, na_value=np.nan) for key in keys} for frame in (rows, entities)
    )
    answers = []
    for place, asked in enumerate(entities["event_timestamp"].to_numpy("datetime64[us]")):
        seen = event <= asked
        if filtered:
            seen &= created <= asked
        if ttl:
            seen &= event >= asked - np.timedelta64(ttl)
        for key in keys:
            seen &= stored[key] == asked_at[key][place]  # a null equals nothing
        answers.append(rows[feature].iloc[np.flatnonzero(seen)[-1]] if seen.any() else np.nan)
    return np.array(answers, dtype=float)


def random_rows(rng, count, keys):
    event = START + pd.to_timedelta(rng.integers(0, 300, count), unit="min")
    late = pd.to_timedelta(np.where(rng.random(count) < 0.5, 0, rng.integers(0, 120, count)), unit="min")
    data = frame(event_timestamp=event, created=event + late)
    for key, size in keys.items():
        data[key] = pd.array(np.where(rng.random(count) < 0.05, None, rng.integers(0, size, count)), dtype="Int64")
    data["x"] = np.where(rng.random(count) < 0.05, np.nan, np.arange(count))
    return data


@pytest.mark.parametrize("counted", [False, True], ids=["sorted", "compared"])
@pytest.mark.parametrize("filtered", [False, True])
def test_random_histories_equal_a_brute_force_join(tmp_path, open_store, filtered, counted):
    rng = np.random.default_rng(20130101)
    shapes = {
        "pair": ({"origin": 4, "carrier": 5}, timedelta(minutes=45)),
        "single": ({"carrier": 5}, None),
        "zero_ttl": ({"origin": 4}, timedelta(0)),
        "everywhere": ({}, timedelta(minutes=20)),
    }
    store = open_store()
    owners = {name: entity(name) for name in ("origin", "carrier")}
    objects, rows = list(owners.values()), {}
    for name, (keys, ttl) in shapes.items():
        rows[name] = random_rows(rng, 600, keys)
        halves = [rows[name].iloc[:300], rows[name].iloc[300:]]
        files = [write(tmp_path / name / f"{i}.parquet", half).name for i, half in enumerate(halves)]
        # Of few rows, as far as a manifest says how many there are, all of one key are compared.
        listed = [{"path": file, "rows": 300} for file in files] if counted else files
        manifest = write_manifest(tmp_path / name, listed)
        stored = view(
            manifest, name=name, entities=[owners[key] for key in keys], ttl=ttl, keys=dict.fromkeys(keys, Int64)
        )
        objects.append(stored)
    store.apply(objects)
    count = 600
    entities = frame(event_timestamp=START + pd.to_timedelta(rng.integers(-10, 400, count), unit="min"))
    for key, size in {"origin": 5, "carrier": 6}.items():
        entities[key] = pd.array(np.where(rng.random(count) < 0.05, None, rng.integers(0, size, count)), dtype="Int64")
    entities = pd.concat([entities, entities.sample(50, random_state=1)]).sample(frac=1, random_state=2)
    refs = [f"{name}:x" for name in shapes]
    found = store.get_historical_features(
        entities, refs, full_feature_names=True, filter_by_created_timestamp=filtered
    ).to_df()
    pd.testing.assert_frame_equal(
        found[["event_timestamp"]], entities[["event_timestamp"]].reset_index(drop=True)
    )  # the same rows in the same order
    assert len(refs) * len(found) >= 2000
    for name, (keys, ttl) in shapes.items():
        expected = brute_force(entities, rows[name], keys, "x", ttl, filtered)
        assert np.isfinite(expected).sum() > 100
        np.testing.assert_array_equal(found[f"{name}__x"].to_numpy(dtype=float), expected, err_msg=name)


def test_it_agrees_with_feasts_dask_store_where_that_one_is_right(tmp_path, open_store):
    # No nulls, no ties, every entity row has a value within the ttl: elsewhere dask drops or mixes up rows.
    rng = np.random.default_rng(7)
    moments = rng.permutation(600)
    rows = frame(event_timestamp=[at(float(m)) for m in moments], created=[at(m + 0.5) for m in moments])
    rows["key"], rows["x"] = np.arange(600) % 3, np.arange(600.0)
    first = frame(event_timestamp=[at(-1)] * 3, created=[at(-1)] * 3).assign(key=range(3), x=[-1.0, -2.0, -3.0])
    path = write(tmp_path / "x.parquet", pd.concat([rows, first]))
    entities = frame(event_timestamp=[at(m + 0.25) for m in rng.choice(600, 100, replace=False)])
    entities["key"] = rng.integers(0, 3, 100)
    entities["row"] = range(100)
    ours = open_store()
    ours.apply([KEY, view(path, ttl=timedelta(days=30))])
    peer = open_store(offline_store={"type": "dask"})
    for filtered in (False, True):
        both = [
            store.get_historical_features(entities, ["view:x"], filter_by_created_timestamp=filtered)
            .to_df()
            .sort_values("row")
            .x.tolist()
            for store in (ours, peer)
        ]
        assert len(both[0]) == 100
        assert both[0] == both[1]


# --- who wins -------------------------------------------------------------------------------------------------------


def test_late_rows_are_invisible_until_created_and_never_hide_a_newer_one(tmp_path, ask):
    rows = frame(
        event_timestamp=[at(0), at(10), at(5), at(10)],
        created=[at(0), at(60), at(70), at(80)],
        key=[1] * 4,
        x=[0.0, 10.0, 5.0, 10.5],  # 10.0 comes late, 5.0 is older and comes later still, 10.5 corrects 10.0
    )
    path = write(tmp_path / "x.parquet", rows)
    entities = frame(event_timestamp=[at(m) for m in (59, 60, 70, 79, 80)], key=1)
    filtered = ask(view(path), entities, filter_by_created_timestamp=True)
    assert filtered.x.tolist() == [0.0, 10.0, 10.0, 10.0, 10.5]
    assert ask(view(path), entities).x.tolist() == [10.5] * 5
    # The ttl is judged by the winner's own timestamp, not by the moment it became visible.
    short = ask(view(path, ttl=timedelta(minutes=60)), entities, filter_by_created_timestamp=True)
    np.testing.assert_array_equal(short.x, [0.0, 10.0, 10.0, np.nan, np.nan])


def test_the_ttl_boundary_is_inclusive_and_one_microsecond_more_is_null(tmp_path, ask):
    path = write(tmp_path / "x.parquet", frame(event_timestamp=[at(0)], created=[at(0)], key=[1], x=[1.0]))
    micro = pd.Timedelta(microseconds=1)
    entities = frame(event_timestamp=[at(0) - micro, at(0), at(30), at(30) + micro], key=1)
    found = ask(view(path, ttl=timedelta(minutes=30)), entities)
    np.testing.assert_array_equal(found.x, [np.nan, 1.0, 1.0, np.nan])


def test_a_row_never_created_loses_a_tie_and_is_invisible_to_the_created_filter(tmp_path, ask):
    rows = frame(event_timestamp=[at(0), at(0)], created=[at(1), None], key=1, x=[1.0, 2.0])
    path = write(tmp_path / "x.parquet", rows)
    entities = frame(event_timestamp=[at(0), at(5)], key=1)
    assert ask(view(path), entities).x.tolist() == [1.0, 1.0]
    filtered = ask(view(path), entities, filter_by_created_timestamp=True)
    np.testing.assert_array_equal(filtered.x, [np.nan, 1.0])


def test_without_a_created_column_the_last_row_of_the_last_file_wins_a_tie(tmp_path, ask):
    row = frame(event_timestamp=[at(0)] * 2, key=[1, 1])
    write(tmp_path / "lake" / "b.parquet", row.assign(x=[3.0, 4.0]))
    write(tmp_path / "lake" / "a.parquet", row.assign(x=[1.0, 2.0]))
    entities = frame(event_timestamp=[at(1)], key=1)
    for files, winner in ((["a.parquet", "b.parquet"], 4.0), (["b.parquet", "a.parquet"], 2.0)):
        manifest = write_manifest(tmp_path / "lake", files)
        found = ask(view(manifest, created=False), entities, filter_by_created_timestamp=True)
        assert found.x.tolist() == [winner]


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_stored_times_of_any_unit_and_zone_mean_the_same_instant(tmp_path, ask, unit, zone):
    rows = frame(event_timestamp=[at(0), at(10)], created=[at(0), at(10)], key=1, x=[1.0, 2.0])
    for column in ("event_timestamp", "created"):
        instants = rows[column].dt.tz_convert(zone)  # None drops the zone and leaves UTC clock times
        rows[column] = instants.astype(f"datetime64[{unit}, {zone}]" if zone else f"datetime64[{unit}]")
    path = write(tmp_path / "x.parquet", rows)
    entities = pd.DataFrame({"event_timestamp": [at(9), at(10)], "key": [1, 1]})
    for asked in (
        entities,
        entities.assign(event_timestamp=entities.event_timestamp.dt.tz_localize(None)),
        entities.assign(event_timestamp=entities.event_timestamp.dt.tz_convert("America/New_York")),
        entities.assign(event_timestamp=entities.event_timestamp.map(pd.Timestamp.isoformat)),
    ):
        found = ask(view(path, ttl=timedelta(minutes=9)), asked, filter_by_created_timestamp=True)
        assert found.x.tolist() == [1.0, 2.0]
        assert found.event_timestamp.dtype == "datetime64[us, UTC]"


def test_a_null_entity_time_gives_nulls_and_an_empty_entity_frame_gives_no_rows(tmp_path, ask):
    path = write(tmp_path / "x.parquet", frame(event_timestamp=[at(0)], created=[at(0)], key=[1], x=[1.0]))
    found = ask(view(path), frame(event_timestamp=[None, at(1)], key=1))
    np.testing.assert_array_equal(found.x, [np.nan, 1.0])
    none = ask(
        view(path), frame(event_timestamp=pd.Series([], dtype="datetime64[us, UTC]"), key=pd.Series([], dtype=int))
    )
    assert list(none.columns) == ["event_timestamp", "key", "x"]
    assert len(none) == 0


# --- what is asked --------------------------------------------------------------------------------------------------


def test_arrow_and_sql_entities_give_what_pandas_gives(tmp_path, ask):
    rows = frame(event_timestamp=[at(0), at(10)], created=[at(0), at(10)], key=1, x=[1.0, 2.0])
    path = write(tmp_path / "x.parquet", rows)
    entities = frame(event_timestamp=[at(15), at(5)], key=1, label=["b", "a"])
    stored = write(tmp_path / "entities.parquet", entities)
    expected = entities.assign(x=[2.0, 1.0])
    for asked in (entities, pa.Table.from_pandas(entities), f"SELECT * FROM read_parquet('{stored}')"):
        pd.testing.assert_frame_equal(ask(view(path), asked), expected)


def test_the_sql_of_a_job_gives_the_features_in_entity_order(tmp_path, ask):
    rows = frame(event_timestamp=[at(0), at(10)], created=[at(0), at(10)], key=1, x=[1.0, 2.0])
    path = write(tmp_path / "x.parquet", rows)
    job = ask(view(path), frame(event_timestamp=[at(15), at(5)], key=1), job=True)
    with duckdb.connect() as con:
        micros = [int(at(minute).timestamp() * 1e6) for minute in (15, 5)]
        con.register("entity_df", pa.table({"row": [0, 1], "at": micros, "k0": [1, 1]}))
        assert con.execute(job.to_sql()).fetchall() == [(2.0,), (1.0,)]


def test_odd_feature_names_full_names_and_mapped_columns(tmp_path, ask):
    rows = frame(event_timestamp=[at(0)], created=[at(0)], k_raw=[1], x_y=[1.0], rn=[2.0], at=[3.0], raw=[4.0])
    path = write(tmp_path / "x.parquet", rows.rename(columns={"event_timestamp": "ts raw"}))
    mapping = {"k_raw": "key", "raw": 'quo"ted', "ts raw": "event_timestamp"}
    features = ("x_y", "rn", "at", 'quo"ted')
    entities = frame(event_timestamp=[at(1)], key=[1], rn=[9.0])
    found = ask(view(path, features=features, field_mapping=mapping), entities, full_feature_names=True)
    assert found.drop(columns="event_timestamp").iloc[0].to_dict() == {
        "key": 1,
        "rn": 9.0,
        "view__x_y": 1.0,
        "view__rn": 2.0,
        "view__at": 3.0,
        'view__quo"ted': 4.0,
    }


def test_one_view_joined_twice_under_two_roles(tmp_path, open_store):
    rows = frame(event_timestamp=[at(0)] * 2, created=[at(0)] * 2, airport=["JFK", "LAX"], x=[1.0, 2.0])
    airport = entity("airport", ValueType.STRING)
    stored = view(write(tmp_path / "x.parquet", rows), entities=[airport], keys={"airport": String})
    store = open_store()
    store.apply([airport, stored])
    roles = FeatureService(
        name="roles",
        features=[
            stored.with_name("origin_view").with_join_key_map({"airport": "origin"}),
            stored.with_name("dest_view").with_join_key_map({"airport": "dest"}),
        ],
    )
    store.apply([roles])
    entities = frame(event_timestamp=[at(1)] * 2, origin=["JFK", "LAX"], dest=["LAX", None])
    found = store.get_historical_features(entities, store.get_feature_service("roles"), full_feature_names=True).to_df()
    np.testing.assert_array_equal(found["origin_view__x"], [1.0, 2.0])
    np.testing.assert_array_equal(found["dest_view__x"], [2.0, np.nan])


def test_on_demand_features_are_computed_and_persisted(tmp_path, open_store):
    path = write(tmp_path / "x.parquet", frame(event_timestamp=[at(0)], created=[at(0)], key=[1], x=[3.0]))
    stored = view(path)
    request = RequestSource(name="request", schema=[Field(name="amount", dtype=Float64)])

    @on_demand_feature_view(sources=[stored, request], schema=[Field(name="product", dtype=Float64)], mode="python")
    def doubled(inputs):
        return {"product": [None if x is None else x * a for x, a in zip(inputs["x"], inputs["amount"], strict=True)]}

    store = open_store()
    store.apply([KEY, stored, doubled])
    entities = frame(event_timestamp=[at(1), at(-1)], key=1, amount=[2.0, 2.0])
    job = store.get_historical_features(entities, ["view:x", "doubled:product"])
    np.testing.assert_array_equal(job.to_df()["product"], [6.0, np.nan])
    target = tmp_path / "saved" / "set.parquet"
    job.persist(SavedDatasetFileStorage(str(target)))
    np.testing.assert_array_equal(pd.read_parquet(target)["product"], [6.0, np.nan])
    with pytest.raises(ValueError, match="'product'"):
        store.get_historical_features(entities.assign(product=1.0), ["view:x", "doubled:product"])


def test_questions_that_cannot_be_answered_say_why(tmp_path, ask):
    rows = frame(event_timestamp=[at(0)], created=[at(0)], key=[1], x=[1.0])
    stored = view(write(tmp_path / "x.parquet", rows))
    entities = frame(event_timestamp=[at(1)], key=1)
    with pytest.raises(ValueError, match=r"named like requested features: \['x'\]"):
        ask(stored, entities.assign(x=1.0))
    with pytest.raises(FeastEntityDFMissingColumnsError, match="key"):
        ask(stored, entities.drop(columns="key"))
    with pytest.raises(ValueError, match="'key' is VARCHAR in entity_df and BIGINT in the source of view 'view'"):
        ask(stored, entities.assign(key="one"))
    with pytest.raises(ValueError, match="needs an entity_df"):
        ask(stored, None, start_date=at(0), end_date=at(1))
    with pytest.raises(ValueError, match=r"no column 'z', needed as a feature of view 'view'; it has \['created'"):
        ask(view(tmp_path / "x.parquet", features=("z",)), entities)
    with pytest.raises(ValueError, match="reads Parquet, not"):
        ask(view(tmp_path / "x.parquet", file_format=DeltaFormat()), entities)
    with pytest.raises(ValueError, match=r"absent\.parquet.* cannot be read as Parquet"):
        ask(view(tmp_path / "absent.parquet"), entities)


# --- where it is stored ---------------------------------------------------------------------------------------------


def test_a_source_may_be_a_file_a_folder_a_glob_or_relative_to_the_repository(tmp_path, ask):
    rows = frame(event_timestamp=[at(0)], created=[at(0)], key=[1], x=[1.0])
    write(tmp_path / "lake" / "day=1" / "a.parquet", rows)
    write(tmp_path / "lake" / "day=2" / "b.parquet", rows.assign(x=2.0, created=at(5)))
    entities = frame(event_timestamp=[at(9)], key=1)
    for path, value in {
        tmp_path / "lake" / "day=1" / "a.parquet": 1.0,
        tmp_path / "lake": 2.0,
        tmp_path / "lake" / "*" / "b.parquet": 2.0,
        Path("lake/day=1/a.parquet"): 1.0,
    }.items():
        assert ask(view(path), entities).x.tolist() == [value]


def test_a_manifest_names_exactly_the_files_that_are_read(tmp_path, ask):
    rows = frame(event_timestamp=[at(0)], created=[at(0)], key=[1], x=[1.0])
    lake = tmp_path / "lake"
    write(lake / "2013-01-01" / "old.parquet", rows.drop(columns="x"))  # from before the feature existed
    write(lake / "2013-01-02" / "new.parquet", rows.assign(event_timestamp=at(1)))
    write(lake / "2013-01-02" / "superseded.parquet", rows.assign(event_timestamp=at(2), x=9.0))
    manifest = write_manifest(lake, ["2013-01-01/old.parquet", "2013-01-02/new.parquet"])
    found = ask(view(manifest), frame(event_timestamp=[at(0), at(3)], key=1))
    np.testing.assert_array_equal(found.x, [np.nan, 1.0])


def test_neither_a_file_without_rows_nor_one_of_another_time_is_opened(tmp_path, ask):
    lake = tmp_path / "lake"
    write(lake / "one.parquet", frame(event_timestamp=[at(1)], created=[at(1)], key=1, x=1.0))
    files = [
        {"path": "one.parquet", "rows": 1, "min_time": str(at(1)), "max_time": str(at(1))},
        {"path": "empty.parquet", "rows": 0, "min_time": None, "max_time": None},
        {"path": "later.parquet", "rows": 1, "min_time": str(at(9)), "max_time": str(at(9))},
    ]
    for name in ("empty", "later"):
        (lake / f"{name}.parquet").write_bytes(b"no Parquet")
    (lake / "manifest.json").write_text(json.dumps({"files": files}))
    stored, entities = view(lake / "manifest.json"), frame(event_timestamp=[at(3)], key=1)
    assert ask(stored, entities).x.tolist() == [1.0]
    # Without a question there is nothing to read at all.
    (lake / "one.parquet").write_bytes(b"no Parquet")
    assert ask(stored, entities.iloc[:0]).x.tolist() == []


def test_an_empty_manifest_is_an_empty_table_of_the_declared_types(tmp_path, ask, open_store):
    manifest = write_manifest(tmp_path / "lake", [])
    entities = frame(event_timestamp=[at(0)], key=1)
    for dtype, kind in ((Float64, pa.float64()), (Int64, pa.int64()), (String, pa.string())):
        stored = view(manifest, dtype=dtype)
        table = ask(stored, entities, filter_by_created_timestamp=True, job=True).to_arrow()
        assert table.schema.field("x").type == kind
        assert table["x"].to_pylist() == [None]
    open_store().materialize(at(-10), at(10))  # loads nothing, and says nothing


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "the manifest cannot be read .FileNotFoundError"),
        ('{"files": [', "the manifest cannot be read .JSONDecodeError"),
        ("[]", "no list of paths"),
        ('{"files": "a.parquet"}', "no list of paths"),
        ('{"files": ["2013/gone.parquet"]}', "lists '2013/gone.parquet', which does not exist"),
        ('{"files": ["*.parquet"]}', "cannot contain"),
    ],
)
def test_an_unreadable_manifest_is_an_error_that_names_it(tmp_path, ask, open_store, content, complaint):
    manifest = tmp_path / "manifest.json"
    if content is not None:
        manifest.write_text(content)
    with pytest.raises(ValueError, match=f"'view_source'.*manifest.json.*{complaint}"):
        ask(view(manifest), frame(event_timestamp=[at(0)], key=1))
    with pytest.raises(ValueError, match=complaint):
        store = open_store()
        store._get_provider().validate_data_source(store.config, view(manifest).batch_source)


def test_a_schema_is_inferred_from_a_manifest(tmp_path, open_store):
    rows = frame(event_timestamp=[at(0)], created=[at(0)], key=[1], x=[1.0], name=["a"])
    write(tmp_path / "lake" / "a.parquet", rows)
    source = view(write_manifest(tmp_path / "lake", ["a.parquet"])).batch_source
    store = open_store()
    store.apply([KEY, FeatureView(name="view", entities=[KEY], source=source)])
    assert {f.name: f.dtype for f in store.get_feature_view("view").features} == {"x": Float64, "name": String}


# --- pulling and persisting -----------------------------------------------------------------------------------------


def pulled(store, kind, stored, keys, window):
    pull = getattr(store._get_provider().offline_store, f"pull_{kind}_from_table_or_query")
    return pull(store.config, stored.batch_source, keys, ["x"], "event_timestamp", "created", *window).to_arrow()


def test_pulls_keep_the_window_inclusive_and_the_newest_row_per_key(tmp_path, open_store):
    rows = frame(
        event_timestamp=[at(0), at(10), at(10), at(20), at(5), at(10)],
        created=[at(0), at(12), at(11), at(20), at(5), at(10)],
        key=pd.array([1, 1, 1, 1, 2, None], dtype="Int64"),
        x=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
    )
    rows["event_timestamp"] = rows.event_timestamp.astype("datetime64[ns, UTC]")  # as pandas writes by default
    stored = view(write(tmp_path / "x.parquet", rows))
    store = open_store()
    latest = pulled(store, "latest", stored, ["key"], (at(5).to_pydatetime(), at(10).to_pydatetime()))
    assert sorted(zip(latest["key"].to_pylist(), latest["x"].to_pylist(), strict=True)) == [(1, 1.0), (2, 4.0)]
    assert latest.schema.field("event_timestamp").type == pa.timestamp("us", tz="UTC")
    naive = (at(5).tz_localize(None).to_pydatetime(), at(10).tz_localize(None).to_pydatetime())
    assert pulled(store, "all", stored, ["key"], naive)["x"].to_pylist() == [1.0, 2.0, 4.0, 5.0]
    assert pulled(store, "all", stored, ["key"], (None, None))["x"].to_pylist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    everywhere = pulled(store, "latest", stored, [], (at(0), at(30)))
    assert everywhere.select(["x", "__dummy_id"]).to_pylist() == [{"x": 3.0, "__dummy_id": ""}]


def test_a_pull_of_many_files_is_one_chunk_so_that_feast_writes_all_of_it(tmp_path, open_store):
    for day in range(3):
        count = 3000
        moments = [at(day)] * count
        rows = frame(event_timestamp=moments, created=moments, key=np.arange(count) + day * count, x=np.ones(count))
        write(tmp_path / "lake" / f"{day}.parquet", rows)
    table = pulled(open_store(), "all", view(tmp_path / "lake"), ["key"], (None, None))
    assert (table.num_rows, table["x"].num_chunks) == (9000, 1)


def test_persisting_replaces_a_file_whole_or_not_at_all(tmp_path, ask, monkeypatch):
    path = write(tmp_path / "x.parquet", frame(event_timestamp=[at(0)], created=[at(0)], key=[1], x=[1.0]))
    job = ask(view(path), frame(event_timestamp=[at(1)], key=1), job=True)
    storage = SavedDatasetFileStorage("saved/folder")  # relative to the repository
    job.persist(storage)
    target = tmp_path / "saved" / "folder" / "data.parquet"
    assert pq.read_table(target)["x"].to_pylist() == [1.0]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(storage)
    before = target.read_bytes()

    def half(table, stream):
        stream.write(b"PAR1 half of a file")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("ct_assets.stores.asof_job.pq", SimpleNamespace(write_table=half))
        with pytest.raises(OSError, match="disk full"):
            job.persist(storage, allow_overwrite=True)
    assert target.read_bytes() == before
    job.persist(storage, allow_overwrite=True)
    assert [file.name for file in target.parent.iterdir()] == ["data.parquet"]


def test_a_query_leaves_no_spilled_file_behind(tmp_path, open_store):
    path = write(tmp_path / "x.parquet", frame(event_timestamp=[at(0)], created=[at(0)], key=[1], x=[1.0]))
    spill = tmp_path / "spill"
    store = open_store(
        offline_store={
            "type": "ct_assets.stores.asof_duckdb.AsofDuckDBOfflineStore",
            "memory_limit": "1GB",
            "temp_directory": str(spill),
        }
    )
    store.apply([KEY, view(path)])
    found = store.get_historical_features(frame(event_timestamp=[at(1)], key=1), ["view:x"]).to_df()
    assert found.x.tolist() == [1.0]
    assert [file for file in spill.rglob("*") if file.is_file()] == []
