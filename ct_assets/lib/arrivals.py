"""The arrival sensor: it tells Dagster what has landed, and decides nothing."""

import json
import time
from collections.abc import Sequence
from hashlib import sha256

import dagster as dg
from fsspec.core import url_to_fs

from ct_assets.lake.contract import Source
from ct_assets.lib.sources import landing_key
from ct_assets.resources.lake import LakeResource

SETTLE_SECONDS = 1.0
"""A file younger than this may still be written to, unless it looks the same at two looks."""


def build_arrival_sensor(sources: Sequence[Source], minimum_interval_seconds: int = 10) -> dg.SensorDefinition:
    """A sensor that reports each landed file once as a materialization of its landing folder.

    Its cursor holds one entry for each file that lies in landing at the moment, and ingested files leave landing, so
    it stays as small as the backlog.
    """

    @dg.sensor(
        name="arrivals",
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports files that have landed whole.",
    )
    def arrivals(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
        seen: dict[str, dict[str, str]] = json.loads(context.cursor or "{}")
        now: dict[str, dict[str, str]] = {}
        events = []
        for source in sources:
            before = seen.get(source.name, {})
            now[source.name] = _look(f"{lake.path}/landing/{source.name}", before)
            events += _news(source, before, now[source.name])
        return dg.SensorResult(cursor=json.dumps(now), asset_events=events)

    return arrivals


def _look(folder: str, before: dict[str, str]) -> dict[str, str]:
    """State of every file below `folder`: its size and time of change, marked `+` once it has settled."""
    fs, root = url_to_fs(folder)
    if not fs.exists(root):
        return {}
    found: dict[str, dict] = fs.find(root, detail=True)
    states = {}
    for path, info in sorted(found.items()):
        name = path[len(root) :].lstrip("/")
        if any(part.startswith((".", "_")) for part in name.split("/")):
            continue
        changed = info.get("mtime") or info.get("LastModified") or info.get("created") or 0
        changed = changed.timestamp() if hasattr(changed, "timestamp") else float(changed)
        state = f"{info['size']}@{changed:.6f}"
        settled = before.get(name, "").rstrip("+") == state or time.time() - changed >= SETTLE_SECONDS
        states[name] = state + "+" if settled else state
    return states


def _news(source: Source, before: dict[str, str], now: dict[str, str]) -> list[dg.AssetMaterialization]:
    """One event per partition with files that have settled since the last look."""
    landed: dict[str | None, list[str]] = {}
    for name, state in now.items():
        if state.endswith("+") and before.get(name) != state:
            landed.setdefault(name.split("/")[0] if source.daily and "/" in name else None, []).append(
                f"{name} {state}"
            )
    return [
        dg.AssetMaterialization(
            landing_key(source),
            partition=partition,
            metadata={"files": len(files)},
            tags={"dagster/data_version": sha256("\n".join(files).encode()).hexdigest()[:32]},
        )
        for partition, files in sorted(landed.items(), key=lambda item: item[0] or "")
        if source.daily == (partition is not None)
    ]
