"""`docs/add-your-model.md` typed from top to bottom in a copy of the checkout: a fourth model, and no other file."""

import hashlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from ct_assets.core.ledger import PROMOTION, VERDICT, Ledger
from ct_assets.lib.automation import SENSOR_TAG
from ct_assets.lib.instance import open_instance

PAGE = "docs/add-your-model.md"
MODEL = "ticket_reopened"
FOLDER = f"ct_assets/defs/models/{MODEL}"
FENCE = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
MADE_BY_TOOLS = {".ct", ".venv", "__pycache__"}


@dataclass
class Typed:
    """What came of the page.

    Attributes:
        home: Its `$CT_HOME`.
        before: Every file of the checkout at the start, with a digest of its content.
        after: The same at the end.
        said: What each command said.
        failed: The commands that ended with an error.
        unseen: Lines that the page shows, and none of the commands above them said.
    """

    home: Path
    before: dict[str, str]
    after: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def typed(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Typed:
    (copy / ".venv").symlink_to(sys.prefix)
    typed = Typed(copy / ".ct", digests(copy))
    places = {"/tmp/tickets": str(tmp_path_factory.mktemp("tickets"))}
    heard = ""
    with ExitStack() as stack:
        for kind, file, text in FENCE.findall((copy / PAGE).read_text()):
            if file:
                (copy / file).write_text(text)
            for command in commands(text) if kind == "sh" else ():
                if command.endswith("ct serve"):
                    places[":8000"] = f":{stack.enter_context(served(copy))}"
                    continue
                done = run(copy, command, places)
                heard += done.stdout + done.stderr
                typed.said[command] = done.stdout + done.stderr
                typed.failed += [command] if done.returncode else []
            if kind == "text":
                typed.unseen += [line for line in text.splitlines() if not is_in(heard, line)]
                heard = ""
    typed.after = digests(copy)
    return typed


def commands(block: str) -> Iterator[str]:
    """One command a line, or over several lines inside quotes."""
    command = ""
    for line in block.splitlines(keepends=True):
        command += line
        if command.count("'") % 2 == 0:
            yield command.strip()
            command = ""


def run(checkout: Path, command: str, places: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for written, here in places.items():
        command = command.replace(written, here)
    return subprocess.run(
        command, shell=True, cwd=checkout, env=environment(checkout), capture_output=True, text=True, check=False
    )


def environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout), "CT_HOME": str(checkout / ".ct"), "COLUMNS": "200"}


@contextmanager
def served(checkout: Path) -> Iterator[int]:
    """`ct serve` at a port of its own, once it has a champion."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = shlex.split(f".venv/bin/ct serve --port {port}")
    server = subprocess.Popen(command, cwd=checkout, env=environment(checkout), start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/v1/models/{MODEL}")
        yield port
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


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


def is_in(heard: str, line: str) -> bool:
    """Whether a line was said; blanks of any number are one, and `…` stands for anything."""
    parts = map(re.escape, " ".join(line.split()).split("…"))
    return re.search(".*".join(parts), " ".join(heard.split())) is not None


def digests(checkout: Path) -> dict[str, str]:
    names = (path.relative_to(checkout) for path in checkout.rglob("*") if path.is_file())
    kept = (name for name in names if not MADE_BY_TOOLS & {*name.parts})
    return {str(name): hashlib.sha256((checkout / name).read_bytes()).hexdigest() for name in kept}


def test_every_command_runs_and_says_what_the_page_shows(typed: Typed) -> None:
    wanted = [command for command in typed.said if command.endswith("# fails")]
    assert typed.failed == wanted, "\n".join(typed.said[command] for command in typed.failed)
    assert typed.unseen == [], "\n".join(typed.said.values())


def test_the_gate_let_a_champion_pass_that_beats_the_baseline(typed: Typed) -> None:
    ledger = Ledger(typed.home / "ledger" / "decisions.jsonl")
    (promoted,) = ledger.records(PROMOTION, MODEL)
    version = promoted.evidence["version"]
    (judged,) = [r for r in ledger.records(VERDICT, MODEL) if r.evidence["version"] == version]
    assert judged.evidence["passed"]
    figures = judged.evidence["metrics"]
    assert figures["challenger"]["auc"] > max(figures["baseline"]["auc"], 0.6)
    assert figures["challenger"]["logloss"] < figures["baseline"]["logloss"]
    told = typed.said[f".venv/bin/ct why {MODEL}"]
    assert f"{MODEL} version {version}" in told
    assert "The gate passed it" in told
    assert "It was champion from 2025-01-30 (promoted) to this day." in told


def test_everything_was_asked_for_by_automation(typed: Typed) -> None:
    with open_instance(typed.home) as instance:
        asked = {run.tags.get(SENSOR_TAG) for run in instance.get_runs()}
    assert asked == {"help_desk_ingestion", f"{MODEL}_automation"}


def test_the_champion_answers_over_http(typed: Typed) -> None:
    (said,) = [said for command, said in typed.said.items() if command.startswith("curl")]
    (prediction,) = json.loads(said)["predictions"]
    assert 0 < prediction["score"] < 1
    assert set(prediction["features_at"]) == {"team_week", "requester_month"}
    assert all(prediction["features_at"].values())


def test_nothing_but_the_models_folder_changed(typed: Typed) -> None:
    changed = {name for name, _ in typed.before.items() ^ typed.after.items()}
    files = ("__init__.py", "defs.yaml", "feature_views.py", "features.py", "sources.py")
    assert changed == {f"{FOLDER}/{file}" for file in files}
