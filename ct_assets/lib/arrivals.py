"""The arrival sensor: it reports what has landed and which partitions are closed, and decides nothing."""

import json
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import dagster as dg
import pandas as pd

from ct_assets.lake.contract import Domain, Source
from ct_assets.lake.landing import Landing
from ct_assets.lib.closing import closed_through, closing_event, closings, late_closings
from ct_assets.lib.partitions import arrival_partitions, next_partition
from ct_assets.lib.sources import landing_key
from ct_assets.resources.lake import LakeResource

PROGRESS = ""
"""Entry of the cursor, which no source is named like, that says when a file was last taken in."""
SETTLE_SECONDS = 1.0
"""A file younger than this may still be written to, unless it looks the same at two looks."""

MOST_NAMES = 20
"""Of files that a warning names; the rest is counted."""


def build_arrival_sensor(
    domain: Domain, sources: Sequence[Source], minimum_interval_seconds: int = 10
) -> dg.SensorDefinition:
    """A sensor that reports each landed file of a domain once as a materialization of its landing folder, and each
    arrival partition that is closed as one of the domain's calendar.

    Its cursor holds one entry for each file that lies in landing at the moment, and ingested files leave landing, so
    it stays as small as the backlog.
    """

    @dg.sensor(
        name=f"{domain.name}_arrivals",
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports files that have landed whole, and arrival partitions that are closed.",
    )
    def arrivals(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
        seen: dict[str, dict[str, str]] = json.loads(context.cursor or "{}")
        now: dict[str, dict[str, str]] = {}
        events, misplaced, strays = [], [], []
        for source in sources:
            before = seen.get(source.name, {})
            landing = Landing(lake.path, source)
            try:
                states = _look(landing, before)
                strays += [f"{source.name}/{name}" for name in landing.strays()]
                # A file that is early counts as not settled until its partition begins.
                now[source.name] = {n: s.rstrip("+") if _is_early(source, n) else s for n, s in states.items()}
            except Exception as error:
                # A bucket that cannot be reached must not hide what has landed elsewhere.
                context.log.error(
                    f"landing of {source.name} cannot be looked at ({error!r}); the next look tries again"
                )
                now[source.name] = before
            landed = _landed(before, now[source.name])
            misplaced += [f"{source.name}/{name}" for name in landed if not _in_place(source, name)]
            events += _news(source, {name: state for name, state in landed.items() if _in_place(source, name)})
        for warning in _not_taken_in(domain, misplaced, strays):
            context.log.warning(warning)
        waiting: dict[str, list[str]] = {}
        for source in sources:
            for name in now[source.name] if source.daily else ():
                if _in_place(source, name):
                    waiting.setdefault(name.split("/")[0], []).append(f"{source.name}/{name}")
        clock = pd.Timestamp.now("UTC")
        moved = any(set(seen.get(source.name, {})) - set(now[source.name]) for source in sources)
        last = seen.get(PROGRESS, {}).get("at")
        taken_in = clock if moved or not waiting or last is None else pd.Timestamp(last)
        if waiting:
            now[PROGRESS] = {"at": taken_in.isoformat()}
        stuck = waiting if clock - taken_in >= domain.closes_after else {}
        if stuck:
            context.log.warning(
                f"nothing of {domain.name} was taken in since {taken_in.isoformat()}; in landing lie "
                f"{', '.join(file for files in stuck.values() for file in files)}, which no longer hold the closing of "
                "their partitions back: see the runs that failed, or remove what is no file of the source"
            )
        after = closed_through(context.instance, domain)
        # First: the newest report says which partition is the newest closed one.
        late = late_closings(context.instance, lake.lake(), sources, waiting, after)
        events += [closing_event(domain, closing, newest=after) for closing in late]
        closed = closings(lake.lake(), sources, waiting, after, clock, stuck)
        events += [closing_event(domain, closing) for closing in closed]
        return dg.SensorResult(cursor=json.dumps(now), asset_events=events)

    return arrivals


def unreachable(home: Path, sources: Sequence[Source]) -> list[str]:
    """What lies in landing and nothing ever takes in, in words that say what to do; a message a domain.

    Args:
        home: `$CT_HOME`.
        sources: All of them.
    """
    warnings: list[str] = []
    for domain in dict.fromkeys(source.domain for source in sources):
        misplaced, strays = [], []
        for source in (each for each in sources if each.domain == domain):
            landing = Landing(home, source)
            try:
                strays += [f"{source.name}/{name}" for name in landing.strays()]
                files = [n for n in landing.files() if not _in_place(source, n) and not _is_early(source, n)]
            except Exception as error:
                warnings.append(f"landing of {source.name} cannot be looked at ({error!r}): fix its place")
                continue
            misplaced += [f"{source.name}/{name}" for name in files]
        warnings += _not_taken_in(domain, misplaced, strays)
    places = {source.name for source in sources if not source.landing}
    unknown = sorted(path.name for path in (home / "landing").glob("[!._]*") if path.name not in places)
    if unknown:
        warnings.append(
            f"not taken in, as they belong to no source: {_named(unknown)} in {home / 'landing'}; expected a folder of "
            f"{', '.join(sorted(places))}: move these"
        )
    return warnings


def _not_taken_in(domain: Domain, misplaced: Sequence[str], strays: Sequence[str]) -> Iterator[str]:
    if misplaced:
        days = arrival_partitions(domain)
        yield (
            f"not taken in, as they lie in no folder of an arrival day: {_named(misplaced)}; expected "
            f"landing/<source>/<day>/<file> with a day from {days.get_first_partition_key()} to "
            f"{days.get_last_partition_key()}, or landing/<source>/<file> for a reference table: move them"
        )
    if strays:
        yield f"not taken in, not being files: {_named(strays)}; expected files or links to them: remove these"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{more}"


def _look(landing: Landing, before: dict[str, str]) -> dict[str, str]:
    """State of every file that lies there: its size and time of change, marked `+` once it has settled."""
    states = {}
    for name, info in landing.files().items():
        changed = info.get("mtime") or info.get("LastModified") or info.get("created") or 0
        changed = changed.timestamp() if hasattr(changed, "timestamp") else float(changed)
        state = f"{info['size']}@{changed:.6f}"
        settled = before.get(name, "").rstrip("+") == state or time.time() - changed >= SETTLE_SECONDS
        states[name] = state + "+" if settled else state
    return states


def _landed(before: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """The files that have settled since the last look."""
    return {name: state for name, state in now.items() if state.endswith("+") and before.get(name) != state}


def _in_place(source: Source, name: str) -> bool:
    """Whether a file lies where its source's batches are taken in from."""
    *folders, _ = name.split("/")
    if not source.daily:
        return not folders
    return len(folders) == 1 and arrival_partitions(source.domain).has_partition_key(folders[0])


def _is_early(source: Source, name: str) -> bool:
    """Whether a file lies in the folder of the next partition, which a sender whose clock is ahead has begun."""
    *folders, _ = name.split("/")
    if not source.daily or len(folders) != 1 or source.domain.last_day or _in_place(source, name):
        return False
    return folders[0] == next_partition(source.domain.partition_of(pd.Timestamp.now("UTC")))


def _news(source: Source, landed: dict[str, str]) -> list[dg.AssetMaterialization]:
    """One event per partition with files that have landed."""
    files: dict[str | None, list[str]] = {}
    for name, state in landed.items():
        files.setdefault(name.split("/")[0] if source.daily else None, []).append(f"{name} {state}")
    return [
        dg.AssetMaterialization(
            landing_key(source),
            partition=partition,
            metadata={"files": len(names)},
            tags={"dagster/data_version": sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()[:32]},
        )
        for partition, names in sorted(files.items(), key=lambda item: item[0] or "")
    ]
