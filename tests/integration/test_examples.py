"""The other two examples, a short demo of each: from recorded rows to a champion, through the real definitions."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from ct_assets.core.ledger import PROMOTION, RETRAIN, VERDICT, Ledger
from ct_assets.defs.models import load_specs
from ct_assets.feeds.online_retail import OnlineRetail
from ct_assets.serving.app import create_app

DAYS = {"repurchase": 117, "household_power": 62}
"""Enough for the first champion, for a challenger on shuffled labels, and for a planted fault or two."""

FIRST_MONDAY = pd.Timestamp("2009-12-07", tz="UTC")
HORIZON, HALF_YEAR = pd.Timedelta(days=30), pd.Timedelta(days=182)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture(scope="module", params=sorted(DAYS))
def demo(request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    name, home = request.param, tmp_path_factory.mktemp(request.param)
    done = subprocess.run(
        [sys.executable, "-m", "ct_assets.cli", "demo", "--example", name, "--days", str(DAYS[name])],
        env={**os.environ, "CT_HOME": str(home), "CT_CACHE": str(cache), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((home / "demo" / name / "summary.json").read_text())
    ledger = Ledger(home / "ledger" / "decisions.jsonl")
    return SimpleNamespace(name=name, home=home, summary=summary, ledger=ledger, told=done.stdout, cache=cache)


def training_sets(home: Path) -> Iterator[tuple[pd.DataFrame, pd.Timestamp]]:
    """The examples of every snapshot, those kept for the gate and under the embargo too, and its moment."""
    for manifest in sorted((home / "training_sets").glob("*/manifest.json")):
        content = json.loads(manifest.read_text())
        blocks = [manifest.parents[1] / "rows" / f"{digest}.parquet" for digest in content["blocks"]]
        yield pd.concat([pq.read_table(path).to_pandas() for path in blocks]), pd.Timestamp(content["as_of"])


def test_it_ends_with_a_champion_and_a_summary_of_what_arrived(demo):
    days, faults = DAYS[demo.name], {"repurchase": 2, "household_power": 1}[demo.name]
    summary = demo.summary
    assert summary["days"] == days
    # A file a day, and one sent again for each that was rejected.
    assert summary["batches"] == {"landed": days + 2 * faults - faults, "quarantined": faults, "duplicate": 0}
    assert summary["retrains"][0]["triggers"] == ["bootstrap"]
    assert summary["promotions"][0]["version"] == "1"
    assert {"until", "seconds", "rows", "rejections"} <= set(summary)
    metrics = {"repurchase": {"auc", "logloss"}, "household_power": {"pinball", "coverage"}}[demo.name]
    assert metrics <= set(summary)
    assert "bootstrap" in demo.told
    assert "a batch was stopped" in demo.told


def test_a_challenger_on_shuffled_labels_is_rejected_whatever_the_task(demo):
    (rejected,) = demo.summary["rejections"]
    verdict = next(r for r in demo.ledger.records(VERDICT, demo.name) if r.evidence["version"] == rejected["version"])
    assert not verdict.evidence["passed"]
    assert rejected["version"] not in {r.evidence["version"] for r in demo.ledger.records(PROMOTION, demo.name)}
    assert any("not_worse" in reason or "baseline" in reason for reason in rejected["reasons"]), rejected["reasons"]


def test_no_label_that_was_not_mature_reached_a_training_set(demo):
    reach = load_specs()[demo.name].label.reach
    assert reach is not None
    count = 0
    for examples, as_of in training_sets(demo.home):
        assert (examples["event_timestamp"] + reach < as_of).all()
        count += 1
    assert count >= len(demo.ledger.records(RETRAIN, demo.name)) >= 1


def test_the_labels_of_repurchase_are_those_of_the_raw_lines(demo):
    """Each label by brute force, and no one of a matured cohort left out, whichever label they have."""
    if demo.name != "repurchase":
        pytest.skip("of another example")
    bought = purchases(demo.cache, DAYS[demo.name])
    for examples, as_of in training_sets(demo.home):
        assert labels_by_hand(bought, as_of) == dict(zip(examples["customer_week"], examples["label"], strict=True))


def purchases(cache: Path, days: int) -> pd.DataFrame:
    """Customer and moment of every line about goods that were bought, as they were recorded."""
    feed = OnlineRetail(cache)
    sent = [feed.day(feed.first_day + timedelta(days=n))[0].payload for n in range(days)]
    lines = pd.concat([pq.read_table(io.BytesIO(payload)).to_pandas() for payload in sent])
    goods = lines["stock_code"].str.fullmatch(r"\d{5}.*")
    return lines.loc[goods & lines["customer"].notna() & (lines["quantity"] > 0) & (lines["price"] > 0)]


def labels_by_hand(bought: pd.DataFrame, as_of: pd.Timestamp) -> dict[str, int]:
    """Of every Monday whose 30 days had passed: who had bought within half a year, and whether they did again."""
    labels = {}
    for monday in pd.date_range(FIRST_MONDAY, as_of - HORIZON, freq="7D", inclusive="left"):
        moments = bought["known_at"]
        before = bought.loc[(moments < monday) & (moments >= monday - HALF_YEAR), "customer"]
        after = set(bought.loc[(moments >= monday) & (moments < monday + HORIZON), "customer"])
        labels |= {f"{customer}|{monday:%Y-%m-%d}": int(customer in after) for customer in before.unique()}
    return labels


ASKED: dict[str, dict[str, Any]] = {
    "repurchase": {
        "at": "2010-03-28T00:00:00Z",
        "instances": [{"customer": "13085", "country": "United Kingdom", "asked_at": "2010-03-28T00:00:00Z"}],
    },
    "household_power": {
        "at": "2007-02-16T12:00:00Z",
        "instances": [{"household": "sceaux", "target": "2007-02-17T12:00:00Z"}],
    },
}


def test_the_server_answers_for_it(demo):
    app = create_app({demo.name: load_specs()[demo.name]}, demo.home)
    with TestClient(app) as client:
        deadline = time.monotonic() + 600
        while client.get(f"/v1/models/{demo.name}").json()["release"] is None and time.monotonic() < deadline:
            time.sleep(0.2)
        answer = client.post(f"/v1/models/{demo.name}:predict", json=ASKED[demo.name])
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"] == "1"
    (prediction,) = answer.json()["predictions"]
    assert any(moment is not None for moment in prediction["features_at"].values())
    if demo.name == "repurchase":
        assert 0 < prediction["score"] < 1
    else:
        low, middle, high = prediction["quantiles"].values()
        assert 0 < low <= middle <= high < 12
