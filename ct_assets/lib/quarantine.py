"""`ct quarantine`: what a person decides about a rejected file, recorded before it is done."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pandas as pd
from rich.markup import escape
from rich.table import Table

from ct_assets.core.ledger import Ledger
from ct_assets.lake.columns import stored_schema
from ct_assets.lake.contract import Source
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.formats import UnreadableError, read
from ct_assets.lake.ingest import judge, released
from ct_assets.lake.lake import Lake
from ct_assets.lake.landing import Landing
from ct_assets.lake.quarantine import DROPPED, RELEASED, Quarantine, Rejection
from ct_assets.lib.partitions import start_of


def release(home: Path, ledger: Ledger, source: Source, rejection: Rejection, reason: str) -> None:
    """Land a rejected file once more, to be taken in although its values break the contract.

    Args:
        home: `$CT_HOME`.
        ledger: Where it is recorded.
        source: Whose file it is.
        rejection: The file.
        reason: Why, in words.

    Raises:
        ValueError: It cannot be stored: it is unreadable, or its types, keys or days are wrong.
    """
    quarantine = Quarantine(home, source)
    payload = quarantine.path(rejection).read_bytes()
    try:
        _, reasons = judge(Lake(home), released(source), rejection.partition, read(source, payload))
    except UnreadableError as error:
        reasons = [str(error)]
    if reasons:
        raise ValueError(
            f"{rejection.file} cannot be released: {'; '.join(reasons)}; land a fixed file, or drop this one"
        )
    _record(ledger, RELEASED, rejection, reason)
    quarantine.note(replace(rejection, closed=RELEASED, because=reason))
    Landing(home, source).write(rejection.partition, rejection.file, payload)


def drop(
    home: Path, ledger: Ledger, instance: dg.DagsterInstance, source: Source, rejection: Rejection, reason: str
) -> None:
    """Give up the rows of a rejected file; it stays in quarantine, and the day's check is made again.

    Args:
        home: `$CT_HOME`.
        ledger: Where it is recorded.
        instance: Which is told that the partition is to be looked at again.
        source: Whose file it is.
        rejection: The file.
        reason: Why, in words.
    """
    dataset = Lake(home).dataset(source.name)
    _record(ledger, DROPPED, rejection, reason)
    if not dataset.partition(rejection.partition):
        # The day has been reported: with nothing.
        dataset.write(rejection.partition, stored_schema(source.schema).empty_table())
    Quarantine(home, source).note(replace(rejection, closed=DROPPED, because=reason))
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            ["landing", source.name],
            partition=rejection.partition if source.daily else None,
            metadata={DROPPED: rejection.file, "reason": reason},
            tags={"dagster/data_version": f"{DROPPED}-{rejection.id}"},
        )
    )


def listed(rejections: list[Rejection]) -> Table:
    """Rejections as the command prints them."""
    table = Table()
    # A command takes the id, so it is never cut or broken.
    table.add_column("id", no_wrap=True, min_width=len(rejections[0].id) if rejections else None)
    for column in ("source", "partition", "file", "rows", "rejected at", "reasons"):
        table.add_column(column, overflow="fold")
    for each in rejections:
        told = (each.source, each.partition, each.file, f"{each.rows:,}", each.rejected_at, "\n".join(each.reasons))
        table.add_row(each.id, *map(escape, told))
    return table


def _record(ledger: Ledger, kind: str, rejection: Rejection, reason: str) -> None:
    at = pd.Timestamp(0, tz="UTC") if rejection.partition == WHOLE else start_of(rejection.partition)
    evidence = {"file": rejection.file, "digest": rejection.digest, "rows": rejection.rows, "reason": reason}
    ledger.append(kind, rejection.source, at, {**evidence, "rejected_for": list(rejection.reasons)})
