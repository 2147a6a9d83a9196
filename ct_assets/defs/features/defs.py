"""Assets of the feature views."""

import dagster as dg

from ct_assets.defs.features.flights import FEATURE_SETS
from ct_assets.lib.features import build_features


@dg.definitions
def features() -> dg.Definitions:
    """Every feature set's assets."""
    return dg.Definitions.merge(*(build_features(features) for features in FEATURE_SETS))
