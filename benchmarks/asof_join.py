"""Claim: point-in-time joins by our ASOF store are at least five times as fast as by Feast's own stores, and equal.

The peers are Feast's `dask` store, its default for files, and its `duckdb` store where `ibis` is installed (it is not
in the lock). All read the same Parquet files through the same Feast definitions.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from benchmarks._claim import Claim, Figure, alternating, publish, table
from ct_assets.demo.driving import quiet

GOAL_RATIO = 5.0
OURS = "ct_assets.stores.asof_duckdb.AsofDuckDBOfflineStore"
PEERS = {"dask": "dask", "duckdb": "ibis"}
"""Feast's stores, each with the module that it needs beyond the lock's."""
VIEWS, FEATURES_PER_VIEW = 3, 5
ROWS_PER_KEY = 200
UNKNOWN_KEYS = 5
DAYS = 90
FIRST_DAYS = 10
"""No entity row lies in these, so every known key has a row within the ttl: where there is history but none within the
ttl, Feast's dask store drops the entity row instead of giving nulls."""
TTL = timedelta(days=7)
DAY = 86_400_000_000
"""In microseconds."""
START = pd.Timestamp("2013-01-01", tz="UTC")


def write_history(folder: Path, rows: int, seed: int = 1) -> None:
    """One Parquet file a view, `rows` in all: a key, a moment to the microsecond, when it was known, the features."""
    random = np.random.default_rng(seed)
    for view in range(VIEWS):
        count = rows // VIEWS
        moments = START + pd.to_timedelta(np.sort(random.integers(0, DAYS * DAY, count)), unit="us")
        frame = pd.DataFrame(
            {
                "key": random.integers(0, _keys(rows), count),
                "event_timestamp": moments.as_unit("us"),
                "created": moments.as_unit("us"),
                **{f"v{view}_f{i}": random.normal(size=count) for i in range(FEATURES_PER_VIEW)},
            }
        )
        frame.to_parquet(folder / f"v{view}.parquet", index=False)


def entity_rows(count: int, history: int, seed: int = 2) -> pd.DataFrame:
    """Keys and moments to look up in `history` feature rows; some keys have none."""
    random = np.random.default_rng(seed)
    moments = START + pd.to_timedelta(random.integers(FIRST_DAYS * DAY, DAYS * DAY, count), unit="us")
    keys = random.integers(0, _keys(history) + UNKNOWN_KEYS, count)
    return pd.DataFrame({"row": range(count), "key": keys, "event_timestamp": moments.as_unit("us")})


def _keys(history: int) -> int:
    return max(history // VIEWS // ROWS_PER_KEY, 1)


def open_store(folder: Path, kind: str) -> Any:
    """A Feast store over the files in `folder`, with an offline store of type `kind`."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Float64, Int64
    from feast.value_type import ValueType

    home = folder / kind.rpartition(".")[2]
    home.mkdir()
    config = RepoConfig(
        project="benchmark",
        provider="local",
        repo_path=home,
        registry={"registry_type": "sql", "path": f"sqlite:///{home}/registry.db"},
        offline_store={"type": kind},
        online_store={"type": "sqlite", "path": str(home / "online.db")},
        entity_key_serialization_version=3,
    )
    key = Entity(name="key", join_keys=["key"], value_type=ValueType.INT64)
    views = [
        FeatureView(
            name=f"v{view}",
            entities=[key],
            ttl=TTL,
            schema=[Field(name="key", dtype=Int64)]
            + [Field(name=f"v{view}_f{i}", dtype=Float64) for i in range(FEATURES_PER_VIEW)],
            source=FileSource(
                name=f"v{view}",
                path=str(folder / f"v{view}.parquet"),
                timestamp_field="event_timestamp",
                created_timestamp_column="created",
            ),
        )
        for view in range(VIEWS)
    ]
    store = FeatureStore(config=config)
    store.apply([key, *views])
    return store


def retrieve(store: Any, entities: pd.DataFrame) -> pd.DataFrame:
    """All features of every entity row, in the order of the rows."""
    names = [f"v{view}_f{i}" for view in range(VIEWS) for i in range(FEATURES_PER_VIEW)]
    refs = [f"{name.partition('_')[0]}:{name}" for name in names]
    found = store.get_historical_features(entities, refs, filter_by_created_timestamp=True).to_df()
    return found.sort_values("row", ignore_index=True)[["row", *names]]


def measure(rows: int, history: int, repetitions: int) -> tuple[Claim, list[Table]]:
    """Join `rows` entity rows with `history` feature rows by every store that there is, turn by turn."""
    quiet()
    entities = entity_rows(rows, history)
    seconds: dict[str, list[float]] = defaultdict(list)
    checksums: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="ct-bench-") as folder:
        write_history(Path(folder), history)
        peers = [name for name, module in PEERS.items() if find_spec(module)]
        stores = {"asof": open_store(Path(folder), OURS)} | {name: open_store(Path(folder), name) for name in peers}
        for store in stores.values():
            retrieve(store, entities.head(10))
        for name in alternating(list(stores), repetitions):
            started = time.perf_counter()
            found = retrieve(stores[name], entities)
            seconds[name].append(time.perf_counter() - started)
            checksums[name] = _checksum(found)
    return _claim({name: statistics.median(s) for name, s in seconds.items()}, checksums, found, history)


def _checksum(found: pd.DataFrame) -> str:
    hashes = pd.util.hash_pandas_object(found.astype("float64"), index=False).to_numpy()
    return f"{int(np.bitwise_xor.reduce(hashes)):016x}"


def _claim(
    medians: dict[str, float], checksums: dict[str, str], found: pd.DataFrame, history: int
) -> tuple[Claim, list[Table]]:
    ratios = {name: seconds / medians["asof"] for name, seconds in medians.items() if name != "asof"}
    equal = len(set(checksums.values())) == 1
    figures: dict[str, Figure] = {
        "entity_rows": len(found),
        "feature_rows": history,
        "features": VIEWS * FEATURES_PER_VIEW,
        "share_found": round(float(found.notna().mean().mean()), 3),
        **{f"{name}_seconds": round(seconds, 4) for name, seconds in medians.items()},
        **{f"{name}_ratio": round(ratio, 1) for name, ratio in ratios.items()},
        "equal": equal,
    }
    lines: list[tuple[object, ...]] = [("ours (asof)", medians["asof"], 1.0, checksums["asof"])]
    for name, module in PEERS.items():
        if name in ratios:
            lines.append((f"feast {name}", medians[name], ratios[name], checksums[name]))
        else:
            lines.append((f"feast {name}", f"{module} is not installed", None, None))
    shown = table(
        f"{len(found):,} entity rows, {VIEWS * FEATURES_PER_VIEW} features, {history:,} feature rows",
        ("store", "seconds", "times ours", "checksum"),
        lines,
    )
    goal = f"every peer's ratio >= {GOAL_RATIO:g}, with equal answers"
    return Claim("asof_join", figures, goal, equal and min(ratios.values()) >= GOAL_RATIO), [shown]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--history", type=int, default=300_000)
    parser.add_argument("--repetitions", type=int, default=5)
    chosen = parser.parse_args()
    publish(*measure(chosen.rows, chosen.history, chosen.repetitions))
