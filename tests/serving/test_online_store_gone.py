"""Without its online store, or without enough of an instance's features, the server does not answer from nothing."""

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError
from test_app import ask, metric, offline
from world import AT, World, instance, spec_named, wait_until

from ct_assets.core.spec import ServingSpec


def test_an_online_store_that_is_gone_is_an_error_until_it_is_back(tmp_path):
    world, spec = World(tmp_path / "home"), spec_named("gone")
    world.promote(spec, 5)
    expected = offline(world, spec, [instance()])
    database, aside = world.home / "feast" / "online.db", tmp_path / "online.db"
    with world.server(spec) as client, ThreadPoolExecutor(24) as pool:

        def codes():
            answers = list(pool.map(lambda _: ask(client, spec, [instance()]), range(72)))
            good = [answer.json()["predictions"][0]["score"] for answer in answers if answer.status_code == 200]
            assert set(good) <= set(expected)
            return {answer.status_code for answer in answers}

        assert codes() == {200}
        for suffix in ("-wal", "-shm", ""):
            if (part := database.with_name(database.name + suffix)).exists():
                shutil.move(part, aside.with_name(aside.name + suffix))
        assert codes() == {503}
        assert "online.db is not there" in ask(client, spec, [instance()]).json()["detail"]
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert "online.db is not there" in ready.json()["online_store"]
        assert "ct_online_store_up 0.0" in client.get("/metrics").text
        assert not database.exists(), "a reader never creates the store"
        # Another, empty store in its place is no better.
        World.write(world, "weather", {"origin": ["XXX"]}, temperature=[1.0], humidity=[1.0])
        assert codes() == {503}
        assert client.get("/readyz").status_code == 503
        database.unlink()
        for suffix in ("-wal", "-shm", ""):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
            if (part := aside.with_name(aside.name + suffix)).exists():
                shutil.move(part, database.with_name(database.name + suffix))
        assert codes() == {200}
        wait_until(lambda: client.get("/readyz").status_code == 200)


def test_a_file_that_is_no_store_is_an_error(tmp_path):
    world, spec = World(tmp_path / "home"), spec_named("emptied")
    world.promote(spec, 5)
    with world.server(spec) as client:
        database = world.home / "feast" / "online.db"
        database.unlink()
        database.write_bytes(b"")
        answer = ask(client, spec, [instance()])
        assert (answer.status_code, client.get("/readyz").status_code) == (503, 503)
        assert "cannot be read (no such table" in answer.json()["detail"]


def test_a_view_without_any_row_is_a_store_that_was_lost(tmp_path):
    """Whatever the model requires: without the view it would answer with another score, and not be ready."""
    world, spec = World(tmp_path / "home"), spec_named("lost_rows")
    world.promote(spec, 5)
    with world.server(spec) as client:
        before = ask(client, spec, [instance()]).json()
        with closing(sqlite3.connect(world.home / "feast" / "online.db")) as con, con:
            con.execute("DELETE FROM entity_rows WHERE view LIKE '%/plane'")
        answer, ready = ask(client, spec, [instance()]), client.get("/readyz")
        assert (answer.status_code, ready.status_code) == (503, 503)
        assert ready.json()["online_store"] in answer.json()["detail"]
        assert "no row of plane; expected those that were published" in answer.json()["detail"]
        world.write("plane", {"tailnum": ["N1"]}, year_built=[1991.0], seats=[150.0])
        assert ask(client, spec, [instance()]).json()["predictions"] == before["predictions"]


@pytest.fixture(scope="module")
def strict(world):
    """Three models of the same release: with a required view, with a high share, with a fallback."""
    rules = {
        "requires": ServingSpec(required_views=("weather",)),
        "shares": ServingSpec(min_fresh=0.9),
        "falls_back": ServingSpec(min_fresh=0.9, fallback=0.25),
    }
    specs = {name: spec_named(name, serving=rule) for name, rule in rules.items()}
    for spec in specs.values():
        world.promote(spec, 5)
    with world.server(*specs.values()) as client:
        yield client, specs


def test_an_instance_without_what_its_model_requires_is_an_error_of_its_own(world, strict):
    client, specs = strict
    asked = [instance(), instance(origin="nowhere"), instance(tailnum="N-new")]
    answer = ask(client, specs["requires"], asked)
    assert answer.status_code == 422
    assert [error["instance"] for error in answer.json()["errors"]] == [1]
    assert "instances[1]: no fresh row of required view weather (weather missing)" in answer.json()["detail"]
    scores = [p and p["score"] for p in answer.json()["predictions"]]
    first, third = offline(world, specs["requires"], [asked[0], asked[2]])
    assert scores == [first, None, third]
    assert metric(client, 'ct_instances_failed_total{model="requires",reason="features"}') == 1


def test_when_no_instance_has_enough_features_the_server_is_not_available(strict):
    client, specs = strict
    late = (AT + timedelta(hours=7)).isoformat()
    assert ask(client, specs["requires"], [instance()], late).status_code == 503
    short = ask(client, specs["shares"], [instance(tailnum=None)])
    # Of six inputs from stored features, two are of the plane.
    assert short.status_code == 503
    assert "67% of its stored features are fresh; expected at least 90% (plane missing)" in short.json()["detail"]


def test_the_declared_fallback_is_marked(world, strict):
    client, specs = strict
    asked = [instance(), instance(tailnum=None)]
    answer = ask(client, specs["falls_back"], asked).json()
    assert [p["score"] for p in answer["predictions"]] == [*offline(world, specs["falls_back"], asked[:1]), 0.25]
    ((number, reason),) = [(f["instance"], f["reason"]) for f in answer["fallbacks"]]
    assert (number, "67%" in reason) == (1, True)
    assert metric(client, 'ct_fallbacks_total{model="falls_back"}') == 1


def test_what_is_asked_about_is_a_time_that_the_store_can_answer_for(strict):
    client, specs = strict
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    ahead, long_ago = (ask(client, specs["requires"], [instance()], at) for at in (future, "2013-02-20T00:00:00Z"))
    assert (ahead.status_code, long_ago.status_code) == (422, 422)
    assert "which is in the future" in ahead.json()["detail"]
    assert "the online store only has the newest row of a key" in long_ago.json()["detail"]


@pytest.mark.parametrize(
    ("serving", "task", "words"),
    [
        ({"fallback": 1.5}, {}, "no prediction of a binary task"),
        ({"fallback": {"a": 1.0}}, {}, "expected a number"),
        ({"fallback": 0.5}, {"task": "multiclass", "classes": ("a", "b")}, "expected one number for each of a, b"),
        ({"fallback": {"a": 1.0}}, {"task": "multiclass", "classes": ("a", "b")}, "expected exactly a, b"),
        ({"min_fresh": 2}, {}, "less than or equal to 1"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(serving, task, words):
    with pytest.raises(ValidationError, match=words):
        spec_named("odd", serving=serving, **task)
