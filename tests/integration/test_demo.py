"""The main job and the command line, run as a new user types them."""

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import pytest

from ct_assets.core.ledger import Ledger

CHECKOUT = Path(__file__).parents[2]
DAYS = 27
"""Enough for the first champion and for two of the planted faults."""


def ct(home: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ct_assets.cli", *arguments],
        env={**os.environ, "CT_HOME": str(home), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=check,
        timeout=1800,
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


def test_a_second_demo_on_the_same_home_is_refused(home):
    with (home / "demo" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = ct(home, "demo", "--days", str(DAYS + 1), check=False)
    assert refused.returncode == 1
    assert "a demo is running on" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("days", [DAYS, 5])
def test_a_finished_demo_tells_its_result_again_and_changes_nothing(home, days):
    path = home / "demo" / "summary.json"
    before = path.read_bytes()
    done = ct(home, "demo", "--days", str(days))
    assert f"{DAYS} days" in done.stdout
    assert ("has been taken to 2013-01-27 before" in done.stdout) is (days < DAYS)
    assert path.read_bytes() == before


def commands(*pages: str) -> list[str]:
    """What the pages tell to type: one command a line, or over several lines inside quotes."""
    found: list[str] = []
    for page in pages:
        text = (CHECKOUT / page).read_text()
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
            for typed in textwrap.dedent(block).splitlines():
                # A comment may hold an apostrophe, which would look like the beginning of a text.
                line = typed.partition("  #")[0].rstrip()
                unfinished = found and found[-1].count("'") % 2
                found[-1:] = [found[-1] + "\n" + line] if unfinished else [*found[-1:], line]
    return found


def test_every_command_of_the_docs_runs(home, tmp_path):
    # What adds a model to the checkout is typed in a copy: tests/components/test_tutorial.py.
    pages = [
        "README.md",
        *(f"docs/{p.name}" for p in (CHECKOUT / "docs").glob("*.md") if p.name != "add-your-model.md"),
    ]
    found = [line.partition("  #")[0].strip() for line in commands(*pages)]
    makefile = (CHECKOUT / "Makefile").read_text()
    copy = shutil.copytree(home, tmp_path / "home")
    environment = {**os.environ, "CT_HOME": str(copy), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "ct_assets.cli", "serve", "--port", str(port)], env=environment, start_new_session=True
    )
    ran = []
    try:
        wait_for(f"http://127.0.0.1:{port}/v1/models/flight_delay")
        for command in found:
            program, *arguments = command.removeprefix(".venv/bin/").split()
            if program == "make":
                assert f"\n{arguments[0]}:" in makefile, command
            elif (program, *arguments[:1]) in {("ct", "serve"), ("ct", "dev")}:
                assert ct(copy, arguments[0], "--help").returncode == 0
            else:
                typed = command.removeprefix(".venv/bin/").replace(":8000/", f":{port}/")
                done = subprocess.run(
                    typed, shell=True, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
                )
                # The short demo of the tests has promoted one release only.
                first = "is the first release" in done.stderr
                assert done.returncode == 0 or first, f"{command}\n{done.stdout}{done.stderr}"
                if "/v1/events" in command:
                    # No source of this deployment takes events; tests/arrivals/test_docs.py gives it to one that does.
                    assert done.stdout.startswith("HTTP/1.1 404")
                elif program == "curl":
                    (answer,) = json.loads(done.stdout)["predictions"]
                    assert 0 < answer["score"] < 1
                    assert sum(moment is not None for moment in answer["features_at"].values()) >= 9
            ran.append(program)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert {"make", "ct", "curl"} <= set(ran)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        try:
            if httpx.get(url).json().get("release"):
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"{url} has no release")


def test_a_finished_demo_tells_its_result_again(home, summary):
    before = decisions(home)
    assert "bootstrap" in ct(home, "demo", "--days", str(DAYS)).stdout
    assert decisions(home) == before


def test_neither_kills_nor_planted_faults_change_what_is_decided_and_what_serves(tmp_path, home):
    """A second demo, killed twice and without faults: two runs give the same models, byte for byte."""
    arguments = ("demo", "--days", str(DAYS), "--no-faults")
    for days in (4, DAYS - 3):
        process = subprocess.Popen(
            [sys.executable, "-m", "ct_assets.cli", *arguments],
            env={**os.environ, "CT_HOME": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 1800
        while scored_days(tmp_path) < days:
            assert process.poll() is None and time.monotonic() < deadline, f"{scored_days(tmp_path)} days are scored"
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    ct(tmp_path, *arguments)
    assert served(tmp_path) == served(home)
    assert decisions(tmp_path) == decisions(home)
    assert json.loads(ct(tmp_path, "status", "--json").stdout)["batches"]["duplicate"] == 0


def scored_days(home: Path) -> int:
    manifest = home / "lake" / "flight_delay" / "scored" / "manifest.json"
    return len(json.loads(manifest.read_text())["files"]) if manifest.exists() else 0


def test_status_tells_what_serves(home, summary):
    told = json.loads(ct(home, "status", "--json").stdout)
    assert told.pop("held") == {}
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
