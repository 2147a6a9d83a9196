"""The end of the demo, in a few tables."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ct_assets.words import decisions_table


def tell(summary: dict[str, Any], home: Path, console: Console) -> None:
    """Print what was decided and why, and where to look next."""
    console.print(decisions_table(summary))
    if summary.get("auc"):
        console.print(_comparison(summary))
    batches, rows = summary["batches"], summary["rows"]
    console.print(
        f"{summary['days']} days, {batches['landed']} batches landed ({batches['quarantined']} quarantined, "
        f"{batches['duplicate']} duplicate), {rows['accepted']:,} rows accepted, "
        f"{summary['seconds']['total']:.0f} seconds."
    )
    console.print(
        f"Reports: {home}/reports/flight_delay/   Quarantine: {home}/quarantine/   Summary: {home}/demo/summary.json"
    )
    console.print(
        "Look at it: [bold]make dev[/] (Dagster UI, server), [bold]ct status[/], [bold]ct why flight_delay[/]"
    )


def _comparison(summary: dict[str, Any]) -> Table:
    table = Table(title="What served, against models that did not (means over months from April)", title_justify="left")
    for column in ("", "served", "trained once, Jan-Mar", "retrained monthly"):
        table.add_column(column)
    for metric in ("auc", "logloss"):
        figures = summary[metric]
        if figures:
            table.add_row(metric, *(f"{figures[arm]:.4f}" for arm in ("served", "static", "monthly_mean")))
    return table
