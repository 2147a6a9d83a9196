"""What keeps the loop going when a process dies."""

import dagster as dg

from ct_assets.defs.sources.contracts import OWNER
from ct_assets.lib.recovery import build_recovery


@dg.definitions
def recovery() -> dg.Definitions:
    """The sensor that asks again for unfinished work."""
    return build_recovery(OWNER)
