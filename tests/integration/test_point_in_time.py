"""Every feature is what was known at its moment, whichever way it is asked for.

The oracle recomputes features in plain Python from the files that the feed sent. It never looks at the lake.
"""

import io
import json
import math
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from twelve_days import World

from ct_assets.core.spec import ModelSpec
from ct_assets.defs.models.flight_delay.spec import SPEC
from ct_assets.feeds import Delivery
from ct_assets.lake import training_set as module
from ct_assets.lake.examples import read_events, with_features
from ct_assets.lake.lake import Lake, Window
from ct_assets.lake.training_set import FeatureVersions, TrainingSet, build_training_set
from ct_assets.lib.features import FeatureSql
from ct_assets.lib.outcomes import save_outcomes
from ct_assets.resources.feast import feature_store, service_versions, versions_digest
from ct_assets.serving.features import FeatureReader

HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)
NEW_YORK = ZoneInfo("America/New_York")
START = pd.Timestamp("2013-01-01", tz="UTC")
WEATHER = {
    "temperature": "temp",
    "dew_point": "dewp",
    "humidity": "humid",
    "wind_direction": "wind_dir",
    "wind_speed": "wind_speed",
    "precipitation": "precip",
    "pressure": "pressure",
    "visibility": "visib",
}
# Prefix: the key, the kind of message, the time after which nothing is said, and each window's length and statistics.
DELAYS: dict[str, tuple[str, str, pd.Timedelta, dict[str, tuple[pd.Timedelta, tuple[str, ...]]]]] = {
    "origin": (
        "origin",
        "departure",
        DAY,
        {"3h": (3 * HOUR, ("mean", "late", "count")), "24h": (DAY, ("mean", "count"))},
    ),
    "carrier": (
        "carrier",
        "arrival",
        7 * DAY,
        {"6h": (6 * HOUR, ("mean", "count")), "7d": (7 * DAY, ("mean", "late"))},
    ),
    "dest": ("dest", "arrival", DAY, {"24h": (DAY, ("mean", "count"))}),
    "route": ("route", "arrival", 7 * DAY, {"7d": (7 * DAY, ("mean", "late", "count"))}),
    "tail": ("tailnum", "arrival", 3 * DAY, {"3d": (3 * DAY, ("mean", "last", "count"))}),
    "network": ("network", "departure", DAY, {"3h": (3 * HOUR, ("mean", "late", "count"))}),
}
FEATURES = [name for name, kind in SPEC.inputs.items() if name not in ("carrier", "origin")]


class Oracle:
    """Features by brute force over what was delivered.

    Args:
        delivered: The files that were sent.
    """

    def __init__(self, delivered: list[Delivery]) -> None:
        self.delivered = delivered

    def _table(self, source: str) -> pd.DataFrame:
        parts = [pq.read_table(io.BytesIO(d.payload)).to_pandas() for d in self.delivered if d.source == source]
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def flights(self) -> pd.DataFrame:
        return self._table("flights")

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        return self._table("flight_outcomes").assign(network="all")

    @cached_property
    def weather(self) -> pd.DataFrame:
        return self._table("weather")

    @cached_property
    def planes(self) -> pd.DataFrame:
        return self._table("planes")

    def features(self, keys: dict[str, object], at: pd.Timestamp) -> dict[str, float | None]:
        """All features of one event, from rows with `known_at <= at` alone."""
        found: dict[str, float | None] = {}
        found |= self._schedule(keys, at)
        found |= self._weather(keys, at)
        found |= self._plane_and_clock(keys, at)
        for prefix in DELAYS:
            found |= self._delays(prefix, keys, at)
        return found

    def _schedule(self, keys: dict[str, object], at: pd.Timestamp) -> dict[str, float | None]:
        known = self.flights[(self.flights["known_at"] <= at) & (self.flights["known_at"] >= at - 3 * DAY)]
        route = _newest(known[known["route"] == keys["route"]])
        origin, hour = str(keys["origin_hour"]).split("|")
        begin = pd.Timestamp(hour + ":00", tz="UTC")
        leaving = known[
            (known["origin"] == origin) & (known["sched_dep"] >= begin) & (known["sched_dep"] < begin + HOUR)
        ]
        load = _newest(leaving)
        return {
            "distance": route["distance"].max() if len(route) else None,
            "scheduled_departures": len(load) or None,
        }

    def _weather(self, keys: dict[str, object], at: pd.Timestamp) -> dict[str, float | None]:
        rows = self.weather[
            (self.weather["origin"] == keys["origin"])
            & (self.weather["known_at"] <= at)
            & (self.weather["observed_at"] >= at - 6 * HOUR)
        ]
        if rows.empty:
            return dict.fromkeys(WEATHER)
        row = rows.loc[rows["observed_at"].idxmax()]
        found = {feature: row[column] for feature, column in WEATHER.items()}
        return found | {"wind_speed": None if found["wind_speed"] > 260 else found["wind_speed"]}

    def _plane_and_clock(self, keys: dict[str, object], at: pd.Timestamp) -> dict[str, float | None]:
        rows = self.planes[(self.planes["tailnum"] == keys["tailnum"]) & (self.planes["known_at"] <= at)]
        plane = rows.iloc[0] if len(rows) else {"year_built": None, "seats": None, "engines": None}
        leaves = pd.Timestamp(keys["sched_dep"]).astimezone(NEW_YORK)
        return {
            "seats": plane["seats"],
            "engines": plane["engines"],
            "year_built": plane["year_built"],
            "plane_age": None if _null(plane["year_built"]) else leaves.year - plane["year_built"],
            "departure_minute": leaves.hour * 60 + leaves.minute,
            "weekday": leaves.isoweekday(),
            "scheduled_minutes": (keys["sched_arr"] - keys["sched_dep"]) / pd.Timedelta(minutes=1),
        }

    def _delays(self, prefix: str, keys: dict[str, object], at: pd.Timestamp) -> dict[str, float | None]:
        key, kind, silent_after, windows = DELAYS[prefix]
        rows = self.outcomes
        rows = rows[(rows["kind"] == kind) & (rows[key] == keys[key]) & (rows["known_at"] <= at)]
        newest = rows["known_at"].max() if len(rows) else None
        found: dict[str, float | None] = {}
        for window, (length, statistics) in windows.items():
            names = {s: f"{prefix}_{s}_{window}" for s in statistics}
            if newest is None or newest < at - silent_after:
                found |= dict.fromkeys(names.values())
                continue
            inside = rows[rows["known_at"] >= newest - length]
            delays = inside["delay"].tolist()
            last = inside[inside["known_at"] == newest].sort_values("flight_id")["delay"].iloc[-1]
            values = {
                "mean": math.fsum(delays) / len(delays),
                "late": sum(d > 15 for d in delays) / len(delays),
                "count": len(delays),
                "last": last,
            }
            found |= {name: values[s] for s, name in names.items()}
        return found


def _newest(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["known_at"] == rows["known_at"].max()] if len(rows) else rows


def _null(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value != value


def differences(expected: dict[str, float | None], found: dict[str, object], names: list[str]) -> list[str]:
    """Features that differ: counts at all, others by more than 1e-9 of their size."""
    wrong = []
    for name in names:
        want, have = expected[name], found[name]
        if _null(want) or _null(have):
            same = _null(want) and _null(have)
        elif "count" in name or name in ("scheduled_departures", "departure_minute", "weekday", "seats", "engines"):
            same = want == have
        else:
            same = math.isclose(float(want), float(have), rel_tol=1e-9, abs_tol=1e-12)  # type: ignore[arg-type]
        if not same:
            wrong.append(f"{name}: expected {want}, found {have}")
    return wrong


@pytest.fixture(scope="session")
def oracle(world: World) -> Oracle:
    return Oracle(world.delivered)


@pytest.fixture(scope="session")
def events(world: World) -> pd.DataFrame:
    """Every event of the twelve days."""
    return read_events(world.lake, SPEC, START, world.end).to_pandas()


def test_every_run_succeeded_and_every_day_was_judged(world: World) -> None:
    assert [run.errors for run in world.runs if not run.success] == []
    days = {run.partition for run in world.runs if any(k.path[-1] == "retrain_decision" for k in run.assets)}
    assert days == {f"2013-01-{n:02d}" for n in range(1, 13)}


def test_nothing_that_was_delivered_was_lost_or_doubled(world: World, oracle: Oracle) -> None:
    for source in ("flights", "flight_outcomes", "weather", "planes"):
        assert world.lake.dataset(source).rows() == len(oracle._table(source))


def test_scored_features_are_what_was_known_at_the_moment_of_prediction(
    world: World, oracle: Oracle, events: pd.DataFrame
) -> None:
    name = f"{SPEC.name}/scored"
    scored = world.lake.query(f'SELECT * FROM "{name}"', {name: Window()}, world.end).to_pandas()
    assert len(scored) == len(events)
    asked = events.set_index("flight_id")
    wrong, compared = [], 0
    for row in scored.sample(120, random_state=7).to_dict("records"):
        keys = asked.loc[row["flight_id"]].to_dict()
        expected = oracle.features(keys, row["event_timestamp"])
        wrong += [f"{row['flight_id']} {d}" for d in differences(expected, row, FEATURES)]
        compared += len(FEATURES)
    assert compared >= 4000
    assert wrong == []


def moments_and_keys(events: pd.DataFrame, end: pd.Timestamp, rows: int, seed: int) -> pd.DataFrame:
    """Keys mixed at random, some never seen, at random moments, some on the microsecond of a message."""
    random = np.random.default_rng(seed)
    columns = [*SPEC.entities, *SPEC.request]
    asked = pd.DataFrame({c: events[c].sample(rows, random_state=seed + i).to_numpy() for i, c in enumerate(columns)})
    for column in SPEC.request:
        asked[column] = pd.DatetimeIndex(asked[column], tz="UTC").as_unit("us")
    asked["network"] = "all"
    seconds = random.integers(0, int((end - START) / pd.Timedelta(seconds=1)), rows)
    asked["event_timestamp"] = START + pd.to_timedelta(seconds, unit="s")
    exact = random.random(rows) < 0.3
    asked.loc[exact, "event_timestamp"] = events["event_timestamp"].sample(int(exact.sum()), random_state=1).to_numpy()
    asked["event_timestamp"] = pd.DatetimeIndex(asked["event_timestamp"]).as_unit("us")
    unseen = {"origin": "ZZZ", "carrier": "Z9", "dest": "QQQ", "route": "ZZZ-QQQ", "tailnum": "N0", "network": "none"}
    for column, value in unseen.items():
        asked.loc[random.random(rows) < 0.08, column] = value
    return asked


def test_history_asked_for_at_any_moment_holds_nothing_later(
    world: World, oracle: Oracle, events: pd.DataFrame
) -> None:
    asked = moments_and_keys(events, world.end, 60, seed=11)
    found = with_features(world.store, SPEC, asked)
    names = [*FEATURES, "year_built"]
    wrong = []
    for row in found.to_dict("records"):
        expected = oracle.features(row, row["event_timestamp"])
        wrong += [f"{row['event_timestamp']} {d}" for d in differences(expected, row, names)]
    assert len(found) * len(names) >= 2000
    assert wrong == []


def test_a_message_counts_from_the_microsecond_it_was_known(world: World, oracle: Oracle) -> None:
    tails = oracle.outcomes[oracle.outcomes["kind"] == "arrival"].dropna(subset=["tailnum"])
    message = tails.sample(1, random_state=3).iloc[0]
    event = dict.fromkeys(SPEC.entities, "none") | {"tailnum": message["tailnum"], "origin_hour": "JFK|2013-01-05T10"}
    times = [message["known_at"] - pd.Timedelta(1, "us"), message["known_at"]]
    event |= {"sched_dep": times[1], "sched_arr": times[1]}
    asked = pd.DataFrame([event | {"event_timestamp": moment} for moment in times])
    found = with_features(world.store, SPEC, asked)["tail_last_3d"]
    expected = [oracle.features(event, moment)["tail_last_3d"] for moment in times]
    assert found.astype(object).where(found.notna(), None).tolist() == expected
    assert expected[0] != expected[1] == message["delay"]


def test_online_features_equal_historical_ones_at_the_end_of_the_last_day(world: World, events: pd.DataFrame) -> None:
    asked = moments_and_keys(events, world.end, 500, seed=5)
    asked["event_timestamp"] = world.end.as_unit("us")
    names = [name for name in FEATURES if name != "origin"]
    historical = with_features(world.store, SPEC, asked)
    given = {column: asked[column].tolist() for column in (*SPEC.entities, *SPEC.request)}
    online = FeatureReader(world.store, SPEC).read(given, _plain(world.end))
    wrong, nulls = [], 0
    for i, row in enumerate(historical.to_dict("records")):
        have = {name: online.columns[name][i] for name in names}
        nulls += sum(_null(row[name]) for name in names)
        wrong += [f"row {i} {d}" for d in differences(row, have, names)]
    assert wrong == []
    assert 0 < nulls < len(asked) * len(names) / 2
    assert {reason for _, reason in online.absent} == {"missing", "expired"}


def _plain(moment: pd.Timestamp) -> datetime:
    return moment.to_pydatetime()


# -- Training sets


# So impatient for labels that many of them only arrive after the training set is taken.
HASTY = SPEC.model_copy(
    update={"label": SPEC.label.model_copy(update={"delay": timedelta(hours=4), "max_unlabelled": 1.0})}
)


def snapshot_of(home: Path, as_of: pd.Timestamp, digest: str | None = None, spec: ModelSpec = SPEC) -> TrainingSet:
    """A training set; with another digest than the scored rows carry, its features are joined anew."""
    store = feature_store(home)
    views = service_versions(store, SPEC.feature_service)
    versions = FeatureVersions(views, digest or versions_digest(views))
    return build_training_set(Lake(home), store, spec, as_of, START, versions)


def rows_of(home: Path, snapshot: TrainingSet) -> pd.DataFrame:
    """All rows that a snapshot keeps, those under the embargo too."""
    blocks = [home / "training_sets" / "rows" / f"{digest}.parquet" for digest in snapshot.blocks]
    return pd.concat([pq.read_table(path).to_pandas() for path in blocks], ignore_index=True)


@pytest.fixture
def joins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts how often features were joined anew."""
    done: list[str] = []
    join: Callable[..., pd.DataFrame] = module.with_features
    monkeypatch.setattr(module, "with_features", lambda *args: (done.append("joined"), join(*args))[1])
    return done


def test_a_training_set_of_the_scored_features_equals_one_joined_anew(world: World, joins: list[str]) -> None:
    fast = snapshot_of(world.home, world.end)
    assert joins == []
    anew = snapshot_of(world.home, world.end, digest="another definition")
    assert joins == ["joined"]
    assert fast.digest == anew.digest
    assert fast.train_rows > 1000
    assert fast.holdout_rows > 1000


def test_events_that_were_never_scored_are_joined_anew(world: World, joins: list[str], tmp_path: Path) -> None:
    home = first_days(world.home, tmp_path / "home", "2013-01-12")
    whole = snapshot_of(home, world.end)
    manifest = Path(home / "lake" / SPEC.name / "scored" / "manifest.json")
    content = json.loads(manifest.read_text())
    kept = [entry for entry in content["files"] if entry["partition"] not in ("2013-01-04", "2013-01-07")]
    assert len(kept) == len(content["files"]) - 2
    manifest.write_text(json.dumps(content | {"files": kept}))
    assert joins == []
    assert snapshot_of(home, world.end).digest == whole.digest
    assert joins == ["joined"]


def test_a_weight_of_the_events_comes_with_the_examples_that_were_scored_without_it(
    world: World, joins: list[str], tmp_path: Path
) -> None:
    events = SPEC.events.model_copy(
        update={"sql": f"SELECT *, length(dest || carrier) AS own FROM ({SPEC.events.sql})"}
    )
    weighted = SPEC.model_copy(update={"events": events, "weight": "own"})
    home = shutil.copytree(world.home, tmp_path / "home")
    snapshot = snapshot_of(home, world.end, spec=weighted)
    rows = rows_of(home, snapshot)
    assert not joins
    assert (rows["own"] == 3 + rows["carrier"].str.len()).all()
    plain = snapshot_of(home, world.end)
    same = rows_of(home, plain)
    pd.testing.assert_frame_equal(rows.drop(columns="own"), same)
    wrong = SPEC.model_copy(update={"weight": "carier"})
    with pytest.raises(
        ValueError, match="weight: unknown column of the events or input 'carier', did you mean 'carrier'"
    ):
        snapshot_of(home, world.end, spec=wrong)


def test_what_became_known_later_changes_no_training_set(world: World, joins: list[str], tmp_path: Path) -> None:
    as_of = START + 9 * DAY
    smaller = first_days(world.home, tmp_path / "smaller", "2013-01-09")
    for spec in (SPEC, HASTY):
        later, then = (snapshot_of(home, as_of, spec=spec) for home in (world.home, smaller))
        assert then.digest == later.digest
        anew = snapshot_of(smaller, as_of, digest="another definition", spec=spec)
        assert anew.digest == later.digest
    assert len(joins) == 2
    assert snapshot_of(world.home, world.end).digest != snapshot_of(world.home, as_of).digest


@pytest.mark.parametrize("spec", [SPEC, HASTY], ids=["patient", "hasty"])
def test_the_labels_of_a_training_set_were_known_and_are_right(world: World, oracle: Oracle, spec: ModelSpec) -> None:
    as_of = START + 9 * DAY
    snapshot = snapshot_of(world.home, as_of, spec=spec)
    rows = rows_of(world.home, snapshot)
    arrived = oracle.outcomes[(oracle.outcomes["kind"] == "arrival") & (oracle.outcomes["known_at"] <= as_of)]
    late = (arrived.set_index("flight_id")["delay"] > 15).astype("int8")
    assert (rows["label"].to_numpy() == late.loc[rows["flight_id"]].to_numpy()).all()
    due = oracle.flights[oracle.flights["sched_dep"] - 2 * HOUR < as_of - spec.label.delay]
    due = due[due["sched_dep"] - 2 * HOUR >= START]
    # The hasty model leaves out flights that are still under way.
    assert (len(rows) < 0.99 * len(due)) == (spec is HASTY)
    assert sorted(rows["flight_id"]) == sorted(set(due["flight_id"]) & set(late.index))


def test_another_sql_is_another_version_of_its_view_alone(world: World, tmp_path: Path) -> None:
    home = first_days(world.home, tmp_path / "home", "2013-01-02")
    store = feature_store(home)
    before = service_versions(store, SPEC.feature_service)
    assert before == service_versions(feature_store(world.home), SPEC.feature_service)
    Lake(home).dataset("features/weather").note_definition("another")
    after = service_versions(store, SPEC.feature_service)
    assert {view for view in before if before[view] != after[view]} == {"weather"}
    assert FeatureSql("SELECT 1", ()).digest == FeatureSql("\n    SELECT 1\n", ()).digest
    assert FeatureSql("SELECT 'a b'", ()).digest != FeatureSql("SELECT 'a  b'", ()).digest


# -- Outcomes


def outcomes(home: Path) -> pd.DataFrame:
    name = f"{SPEC.name}/performance"
    rows = Lake(home).query(f'SELECT * FROM "{name}"', {name: Window()}, START + 100 * DAY).to_pandas()
    return rows.sort_values("flight_id", ignore_index=True)


def judge_day(home: Path, day: str) -> None:
    save_outcomes(Lake(home), SPEC, day)


@pytest.mark.parametrize("late_days", [("2013-01-06",), ("2013-01-06", "2013-01-07")], ids=len)
def test_a_day_that_is_scored_late_loses_no_outcome(world: World, tmp_path: Path, late_days: tuple[str, ...]) -> None:
    home = first_days(world.home, tmp_path / "home", "2013-01-12")
    whole = outcomes(home)
    assert whole["flight_id"].is_unique
    scored = home / "lake" / SPEC.name / "scored" / "manifest.json"
    manifest, content = scored.read_bytes(), json.loads(scored.read_text())
    days = sorted({entry["partition"] for entry in content["files"]})
    early = [entry for entry in content["files"] if entry["partition"] not in late_days]
    scored.write_text(json.dumps(content | {"files": early}))
    (home / "lake" / SPEC.name / "performance" / "manifest.json").unlink()
    for day in days:
        if day not in late_days:
            judge_day(home, day)
    assert 0 < len(outcomes(home)) < len(whole)
    scored.write_bytes(manifest)
    for day in [*late_days, "2013-01-08", "2013-01-07", *days]:
        judge_day(home, day)
        now = outcomes(home)
        assert now["flight_id"].is_unique
    pd.testing.assert_frame_equal(now, whole)


def first_days(home: Path, target: Path, last: str) -> Path:
    """A copy of a home's lake that has seen nothing after `last`."""
    shutil.copytree(home / "lake", target / "lake")
    for manifest in (target / "lake").rglob("manifest.json"):
        content = json.loads(manifest.read_text())
        kept = [f for f in content["files"] if f["partition"] == "all" or f["partition"] <= last]
        manifest.write_text(json.dumps(content | {"files": kept}))
        for path in manifest.parent.glob("*/*.parquet"):
            if str(path.relative_to(manifest.parent)) not in {f["path"] for f in kept}:
                path.unlink()
    return target
