"""A home that has seen the first twelve days of the recorded flights, shared by all tests that only read it."""

from collections.abc import Iterator
from datetime import date, timedelta

import dagster as dg
import pandas as pd
import pytest
from twelve_days import World

from ct_assets.feeds import feed_wave
from ct_assets.feeds.nycflights import NycFlights
from ct_assets.feeds.nycflights_faults import deliveries
from ct_assets.lib.driver import Driver

FIRST, DAYS = date(2013, 1, 1), 12


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    from ct_assets.definitions import defs

    home, feed = tmp_path_factory.mktemp("home"), NycFlights()
    delivered, runs = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CT_HOME", str(home))
        instance = dg.DagsterInstance.ephemeral()
        driver = Driver(defs(), instance, home / "driver", on_run=runs.append)
        for n in range(DAYS):
            for wave in deliveries(feed, FIRST + timedelta(days=n), faults=False):
                delivered += feed_wave(wave, str(home))
                driver.settle()
        yield World(home, delivered, runs, pd.Timestamp(FIRST + timedelta(days=DAYS), tz="UTC"), instance)
