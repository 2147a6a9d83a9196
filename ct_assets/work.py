"""`ct land` and `ct run`: a file's days put into landing, and all that they bring about worked off without a daemon."""

import hashlib
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.markup import escape

from ct_assets.lake.columns import Content
from ct_assets.lake.contract import Source, contract_breaches
from ct_assets.lake.dataset import WHOLE, Dataset
from ct_assets.lake.formats import UnreadableError, read
from ct_assets.lake.ingest import judge
from ct_assets.lake.lake import Lake
from ct_assets.lake.landing import Landing
from ct_assets.lake.periods import next_partition
from ct_assets.lake.split import days_of, split_by_day

if TYPE_CHECKING:
    import dagster as dg

    from ct_assets.lib.driver import Driver

_LONGEST_STEM = 40
"""Characters of a file's own name that its days are called by."""
_UNFINISHED = "._"
"""A name that begins so is that of a file that is still being written."""


@dataclass(frozen=True)
class Taken:
    """What became of a file's days.

    Attributes:
        landed: How many were put into landing.
        known: How many had been accepted before with just these rows, and were left out.
        silent: How many days between its first and last have no rows, and are not reported as such.
    """

    landed: int
    known: int
    silent: int = 0


@dataclass(frozen=True)
class Prepared:
    """A file that keeps its contract, cut into what is to land.

    Attributes:
        source: What it belongs to.
        parts: Name and bytes of what is to land, by partition.
        known: How many partitions had been accepted before with just these rows.
        silent: How many days between have no rows, and no file of their own.
        rows: Of the file.
    """

    source: Source
    parts: Mapping[str, tuple[str, bytes]]
    known: int
    silent: int
    rows: pa.Table

    def land(self, home: Path) -> Taken:
        """Put it into the landing place."""
        landing = Landing(home, self.source)
        for partition, (name, part) in self.parts.items():
            landing.write(partition, name, part)
        return Taken(len(self.parts), self.known, self.silent)


def land(home: Path, source: Source, file: Path) -> Taken:
    """Put a file into the landing place, day by day of `known_at`; see `prepare`."""
    return prepare(home, source, file).land(home)


def prepare(home: Path, source: Source, file: Path) -> Prepared:
    """Hold a file against its contract and cut it by the day of `known_at`; nothing lands yet.

    What is the same is told by content and never by name: exports of every month are often called alike, and so is a
    file that was fixed after a rejection.

    Args:
        home: `$CT_HOME`.
        source: What the file belongs to.
        file: A file of the source's format, with rows of any number of days. A day without rows between two others is
            one on which nothing happened, and gets a file without rows if the source allows it by `min_rows=0`.

    Raises:
        UnreadableError: The file is not what the source sends.
        ValueError: There are no rows, or they break the contract, or one lies outside of the source's days.
    """
    payload = file.read_bytes()
    with _named(file):
        content = read(source, payload)
    if content.found and not content.table.num_rows and not content.breaches:
        raise ValueError(f"{file} has no rows; expected at least one")
    lake = Lake(home)
    accepted = lake.dataset(source.name)
    if source.daily:
        with _named(file):
            days = days_of(content, source.domain.cadence)
        _refuse_other_days(source, file, sorted(set(days.tolist())))
        _refuse(file, source, _broken_days(source, content, days))
        gaps = _gaps(accepted, days)
        with _named(file):
            parts = split_by_day(source, payload, gaps if source.min_rows == 0 else ())
    else:
        _refuse(file, source, contract_breaches(source, content))
        parts, gaps = {WHOLE: payload}, []
    digests = {partition: hashlib.sha256(part).hexdigest() for partition, part in parts.items()}
    held = {partition: {f.digest for f in accepted.partition(partition)} for partition in parts}
    new = {partition: part for partition, part in parts.items() if digests[partition] not in held[partition]}
    for partition, part in new.items():
        if held[partition]:
            _refuse(file, source, judge(lake, source, partition, read(source, part))[1])
    stem = file.stem.lstrip(_UNFINISHED)[:_LONGEST_STEM]
    named = {p: (f"{stem}-{digests[p][:12]}{file.suffix}", part) for p, part in new.items()}
    return Prepared(source, named, len(parts) - len(new), len(gaps) if source.min_rows else 0, content.table)


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Say which of several files an error is about."""
    try:
        yield
    except ValueError as error:
        raise UnreadableError(f"{file}: {error}") from error


def _broken_days(source: Source, content: Content, days: npt.NDArray[np.str_]) -> list[str]:
    """What breaks the contract: of the whole file, where a day of it alone would break it too."""
    reasons = contract_breaches(replace(source, min_rows=0), content)
    found, counts = np.unique(days, return_counts=True)
    if reasons and not content.breaches and set(source.schema.columns) <= set(content.found):
        # A key may come again on another day.
        each = (replace(content, table=content.table.filter(pa.array(days == day))) for day in found)
        reasons = reasons if any(contract_breaches(replace(source, min_rows=0), day) for day in each) else []
    if (few := found[counts < source.min_rows]).size:
        reasons.append(
            f"{few.size} day(s) have fewer than the {source.min_rows} rows of min_rows, such as {few[0]} with "
            f"{counts[found == few[0]][0]}: leave them out, or change the source's min_rows"
        )
    return reasons


def _gaps(accepted: Dataset, days: npt.NDArray[np.str_]) -> list[str]:
    """Days without rows between the first and the last, of which nothing was accepted before."""
    found = sorted(set(days.tolist()))
    between = [str(found[0])]
    while between[-1] < found[-1]:
        between.append(next_partition(between[-1]))
    held = {file.partition for file in accepted.files(found[0], found[-1])}
    return sorted({*between} - held - {*found})


def _refuse(file: Path, source: Source, reasons: list[str]) -> None:
    if reasons:
        raise ValueError(
            f"{file} breaks the contract of {source.name}, and nothing of it was landed: {'; '.join(reasons)}"
        )


def _refuse_other_days(source: Source, file: Path, days: Iterable[str]) -> None:
    open_now = source.domain.partition_of(pd.Timestamp.now("UTC"))
    outside = [day for day in days if not source.domain.has(day) or day > open_now]
    if outside:
        raise ValueError(
            f"{file} has rows of {len(outside)} day(s) outside of domain {source.domain.name!r}, such as {outside[0]}; "
            f"expected {source.domain.first_day} to {source.domain.last_day or 'today'}: change the domain's days, or "
            "leave the rows out"
        )


def run(home: Path, console: Console, errors: Console) -> bool:
    """Tick every sensor, and execute what it asks for, until nothing is left to do.

    Args:
        home: `$CT_HOME`.
        console: Where each run is told.
        errors: Where it is told what lies in landing and can never be taken in.

    Returns:
        Whether every run succeeded.
    """
    os.environ["CT_HOME"] = str(home)
    from ct_assets.definitions import defs
    from ct_assets.defs.models import load_sources
    from ct_assets.lib.arrivals import unreachable
    from ct_assets.lib.driver import Driver, Run
    from ct_assets.lib.instance import open_instance

    failed = 0

    def tell(run: Run) -> None:
        nonlocal failed
        failed += not run.success
        names = ", ".join(key.to_user_string() for key in run.assets)
        outcome = "[green]done[/]" if run.success else f"[red]failed[/]: {escape('; '.join(run.errors))}"
        console.print(f"{escape(run.partition or '')} {escape(names)} {outcome}".lstrip())

    driver = Driver(defs(), open_instance(home), home / "driver", tell)
    try:
        with _stopped_by_signals(driver):
            runs = driver.settle()
            # Nothing more is fed here: the newest partition of a recording waits for no other.
            if driver.report(_last_closings(home, driver.instance)):
                runs += driver.settle()
    finally:
        # Whatever happened: the next run goes on from here.
        driver.save()
    lying = unreachable(home, load_sources())
    end = "what is left in landing cannot be taken in" if lying else "nothing is left to do"
    console.print(f"{len(runs)} runs, {failed} of them failed; {end}")
    for warning in lying:
        errors.print(f"[yellow]warning[/] {escape(warning)}")
    return not failed


def _last_closings(home: Path, instance: "dg.DagsterInstance") -> "list[dg.AssetMaterialization]":
    """Reports of the partitions of recorded groups that are closed once nothing more is fed."""
    from ct_assets.defs.models import load_sources
    from ct_assets.lib.closing import closed_through, closing_event, closings_at_the_end

    sources = load_sources()
    return [
        closing_event(domain, closing)
        for domain in dict.fromkeys(source.domain for source in sources)
        for closing in closings_at_the_end(
            Lake(home), [s for s in sources if s.domain == domain], closed_through(instance, domain)
        )
    ]


@contextmanager
def _stopped_by_signals(driver: "Driver") -> Iterator[None]:
    """Let SIGINT and SIGTERM end the driver between two runs; the second one ends it at once."""

    def stop(number: int, _frame: FrameType | None) -> None:
        driver.stop()
        signal.signal(number, signal.default_int_handler)

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
