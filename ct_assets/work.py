"""`ct land` and `ct run`: a file's days put into landing, and all that they bring about worked off without a daemon."""

import os
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ct_assets.feeds import Delivery, feed_wave
from ct_assets.lake.contract import Source
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.landing import Landing
from ct_assets.lake.split import split_by_day


def land(home: Path, source: Source, file: Path) -> list[Delivery]:
    """Put a file into the landing folder, day by day of `known_at`.

    Args:
        home: `$CT_HOME`.
        source: What the file belongs to.
        file: A file of the source's format, with rows of any number of days.

    Returns:
        The files that landed; ones that had been received before are left out.

    Raises:
        UnreadableError: The file is not what the source sends.
        ValueError: A row has no `known_at`, or lies outside of the source's days.
    """
    payload = file.read_bytes()
    if not source.daily:
        return _put(home, source, [Delivery(source.name, None, file.name, payload)])
    parts = split_by_day(source, payload)
    first, last = source.domain.first_day.isoformat(), source.domain.last_day
    outside = [day for day in parts if day < first or (last and day > last.isoformat())]
    if outside:
        raise ValueError(
            f"{file} has rows of {len(outside)} day(s) outside of domain {source.domain.name!r}, such as {outside[0]}; "
            f"expected {first} to {last or 'today'}: change the domain's days, or leave the rows out"
        )
    deliveries = [Delivery(source.name, date.fromisoformat(day), file.name, part) for day, part in parts.items()]
    return _put(home, source, deliveries)


def _put(home: Path, source: Source, deliveries: list[Delivery]) -> list[Delivery]:
    if not source.landing:
        return feed_wave(deliveries, str(home))
    landing = Landing(home, source)
    for each in deliveries:
        # What was received before is recognized by its content.
        landing.write(each.day.isoformat() if each.day else WHOLE, each.name, each.payload)
    return deliveries


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
    runs = driver.settle()
    driver.save()
    console.print(f"{len(runs)} runs, {failed} of them failed; nothing is left to do")
    return not failed
