"""Checks of what a deployment stands on: its home, its landing folders, its clock and its stores."""

import fcntl
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pandas as pd

from ct_assets.core.ledger import Ledger, LedgerError
from ct_assets.core.strict import unknown
from ct_assets.lake.contract import Source
from ct_assets.lake.landing import Landing
from ct_assets.lib.diagnosis.finding import CannotTellError, Finding
from ct_assets.lib.partitions import arrival_partitions
from ct_assets.resources.feast import applied_definitions, definitions_digest

ENOUGH_BYTES = 1_000_000_000
STALE_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class Deployment:
    """What the checks look at.

    Attributes:
        home: `$CT_HOME`.
        sources: Contracts by name.
        tracking_uri: Where MLflow keeps runs and versions.
        now: The wall clock.
    """

    home: Path
    sources: Mapping[str, Source]
    tracking_uri: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def home_can_be_written(deployment: Deployment) -> Iterator[Finding]:
    """Files can be created under the home."""
    probe = deployment.home / f".{uuid.uuid4().hex[:8]}"
    try:
        deployment.home.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        remedy = "give this user the right to write there, or set CT_HOME to another folder"
        yield Finding("error", "home", str(deployment.home), f"{error.strerror}", "a folder to write to", remedy)


def disk_has_room(deployment: Deployment) -> Iterator[Finding]:
    """There is room for the next batches."""
    if not deployment.home.exists():
        raise CannotTellError("there is no home yet")
    free = shutil.disk_usage(deployment.home).free
    if free < ENOUGH_BYTES:
        told = f"{free / 1e6:,.0f} MB left"
        remedy = "free some: archive/ holds files that the lake holds as well"
        yield Finding("warning", "disk", str(deployment.home), told, f"{ENOUGH_BYTES / 1e9:g} GB", remedy)


def landing_is_known(deployment: Deployment) -> Iterator[Finding]:
    """Everything in landing belongs to a source and lies where it is taken in."""
    landing = deployment.home / "landing"
    for folder in sorted(landing.glob("[!._]*")):
        where = f"landing/{folder.name}"
        if folder.is_file():
            remedy = "move it to landing/<source>/<day>/"
            yield Finding("warning", "landing", where, "a file in no source's folder", remedy=remedy)
        elif folder.name not in deployment.sources:
            told = f"nothing takes it in: {unknown('source', folder.name, deployment.sources)}"
            yield Finding("warning", "landing", where, told, remedy="rename the folder, or add the source")
        else:
            yield from _misplaced(folder, deployment.sources[folder.name])


def _misplaced(folder: Path, source: Source) -> Iterator[Finding]:
    days = arrival_partitions(source.domain)
    first, last = days.get_first_partition_key(), days.get_last_partition_key()
    expected = (
        f"landing/{source.name}/<day>/<file> with a day from {first} to {last}"
        if source.daily
        else f"landing/{source.name}/<file>, as it is a reference table"
    )
    for entry in sorted(folder.glob("[!._]*")):
        in_place = entry.is_dir() and days.has_partition_key(entry.name) if source.daily else entry.is_file()
        if not in_place:
            yield Finding("warning", "landing", f"landing/{source.name}/{entry.name}", "", expected, "move it there")
    for name in Landing(folder.parents[1], replace(source, landing="")).strays() if source.daily else ():
        # What lies beside the days' folders has been told.
        if "/" in name:
            remedy = "remove it, or put a file or a link to one there"
            yield Finding("warning", "landing", f"landing/{source.name}/{name}", "it is no file", remedy=remedy)


def nothing_is_left_over(deployment: Deployment) -> Iterator[Finding]:
    """No lock is held, and no file is half written since long."""
    for name in ("feast/.lock", "ledger/decisions.jsonl"):
        path = deployment.home / name
        if path.exists() and _is_held(path):
            remedy = "fine while a run is active; otherwise look for a process that hangs, which its end releases"
            yield Finding("warning", "locks", name, "a process holds its lock", "a free lock", remedy)
    limit = (deployment.now() - STALE_AFTER).timestamp()
    for area in ("lake", "releases", "verdicts", "training_sets"):
        for path in sorted((deployment.home / area).rglob(".*.????????")):
            if path.is_file() and path.stat().st_mtime < limit:
                where = str(path.relative_to(deployment.home))
                remedy = "delete it: nothing reads it"
                yield Finding("warning", "left over", where, "half written, by a process that ended", remedy=remedy)


def _is_held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def clock_goes_forward(deployment: Deployment) -> Iterator[Finding]:
    """The wall clock is not behind what was recorded already, and the ledger can be read."""
    path = deployment.home / "ledger" / "decisions.jsonl"
    if not path.exists():
        raise CannotTellError("nothing was decided yet")
    try:
        ledger = Ledger(path)
        ledger.verify()
    except LedgerError as error:
        remedy = "restore the ledger from a copy: what it says cannot be trusted"
        yield Finding("error", "ledger", "ledger/decisions.jsonl", str(error), "an unbroken chain", remedy)
        return
    newest = max((pd.Timestamp(record.recorded_at) for record in ledger.records()), default=None)
    if newest is not None and newest > pd.Timestamp(deployment.now()):
        told = f"{deployment.now():%Y-%m-%d %H:%M:%S} UTC, and a decision was recorded at {newest:%Y-%m-%d %H:%M:%S}"
        yield Finding("error", "clock", "system clock", told, "a clock that goes forward", "set it (NTP)")


def mlflow_answers(deployment: Deployment) -> Iterator[Finding]:
    """MLflow's store can be read."""
    where, scheme = deployment.tracking_uri, urlsplit(deployment.tracking_uri).scheme
    if scheme == "sqlite":
        yield from _database("MLflow", Path(where.removeprefix("sqlite:///")))
    elif scheme in ("http", "https"):
        try:
            with urlopen(f"{where.rstrip('/')}/health", timeout=3):
                return
        except (URLError, OSError) as error:
            remedy = "start it, or mend MLFLOW_TRACKING_URI"
            yield Finding("error", "MLflow", where, f"no answer ({error})", "an MLflow server", remedy)
    else:
        raise CannotTellError(f"a {scheme or 'local'} store is not looked at")


def feast_is_current(deployment: Deployment) -> Iterator[Finding]:
    """Feast's stores can be read, and its registry holds the definitions of the code."""
    for name in ("registry.db", "online.db"):
        yield from _database("Feast", deployment.home / "feast" / name)
    applied = applied_definitions(deployment.home)
    if applied is None:
        raise CannotTellError("no definitions were applied yet")
    if applied != definitions_digest():
        told = "the registry holds other definitions than the code"
        remedy = "the next run applies them; servers refuse releases that were trained on other definitions"
        yield Finding("warning", "Feast", "feast/registry.db", told, "those of the code", remedy)


def _database(what: str, path: Path) -> Iterator[Finding]:
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=3)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        remedy = "end what holds it, or restore it from a copy"
        yield Finding("error", what, str(path), str(error), "a database that can be read", remedy)


DEPLOYMENT_CHECKS: Mapping[str, Callable[[Deployment], Iterator[Finding]]] = {
    "home": home_can_be_written,
    "disk": disk_has_room,
    "landing": landing_is_known,
    "left over": nothing_is_left_over,
    "clock": clock_goes_forward,
    "MLflow": mlflow_answers,
    "Feast": feast_is_current,
}
