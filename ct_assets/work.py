"""`ct land` and `ct run`: a file's days put into landing, and all that they bring about worked off without a daemon."""

import hashlib
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from ct_assets.lake.contract import Source
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.lake import Lake
from ct_assets.lake.landing import Landing
from ct_assets.lake.split import split_by_day

if TYPE_CHECKING:
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
    """

    landed: int
    known: int


def land(home: Path, source: Source, file: Path) -> Taken:
    """Put a file into the landing place, day by day of `known_at`.

    What is the same is told by content and never by name: exports of every month are often called alike, and so is a
    file that was mended after a rejection.

    Args:
        home: `$CT_HOME`.
        source: What the file belongs to.
        file: A file of the source's format, with rows of any number of days.

    Raises:
        UnreadableError: The file is not what the source sends.
        ValueError: There are no rows, one has no `known_at`, or one lies outside of the source's days.
    """
    payload = file.read_bytes()
    parts = split_by_day(source, payload) if source.daily else {WHOLE: payload}
    if not parts:
        raise ValueError(f"{file} has no rows; expected at least one")
    if source.daily:
        _refuse_other_days(source, file, parts)
    landing, accepted = Landing(home, source), Lake(home).dataset(source.name)
    landed = 0
    for partition, part in parts.items():
        digest = hashlib.sha256(part).hexdigest()
        if digest not in {f.digest for f in accepted.partition(partition)}:
            landing.write(
                partition, f"{file.stem.lstrip(_UNFINISHED)[:_LONGEST_STEM]}-{digest[:12]}{file.suffix}", part
            )
            landed += 1
    return Taken(landed, len(parts) - landed)


def _refuse_other_days(source: Source, file: Path, days: Iterable[str]) -> None:
    first, last = source.domain.first_day, source.domain.last_day or datetime.now(UTC).date()
    outside = [day for day in days if not first <= date.fromisoformat(day) <= last]
    if outside:
        raise ValueError(
            f"{file} has rows of {len(outside)} day(s) outside of domain {source.domain.name!r}, such as {outside[0]}; "
            f"expected {first} to {source.domain.last_day or 'today'}: change the domain's days, or leave the rows out"
        )


def run(home: Path, console: Console) -> bool:
    """Tick every sensor, and execute what it asks for, until nothing is left to do.

    Args:
        home: `$CT_HOME`.
        console: Where each run is told.

    Returns:
        Whether every run succeeded.
    """
    os.environ["CT_HOME"] = str(home)
    from ct_assets.definitions import defs
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
    finally:
        # Whatever happened: the next run goes on from here.
        driver.save()
    console.print(f"{len(runs)} runs, {failed} of them failed; nothing is left to do")
    return not failed


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
