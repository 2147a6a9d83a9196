"""The main job and the command line, run as a new user types them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ct_assets.core.ledger import Ledger

DAYS = 27
"""Enough for the first champion and for two of the planted faults."""


def ct(home: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ct_assets.cli", *arguments],
        env={**os.environ, "CT_HOME": str(home), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=check,
        timeout=400,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "home"
    done = ct(folder, "demo", "--days", str(DAYS), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def summary(home) -> dict:
    return json.loads((home / "demo" / "summary.json").read_text())


def served(home: Path) -> list[str]:
    """Digests of the days as they were scored, and of the models that were promoted."""
    manifest = json.loads((home / "lake" / "flight_delay" / "scored" / "manifest.json").read_text())
    releases = sorted((home / "releases" / "flight_delay").glob("*.json"))
    return [f["digest"] for f in manifest["files"]] + [json.loads(r.read_text())["artifact_digest"] for r in releases]


def decisions(home: Path) -> list[tuple]:
    records = Ledger(home / "ledger" / "decisions.jsonl").records(model="flight_delay")
    return [(r.kind, r.as_of, r.evidence) for r in records]


def test_the_summary_counts_every_batch_and_row(summary):
    # Three files a day, two reference tables, and one file sent again for each of two rejected ones.
    assert summary["days"] == DAYS
    assert summary["batches"] == {"landed": 3 * DAYS + 2 + 2, "quarantined": 2, "duplicate": 0}
    rows = summary["rows"]
    assert rows["landed"] == rows["accepted"] + rows["quarantined"] + rows["duplicate"]
    assert summary["retrains"][0]["triggers"] == ["bootstrap"]
    assert [p["version"] for p in summary["promotions"]] == ["1"]
    assert {"auc", "logloss", "seconds", "rejections"} <= set(summary)


def test_planted_faults_change_neither_what_is_decided_nor_what_serves(home, tmp_path):
    """A second demo without faults: it also shows that two runs give the same models."""
    ct(tmp_path, "demo", "--days", str(DAYS), "--no-faults")
    assert served(tmp_path) == served(home)
    assert decisions(tmp_path) == decisions(home)


def test_a_finished_demo_tells_its_result_again(home, summary):
    before = decisions(home)
    assert "bootstrap" in ct(home, "demo", "--days", str(DAYS)).stdout
    assert decisions(home) == before


def test_a_killed_demo_goes_on_to_the_same_end(tmp_path, home):
    for seconds in (14, 19):
        process = subprocess.Popen(
            [sys.executable, "-m", "ct_assets.cli", "demo", "--days", "9"],
            env={**os.environ, "CT_HOME": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    ct(tmp_path, "demo", "--days", "9")
    assert served(tmp_path)[:9] == served(home)[:9]
    assert decisions(tmp_path) == decisions(home)[: len(decisions(tmp_path))]
    assert json.loads(ct(tmp_path, "status", "--json").stdout)["batches"]["duplicate"] == 0


def test_status_tells_what_serves(home, summary):
    told = json.loads(ct(home, "status", "--json").stdout)
    assert told == {key: summary[key] for key in told}
    assert "champion version 1" in ct(home, "status").stdout


def test_why_tells_the_story_of_a_version(home):
    story = ct(home, "why", "flight_delay").stdout
    assert "because of bootstrap" in story
    assert "The gate passed it" in story
    unknown = ct(home, "why", "flight_delay", "77", check=False)
    assert unknown.returncode == 1
    assert "no version 77; versions: 1" in unknown.stderr


def test_rollback_without_an_earlier_release_says_so(home):
    refused = ct(home, "rollback", "flight_delay", "--reason", "a test", check=False)
    assert refused.returncode == 1
    assert "first release" in refused.stderr


def test_an_unknown_model_is_named_with_the_known_ones(home):
    refused = ct(home, "why", "flight_dealy", check=False)
    assert refused.returncode == 1
    assert "no model 'flight_dealy'; models: flight_delay" in refused.stderr
