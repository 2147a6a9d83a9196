"""Assets of the sources that several models read, and their sensors; a source of one model lies in its folder."""

import dagster as dg

from ct_assets.defs.sources.contracts import SOURCES
from ct_assets.lib.domains import build_sources


@dg.definitions
def sources() -> dg.Definitions:
    """Every source's assets, and the sensors of their domains."""
    return build_sources(SOURCES)
