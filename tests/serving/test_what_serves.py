"""What serves is what the ledger names: aliases and registries that say otherwise are reported, and change nothing."""

import shutil
import time

import pytest
import structlog
from test_app import ask, metric, version_of
from world import World, instance, spec_named, wait_until

from ct_assets.lake.paths import write_atomically
from ct_assets.resources.registry import CHAMPION
from ct_assets.serving import champion


@pytest.fixture
def own_world(tmp_path):
    """A home of its own, whose databases may be moved."""
    return World(tmp_path / "home")


def test_an_alias_that_is_moved_by_hand_serves_nothing_and_is_reported(world):
    spec = spec_named("by_hand")
    one, two = world.promote(spec, 5), world.promote(spec, 6)
    world.point(one, "rollback")
    with world.server(spec) as client:
        assert version_of(client, spec) == one.version
        world.registry.client().set_registered_model_alias(spec.name, CHAMPION, two.version)
        wait_until(lambda: client.get(f"/v1/models/{spec.name}").json()["problems"])
        (problem,) = client.get(f"/v1/models/{spec.name}").json()["problems"]
        assert f"names version {two.version}, and the ledger version {one.version}" in problem
        assert metric(client, 'ct_alias_mismatch{model="by_hand"}') == 1
        assert ask(client, spec, [instance()]).json()["version"] == one.version
        world.registry.point(spec.name, CHAMPION, one.version)
        wait_until(lambda: not client.get(f"/v1/models/{spec.name}").json()["problems"])
        assert metric(client, 'ct_alias_mismatch{model="by_hand"}') == 0


def test_an_alias_on_a_model_without_a_promotion_serves_nothing(world):
    spec = spec_named("alias_only")
    release = world.release(spec, 5)
    world.registry.point(spec.name, CHAMPION, release.version)
    with world.server(spec, ready=False) as client:
        wait_until(lambda: client.get(f"/v1/models/{spec.name}").json()["problems"])
        assert version_of(client, spec) is None
        assert ask(client, spec, [instance()]).status_code == 503


def test_registries_that_are_gone_or_replaced_are_reported_while_the_loaded_model_serves(own_world):
    spec = spec_named("registries")
    release = own_world.promote(spec, 5)
    models, features = own_world.home / "mlflow" / "mlflow.db", own_world.home / "feast" / "registry.db"
    with own_world.server(spec) as client:
        before = ask(client, spec, [instance()]).json()
        wait_until(lambda: metric(client, 'ct_registry_up{registry="features"}') == 1)
        kept = own_world.home / "kept.db"
        shutil.move(features, kept)
        wait_until(lambda: "registry of features is gone" in client.get("/readyz").text)
        assert metric(client, 'ct_registry_up{registry="features"}') == 0
        assert ask(client, spec, [instance()]).json() == before
        assert not features.exists(), "a server never creates a registry"
        shutil.copy(kept, features)
        wait_until(lambda: "registry of features was replaced" in client.get("/readyz").text)
        shutil.copy(models, own_world.home / "copy.db")
        shutil.move(own_world.home / "copy.db", models)
        wait_until(lambda: "registry of models was replaced" in client.get(f"/v1/models/{spec.name}").text)
        assert client.get("/readyz").status_code == 200
        assert ask(client, spec, [instance()]).json()["version"] == release.version


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "decisions.jsonl is gone; what is loaded goes on serving: restore the ledger"),
        (b"", "decisions.jsonl has no move of unread any more; what is loaded goes on serving"),
        (b"{}}}\n", "is not a ledger line"),
    ],
    ids=["gone", "empty", "garbage"],
)
def test_a_ledger_that_cannot_be_read_is_reported_while_the_loaded_model_serves(own_world, monkeypatch, content, words):
    monkeypatch.setattr(champion, "FIRST_PAUSE_SECONDS", 0.05)
    spec = spec_named("unread")
    own_world.promote(spec, 5)
    ledger = own_world.ledger.path
    with structlog.testing.capture_logs() as logs, own_world.server(spec) as client:
        before, whole = ask(client, spec, [instance()]).json(), ledger.read_bytes()
        if content is None:
            ledger.unlink()
        else:
            # Whole at once: what is read of half a file is another problem.
            write_atomically(ledger, whole + content if content else content)
        wait_until(lambda: client.get("/readyz").json()["problems"])
        time.sleep(0.5)
        ready = client.get("/readyz")
        assert ready.status_code == 200
        (problem,) = ready.json()["problems"]
        assert words in problem
        assert client.get(f"/v1/models/{spec.name}").json()["problems"] == [problem]
        assert ask(client, spec, [instance()]).json() == before
        write_atomically(ledger, whole)
        wait_until(lambda: not client.get("/readyz").json()["problems"])
    # A look between two steps of the fault may find another problem first; the same one is logged once.
    *earlier, line = (entry for entry in logs if entry["event"] == "champions_not_followed")
    assert len(earlier) <= 1
    assert line["problem"] == problem
    assert "exc_info" not in line
