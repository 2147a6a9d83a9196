"""What the tests know of the home that has seen twelve days."""

from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pandas as pd
from feast import FeatureStore

from ct_assets.feeds import Delivery
from ct_assets.lake.lake import Lake
from ct_assets.lib.driver import Run
from ct_assets.resources.feast import feature_store


@dataclass(frozen=True)
class World:
    """A driven home.

    Attributes:
        home: `$CT_HOME`.
        delivered: Every file that was sent, in order.
        runs: Every run that was executed.
        end: End of the last arrival day.
        instance: Dagster's, with all events.
    """

    home: Path
    delivered: list[Delivery]
    runs: list[Run]
    end: pd.Timestamp
    instance: dg.DagsterInstance

    @property
    def lake(self) -> Lake:
        return Lake(self.home)

    @property
    def store(self) -> FeatureStore:
        return feature_store(self.home)
