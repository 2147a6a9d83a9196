"""A home that an earlier version of the code left is opened by that of today: verdicts count, and releases serve."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from golden_home import DAYS, HERE, MODEL, copy_checkout, ct, environment, land, unpack
from pydantic import Field, create_model

from ct_assets.core import gate, verdict
from ct_assets.core.artifact import ArtifactError
from ct_assets.core.ledger import PROMOTION, Ledger
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.core.verdict import Check, GatePolicy, Verdict, VerdictError
from ct_assets.defs.models import load_specs
from ct_assets.lake import releases, training_set
from ct_assets.lake.releases import Release, Releases
from ct_assets.lake.training_set import TrainingSet, load_training_set, read_examples
from ct_assets.lib.promotion import rollback
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import RegistryResource

FACTS = json.loads((HERE / "facts.json").read_text())
VERSIONS = [move["version"] for move in FACTS["promotions"]]
ASKED = {"at": "2024-02-13T23:00:00Z", "instances": [{"pump": "P1", "kind": "old", "heat": 71.5}]}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home as it was left; only read."""
    return unpack(tmp_path_factory.mktemp("golden"))


@pytest.fixture
def home(golden: Path, tmp_path: Path) -> Path:
    """A home of its own."""
    return Path(shutil.copytree(golden, tmp_path / "home"))


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return load_specs(HERE)[MODEL]


def releases_of(home: Path) -> Releases:
    return Releases(home, Line(MODEL), Ledger(home / "ledger" / "decisions.jsonl"))


def test_the_archive_is_small_and_names_no_place(golden: Path) -> None:
    assert (HERE / "home.tar.xz").stat().st_size < 700_000
    place = re.compile(rb"/(?:tmp|root|work|Users|(?<!xx/)home)/")
    stored = [path for path in golden.rglob("*") if path.is_file()]
    assert [path for path in stored if place.search(path.read_bytes())] == []


def test_every_stored_document_has_its_schema_version(golden: Path) -> None:
    documents = [*golden.glob("verdicts/*/*.json"), *golden.glob("releases/*/*.json")]
    documents += golden.glob("training_sets/*/manifest.json")
    assert len(documents) == 3 * len(VERSIONS)
    assert all(json.loads(path.read_text())["schema_version"] >= 1 for path in documents)


def test_all_seals_hold_and_every_release_predicts(golden: Path, spec: ModelSpec) -> None:
    found = releases_of(golden)
    assert found.ledger.verify() == FACTS["records"]
    for version in VERSIONS:
        release = found.get(version)
        assert found.check(release).outcome == "passed"
        snapshot = load_training_set(LakeResource(home=str(golden)).lake(), release.training_set)
        rows = read_examples(LakeResource(home=str(golden)).lake(), snapshot, "holdout")
        assert len(rows) == snapshot.holdout_rows
        scores = found.load(release, spec).predict_proba(rows[spec.columns])[:, 1]
        assert 0 < scores.min() < scores.max() < 1


def later_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that has another check, and another field of everything that is stored."""
    policy = create_model("GatePolicy", __base__=GatePolicy, alpha=(float, Field(0.05)))
    check = create_model("Check", __base__=Check, power=(float | None, None))
    later = create_model(
        "Verdict", __base__=Verdict, policy=(policy, ...), checks=(tuple[check, ...], ...), budget=(float, 0.1)
    )  # type: ignore[valid-type]

    @dataclass(frozen=True)
    class LaterRelease(Release):
        rollout: str = "full"

    @dataclass(frozen=True)
    class LaterTrainingSet(TrainingSet):
        profile: str = ""

    monkeypatch.setattr(releases, "Verdict", later)
    monkeypatch.setattr(releases, "Release", LaterRelease)
    monkeypatch.setattr(training_set, "TrainingSet", LaterTrainingSet)
    for module in (verdict, gate):
        monkeypatch.setattr(module, "CHECK_NAMES", (*verdict.CHECK_NAMES, "error_budget_left"))
    monkeypatch.setitem(verdict.CHECKS, "error_budget_left", "The statistical gate has errors left to spend.")


def test_later_code_opens_it_and_rolls_back(home: Path, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    later_code(monkeypatch)
    found = releases_of(home)
    for version in VERSIONS:
        release = found.get(version)
        assert release.rollout == "full"  # type: ignore[attr-defined]
        assert found.load(release, spec) is not None
        assert found.check(release).policy.alpha == 0.05  # type: ignore[attr-defined]
        assert (
            load_training_set(LakeResource(home=str(home)).lake(), release.training_set).digest == release.training_set
        )
    lake = LakeResource(home=str(home))
    back = rollback(lake, RegistryResource(home=lake.home), Line(MODEL), "an alarm too many")
    assert (back.version, found.present()) == (VERSIONS[-2], back)


@pytest.mark.parametrize("kind", ["verdicts", "releases", "training_sets"])
def test_a_newer_schema_is_refused_in_words(kind: str, home: Path) -> None:
    found = releases_of(home)
    release = found.get(VERSIONS[-1])
    name = {"verdicts": release.verdict, "releases": release.version, "training_sets": "manifest"}[kind]
    folder = release.training_set if kind == "training_sets" else MODEL
    path = home / kind / folder / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    error = {"verdicts": VerdictError, "releases": ArtifactError, "training_sets": ValueError}[kind]
    with pytest.raises(error, match="has schema version 99, .* written by a newer one; install that one"):
        if kind == "training_sets":
            load_training_set(LakeResource(home=str(home)).lake(), release.training_set)
        else:
            found.check(found.get(release.version))


@dataclass
class Used:
    """What a person saw who went on with the home.

    Attributes:
        home: It.
        said: What each command printed.
        answers: What the server answered at first, after another day, and after a rollback.
    """

    home: Path
    said: dict[str, str]
    answers: list[dict[str, Any]]


@pytest.fixture(scope="module")
def used(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Used:
    """A copy of the home at another place: looked at, asked, given one more day, and rolled back."""
    folder = tmp_path_factory.mktemp("used")
    checkout, home = folder / "checkout", folder / "another place" / "home"
    copy_checkout(checkout)
    shutil.copytree(golden, home)
    used = Used(home, {}, [])

    def typed(name: str, *arguments: str) -> None:
        done = ct(checkout, home, *arguments)
        used.said[name] = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == 0, done.stdout + done.stderr

    typed("status", "status", MODEL, "--json")
    typed("why", "why", MODEL)
    with served(checkout, home) as url:
        used.answers.append(asked(url, VERSIONS[-1]))
        land(checkout, home, range(DAYS, DAYS + 1))
        typed("run", "run")
        typed("status later", "status", MODEL)
        used.answers.append(asked(url, str(int(VERSIONS[-1]) + 1)))
        typed("rollback", "rollback", MODEL, "--reason", "an alarm too many", "--to", VERSIONS[0])
        used.answers.append(asked(url, VERSIONS[0]))
    typed("doctor", "status", MODEL)
    return used


@contextmanager
def served(checkout: Path, home: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ct_assets.cli", "serve", "--port", str(port)]
    log = (home.parent / "server.log").open("w")
    server = subprocess.Popen(command, cwd=checkout, env=environment(checkout, home), stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}/v1/models/{MODEL}"
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()


def asked(url: str, version: str, within: float = 600) -> dict[str, Any]:
    """What the server answers once it serves a version."""
    deadline = time.monotonic() + within
    answer: httpx.Response | None = None
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(f"{url}:predict", json=ASKED, timeout=60)
            if answer.status_code == 200 and answer.json()["version"] == version:
                return dict(answer.json())
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"version {version} was not served: {answer and answer.text}")


def test_its_status_is_what_it_was(used: Used) -> None:
    found = json.loads(used.said["status"])
    assert {**found, "records": FACTS["records"]} == FACTS


def test_its_champion_is_explained(used: Used) -> None:
    assert used.said["why"].startswith(f"{MODEL} version {VERSIONS[-1]} ")
    assert "The gate passed it" in used.said["why"]


def test_one_more_day_goes_through_the_whole_loop(used: Used) -> None:
    assert "0 of them failed; nothing is left to do" in used.said["run"]
    ledger = Ledger(used.home / "ledger" / "decisions.jsonl")
    newest = ledger.records(PROMOTION, MODEL)[-1]
    assert (newest.evidence["version"], newest.evidence["previous"]) == (str(int(VERSIONS[-1]) + 1), VERSIONS[-1])
    made = releases_of(used.home).newest_verdict(newest.evidence["version"])
    assert made.bindings.champion_digest == releases_of(used.home).get(VERSIONS[-1]).artifact_digest
    assert ledger.verify() > FACTS["records"]


def test_the_server_answers_by_what_serves(used: Used) -> None:
    scores = [answer["predictions"][0]["score"] for answer in used.answers]
    assert all(0 < score < 1 for score in scores)
    assert len({*scores}) == 3
    assert all(answer["predictions"][0]["features_at"]["pump_day"] for answer in used.answers)
