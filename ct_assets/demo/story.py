"""The end of the demo, in a few tables."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ct_assets.demo.compare import FIRST_MONTHS, METRICS
from ct_assets.demo.examples import Example
from ct_assets.words import decisions_table


def tell(summary: dict[str, Any], home: Path, example: Example, console: Console) -> None:
    """Print what was decided and why, and where to look next."""
    console.print(decisions_table(summary))
    if compared := {metric: summary[metric] for names in METRICS.values() for metric in names if summary.get(metric)}:
        console.print(_comparison(compared, example.arm))
    batches, rows = summary["batches"], summary["rows"]
    console.print(
        f"{summary['days']} days, {batches['landed']} batches landed ({batches['quarantined']} quarantined, "
        f"{batches['duplicate']} duplicate), {rows['accepted']:,} rows accepted, "
        f"{summary['seconds']['total']:.0f} seconds."
    )
    places = (
        f"Reports: {home}/reports/{example.model}/   Quarantine: {home}/quarantine/   "
        f"Summary: {example.folder(home)}/summary.json"
    )
    console.print(escape(places))
    console.print(
        f"Look at it: [bold]make dev[/] (Dagster UI, server), [bold]ct status[/], [bold]ct why {example.model}[/]"
    )


def _comparison(compared: dict[str, Any], arm: str) -> Table:
    table = Table(title="What served, against models that did not (means over months)", title_justify="left")
    for column in ("", "served", f"trained once, on {FIRST_MONTHS} months", f"retrained {arm}"):
        table.add_column(column)
    for metric, figures in compared.items():
        shown = (figures[name] for name in ("served", "static", f"{arm}_mean"))
        table.add_row(metric, *("none" if value is None else f"{value:.4f}" for value in shown))
    return table
