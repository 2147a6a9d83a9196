"""The lake as a Dagster resource."""

from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg

from ct_assets.core.ledger import Ledger
from ct_assets.lake.lake import Lake
from ct_assets.lake.paths import default_home
from ct_assets.resources.duckdb import InMemoryDuckDB


class LakeResource(InMemoryDuckDB):
    """Data and decisions under one home, and DuckDB to query them.

    It is a DuckDB resource and has none: Dagster builds a nested one again, with its schema, for each run and tick.

    Attributes:
        home: `$CT_HOME`; empty for the default.
        report_url: Where the server shows reports.
    """

    home: str = ""
    report_url: str = "http://127.0.0.1:8000"

    @property
    def path(self) -> Path:
        """The home as a path."""
        return Path(self.home) if self.home else default_home()

    def lake(self) -> Lake:
        """The lake under this home."""
        return Lake(self.path, self.get_connection)

    def ledger(self) -> Ledger:
        """The decision records under this home."""
        return open_ledger(self.path)


class HomeResource(dg.ConfigurableResource):
    """What lies under a home beside the lake.

    Attributes:
        home: `$CT_HOME`; empty for the default. Or `lake`, whose home it is.
    """

    home: str = ""

    def __init__(self, lake: LakeResource | None = None, **data: Any) -> None:
        # Its home alone is kept: Dagster builds a nested resource again, with its schema, for each run and tick.
        super().__init__(**({"home": lake.home} if lake else {}), **data)

    @property
    def path(self) -> Path:
        """The home as a path."""
        return Path(self.home) if self.home else default_home()


@cache
def open_ledger(home: Path) -> Ledger:
    """The ledger under `home`, opened once per process: it remembers how far it has read."""
    return Ledger(home / "ledger" / "decisions.jsonl")
