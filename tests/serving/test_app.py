import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info
from world import AT, ORIGINS, TAILS, changed, instance, spec_named, wait_until

from ct_assets.core.training import predict
from ct_assets.core.verdict import all_passed
from ct_assets.serving import champion
from ct_assets.serving.live import Serving, load_release

NOW = AT.isoformat()


@pytest.fixture(scope="module")
def checked(world):
    """A model that serves all through this module."""
    spec = spec_named("checked")
    world.promote(spec, 5)
    with world.server(spec) as client:
        yield client, spec


def ask(client, spec, instances, at=NOW):
    # Written by `json`, which spells what httpx refuses to.
    return post(client, spec, json.dumps({"instances": instances, "at": at}))


def post(client, spec, body):
    return client.post(f"/v1/models/{spec.name}:predict", content=body, headers={"content-type": "application/json"})


def version_of(client, spec):
    release = client.get(f"/v1/models/{spec.name}").json()["release"]
    return release and release["version"]


def refused(client, spec):
    return (client.get(f"/v1/models/{spec.name}").json()["last_refusal"] or {}).get("reason", "")


def metric(client, line):
    return next((float(text.split()[-1]) for text in client.get("/metrics").text.splitlines() if line in text), None)


def offline(world, spec, instances, max_iter=5):
    """What the model predicts for the rows that the world wrote, put together by hand."""
    rows = []
    for given in instances:
        tail = TAILS.index(given["tailnum"]) if given["tailnum"] in TAILS else None
        origin = ORIGINS.index(given["origin"]) if given["origin"] in ORIGINS else None
        rows.append(
            {
                "carrier": given["carrier"],
                "fare": given["fare"],
                "departure_hour": pd.Timestamp(given["sched_dep"]).tz_convert("UTC").hour,
                "network_mean_3h": 9.5,
                "year_built": None if tail is None else 1990.0 + tail,
                "seats": None if tail is None else [50.0, 150.0][tail % 2],
                "celsius": None if origin is None else ([30.0, 50.0, 70.0][origin] - 32) * 5 / 9,
                "humidity": None if origin is None else [40.0, 55.0, 60.0][origin],
            }
        )
    return predict(spec, world.model(max_iter), pd.DataFrame(rows)).tolist()


def test_the_server_predicts_what_the_model_predicts_offline(world):
    spec = spec_named("same")
    release = world.promote(spec, 5)
    rng = np.random.default_rng(3)
    instances = [
        instance(
            carrier=str(rng.choice(["AA", "UA", "XX"])),
            tailnum=[*TAILS, "N-unknown", None][rng.integers(22)],
            origin=[*ORIGINS, None][rng.integers(4)],
            sched_dep=f"2013-03-01T{rng.integers(24):02d}:30:00+02:00",
            fare=float(rng.uniform(50, 500)),
        )
        for _ in range(300)
    ]
    with world.server(spec) as client:
        answer = ask(client, spec, instances).json()
        alone = [ask(client, spec, [given]).json()["predictions"][0] for given in instances[:20]]
    assert (answer["model"], answer["version"]) == (spec.name, release.version)
    assert answer["release"] == {"artifact_digest": release.artifact_digest, "verdict": release.verdict}
    assert [p["score"] for p in answer["predictions"]] == offline(world, spec, instances)
    assert len({p["score"] for p in answer["predictions"]}) > 20
    assert alone == answer["predictions"][:20]


def test_a_feature_is_used_up_to_its_ttl_and_null_after(world):
    spec = spec_named("ttl")
    world.promote(spec, 5)
    with world.server(spec) as client:
        last = ask(client, spec, [instance()], (AT + timedelta(hours=6)).isoformat()).json()["predictions"][0]
        late = ask(client, spec, [instance()], (AT + timedelta(hours=6, microseconds=1)).isoformat())
        assert metric(client, 'ct_feature_rows_absent_total{model="ttl",reason="expired",view="weather"}') == 1
    assert last["features_at"] == {"network_delays": NOW, "plane": NOW, "weather": NOW}
    assert [last["score"]] == offline(world, spec, [instance()])
    # The weather lives six hours, the network a day, the plane for ever. The on-demand view sees no expired weather.
    prediction = late.json()["predictions"][0]
    assert prediction["features_at"] == {"network_delays": NOW, "plane": NOW, "weather": None}
    assert [prediction["score"]] == offline(world, spec, [instance(origin="nowhere")])


def test_without_a_moment_freshness_is_judged_now(world):
    spec = spec_named("wall_clock")
    world.promote(spec, 5)
    with world.server(spec) as client:
        answer = client.post("/v1/models/wall_clock:predict", json={"instances": [instance()]}).json()
    assert answer["predictions"][0]["features_at"] == {"network_delays": None, "plane": NOW, "weather": None}


def test_an_unknown_key_has_no_features(world):
    spec = spec_named("unknown_key")
    world.promote(spec, 5)
    with world.server(spec) as client:
        nobody, new = ask(client, spec, [instance(tailnum=None), instance(tailnum="N-new")]).json()["predictions"]
    assert nobody == new
    assert nobody["features_at"] == {"network_delays": NOW, "plane": None, "weather": NOW}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sched_dep": "2013-03-01T15:30:00"}, ["instances[0].sched_dep", "no time zone", "expected ISO 8601"]),
        ({"sched_dep": 1362150000}, ["instances[0].sched_dep", "1362150000", "expected ISO 8601"]),
        ({"sched_dep": "tomorrow"}, ["instances[0].sched_dep", "'tomorrow'"]),
        ({"sched_dep": None}, ["instances[0].sched_dep", "None"]),
        ({"sched_dep": "0001-01-01T00:00:00+05:00"}, ["instances[0].sched_dep", "no moment in UTC"]),
        ({"fare": "dear"}, ["instances[0].fare", "'dear'", "expected a finite number"]),
        ({"fare": True}, ["instances[0].fare", "expected a finite number"]),
        ({"fare": 10**400}, ["instances[0].fare", "expected a finite number"]),
        ({"tailnum": 5}, ["instances[0].tailnum", "5", "expected text"]),
        ({"tailnum": "\ud800"}, ["instances[0].tailnum", "expected text"]),
        ({"tail": "N1"}, ["instances[0] has unknown tail", "expected exactly carrier, network, origin, tailnum"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(checked, given, words):
    client, spec = checked
    response = ask(client, spec, [instance(**given)])
    assert response.status_code == 422
    for word in words:
        assert word in response.json()["detail"]


def test_a_wrong_body_is_named_with_what_is_expected(checked):
    client, spec = checked
    lacking = ask(client, spec, [instance(), {k: v for k, v in instance().items() if k != "origin"}])
    naive = ask(client, spec, [instance()], "2013-03-01T12:00:00")
    empty, many = ask(client, spec, []), ask(client, spec, [instance()] * 1001)
    extra = client.post("/v1/models/checked:predict", json={"instances": [instance()], "when": NOW})
    broken = post(client, spec, "{")
    most = ask(client, spec, [instance()] * 1000)
    assert most.status_code == 200
    assert {r.status_code for r in (lacking, naive, empty, many, extra, broken)} == {422}
    assert "instances[1] lacks origin; expected exactly" in lacking.json()["detail"]
    assert "at is '2013-03-01T12:00:00', which has no time zone" in naive.json()["detail"]
    assert "at least 1 item" in empty.json()["detail"]
    assert "at most 1000 items" in many.json()["detail"]
    assert "when: Extra inputs are not permitted" in extra.json()["detail"]
    assert 'expected a body of type application/json, as {"instances"' in broken.json()["detail"]


def test_an_unknown_model_is_not_found(checked):
    client, _ = checked
    responses = [client.get("/v1/models/nobody"), ask(client, spec_named("nobody"), [instance()])]
    assert metric(client, 'ct_requests_total{model="(unknown)",status="404"}') >= 1
    assert "nobody" not in client.get("/metrics").text
    assert [r.status_code for r in responses] == [404, 404]
    assert responses[0].json()["detail"] == "no model 'nobody' here; models: checked"


def test_the_server_is_ready_once_what_has_a_champion_is_loaded(world):
    first, second = spec_named("ready_first"), spec_named("ready_second")
    release = world.promote(first, 5)
    with world.server(first, second, ready=False) as client:
        assert client.get("/healthz").status_code == 200
        wait_until(lambda: version_of(client, first) and "promotion" in client.get("/readyz").text)
        waiting = client.get("/readyz")
        # A model that is new in a deployment must not take the others out of service.
        assert waiting.status_code == 200
        assert list(waiting.json()["waiting"]) == [second.name]
        response = ask(client, second, [instance()])
        assert response.status_code == 503
        assert "ready_second has no champion yet: the ledger has no promotion of it" in response.json()["detail"]
        world.promote(second, 5)
        wait_until(lambda: not client.get("/readyz").json()["waiting"])
        status = client.get("/v1/models/ready_first").json()
    assert status["release"]["artifact_digest"] == release.artifact_digest
    assert status["release"]["feature_versions"] == release.feature_versions
    assert (status["waiting_for"], status["last_refusal"]) == (None, None)


def test_a_swap_under_load_drops_nothing_and_mixes_nothing(world):
    spec = spec_named("swap")
    old, new = world.promote(spec, 5), world.release(spec, 20)
    expected = {
        old.version: offline(world, spec, [instance()], 5),
        new.version: offline(world, spec, [instance()], 20),
    }
    assert expected[old.version] != expected[new.version]

    def answer(_):
        response = ask(client, spec, [instance()])
        answer = response.json()
        return response.status_code, answer["version"], [p["score"] for p in answer["predictions"]]

    def one_client(_):
        before = [answer(n) for n in range(30)]
        if not moved:
            moved.append(True)
            world.point(new)
        deadline, after = time.monotonic() + 300, []
        while (len(after) < 45 or after[-1][1] != new.version) and time.monotonic() < deadline:
            after.append(answer(0))
        return before + after

    moved: list[bool] = []
    with world.server(spec) as client, ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(one_client, range(4)))
        assert metric(client, 'ct_swaps_total{model="swap"}') == 1
        assert metric(client, f'artifact_digest="{new.artifact_digest}"') == 1
        assert old.artifact_digest not in client.get("/metrics").text
        total = metric(client, 'ct_requests_total{model="swap",status="200"}')
    assert total == sum(map(len, runs)) >= 300
    for run in runs:
        assert {code for code, _, _ in run} == {200}
        versions = [version for _, version, _ in run]
        assert versions == sorted(versions, key=int), "a client saw the old version after the new one"
        assert {versions[0], versions[-1]} == {old.version, new.version}
        for _, version, scores in run:
            assert scores == expected[version]


def test_a_tampered_artifact_is_refused_until_it_is_mended(world, monkeypatch):
    monkeypatch.setattr(champion, "FIRST_PAUSE_SECONDS", 600.0)
    spec = spec_named("tampered")
    old, new = world.promote(spec, 5), world.release(spec, 20)
    path = Path(new.artifact)
    genuine = path.read_bytes()
    with world.server(spec) as client:
        path.write_bytes(world.trained(10).payload)
        world.point(new)
        wait_until(lambda: refused(client, spec))
        assert "it is not the model that was judged" in refused(client, spec)
        time.sleep(0.5)  # ten polls
        assert metric(client, 'ct_refusals_total{model="tampered"}') == 1, "the same files were tried again and again"
        assert ask(client, spec, [instance()]).json()["version"] == old.version
        assert client.get("/readyz").status_code == 200
        path.write_bytes(genuine)
        wait_until(lambda: version_of(client, spec) == new.version)
        assert "not the model" in refused(client, spec), "the last refusal stays on record"


def test_a_verdict_that_was_gone_is_noticed_when_it_is_back(world, monkeypatch):
    monkeypatch.setattr("ct_assets.serving.champion.FIRST_PAUSE_SECONDS", 600)
    spec = spec_named("mended")
    new = world.release(spec, 20)
    path = world.home / "verdicts" / spec.name / f"{new.verdict}.json"
    kept = path.read_bytes()
    path.unlink()
    world.point(new)
    with world.server(spec, ready=False) as client:
        wait_until(lambda: refused(client, spec))
        assert "is gone" in refused(client, spec)
        path.write_bytes(kept)
        wait_until(lambda: version_of(client, spec) == new.version)


def forge_seal(world, spec):
    """A rejection turned into a pass and sealed again: only the ledger knows better."""
    verdict = world.judge(spec, 20, floor=0.999)
    assert not verdict.passed
    checks = tuple(check.model_copy(update={"passed": True}) for check in verdict.checks)
    forged = verdict.model_copy(update={"checks": checks, "passed": all_passed(checks)})
    forged = forged.model_copy(update={"digest": forged.computed_digest()})
    forged.verify()
    return world.release(spec, 20, verdict=forged, recorded=False)


def use_a_rejection(world, spec):
    return world.release(spec, 20, verdict=world.judge(spec, 20, floor=0.999))


def edit_the_verdict(world, spec):
    release = world.release(spec, 20)
    changed(world.home / "verdicts" / spec.name / f"{release.verdict}.json", rows=7)
    return release


def bind_another_artifact(world, spec):
    release = world.release(spec, 20)
    changed(world.home / "releases" / spec.name / f"{release.version}.json", artifact_digest=world.trained(10).digest)
    return release


def rename_the_old_release(world, spec):
    release = world.release(spec, 20)
    changed(world.home / "releases" / spec.name / f"{release.version}.json", version="1")
    return release


def lose_the_release(world, spec):
    release = world.release(spec, 20)
    (world.home / "releases" / spec.name / f"{release.version}.json").unlink()
    return release


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (forge_seal, "the ledger knows no such verdict"),
        (use_a_rejection, "its verdict is a rejection"),
        (edit_the_verdict, "it was changed after the gate sealed it"),
        (bind_another_artifact, "its verdict is about another artifact"),
        (rename_the_old_release, "is about version 1 of"),
        (lose_the_release, "is no release"),
    ],
)
def test_a_release_without_a_genuine_verdict_is_refused(world, forge, reason):
    spec = spec_named(f"forged_{forge.__name__}")
    old = world.promote(spec, 5)
    with world.server(spec) as client:
        world.point(forge(world, spec))
        wait_until(lambda: refused(client, spec))
        assert reason in refused(client, spec)
        assert ask(client, spec, [instance()]).json()["version"] == old.version


def test_a_refused_first_release_leaves_the_model_without_a_champion(world):
    spec = spec_named("refused_first")
    world.point(use_a_rejection(world, spec))
    with world.server(spec, ready=False) as client:
        wait_until(lambda: refused(client, spec))
        response = ask(client, spec, [instance()])
        assert client.get("/readyz").status_code == 503
    assert response.status_code == 503
    assert "version 1 was refused" in response.json()["detail"]
    assert "its verdict is a rejection" in response.json()["detail"]


def test_a_release_of_other_feature_definitions_is_refused(world):
    world.apply_service("serving_test_v2")
    spec = spec_named("features", feature_service="serving_test_v2")
    old, new = world.promote(spec, 5), world.release(spec, 20)
    with world.server(spec) as client:
        world.apply_service("serving_test_v2", without=("engines",))
        world.point(new)
        wait_until(lambda: refused(client, spec))
        assert "views plane of serving_test_v2 are not those that version 2" in refused(client, spec)
        assert ask(client, spec, [instance()]).json()["version"] == old.version


def test_a_model_that_cannot_predict_is_refused(world):
    trained = spec_named("broken")
    inputs = {name: kind for name, kind in trained.inputs.items() if name != "carrier"}
    world.promote(trained, 5)
    with world.server(spec_named("broken", inputs=inputs), ready=False) as client:
        wait_until(lambda: refused(client, trained))
        assert "cannot predict for an instance without known features" in refused(client, trained)
        assert "carrier" in refused(client, trained)
        assert ask(client, trained, [instance()]).status_code == 503


def test_a_model_that_reads_what_its_service_lacks_is_refused(world):
    trained = spec_named("lacking")
    world.promote(trained, 5)
    with world.server(spec_named("lacking", inputs={**trained.inputs, "mood": "numeric"}), ready=False) as client:
        wait_until(lambda: refused(client, trained))
        assert "reads 'mood', which feature service serving_test_v1 has in no view" in refused(client, trained)


def test_rollback_is_one_move_of_the_alias_and_losing_it_changes_nothing(world):
    spec = spec_named("rollback")
    old = world.promote(spec, 5)
    with world.server(spec) as client:
        new = world.promote(spec, 20)
        wait_until(lambda: version_of(client, spec) == new.version)
        world.point(old, "rollback")
        wait_until(lambda: version_of(client, spec) == old.version)
        answer = ask(client, spec, [instance()]).json()
        assert [p["score"] for p in answer["predictions"]] == offline(world, spec, [instance()], 5)
        assert metric(client, 'ct_swaps_total{model="rollback"}') == 2
        world.registry.client().delete_registered_model_alias(spec.name, "champion")
        time.sleep(0.3)
        assert ask(client, spec, [instance()]).json()["version"] == old.version


def test_a_request_computes_with_no_more_threads_than_the_spec_allows(world):
    spec = spec_named("threads")
    release = world.promote(spec, 5)
    live = load_release(world.store, world.releases(spec.name), spec, release.version)
    given = {**{key: ["all"] for key in spec.entities}, "sched_dep": [AT], "fare": [1.0]}

    def limits_after_a_request():
        Serving(live, {}).predict(given, AT)
        return {pool["num_threads"] for pool in threadpool_info()}

    with ThreadPoolExecutor(1) as new_thread:
        assert new_thread.submit(limits_after_a_request).result() == {spec.threads}


def test_reports_are_served_as_soon_as_there_are_any(world, checked):
    client, _ = checked
    assert client.get("/reports/flight.html").status_code == 404
    (world.home / "reports").mkdir()
    (world.home / "reports" / "flight.html").write_text("<h1>Late?</h1>")
    (world.home / "secret.txt").write_text("secret")
    page, outside = client.get("/reports/flight.html"), client.get("/reports/..%2fsecret.txt")
    assert (page.status_code, page.text) == (200, "<h1>Late?</h1>")
    assert page.headers["content-type"].startswith("text/html")
    assert outside.status_code == 404
