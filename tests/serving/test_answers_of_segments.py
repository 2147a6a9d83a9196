"""A segment with a champion of its own is answered by it; all others by the model's."""

import pytest
from test_app import offline
from world import AT, instance, spec_named, wait_until

from ct_assets.core.segments import Line
from ct_assets.lib.promotion import rollback
from ct_assets.resources.registry import CHAMPION


@pytest.fixture(scope="module")
def segmented(world):
    spec = spec_named("segmented").model_copy(update={"segment_by": "carrier"})
    world.promote(spec, 5)
    with world.server(spec) as client:
        yield client, spec


def ask(client, spec, *carriers):
    body = {"instances": [instance(carrier=carrier) for carrier in carriers], "at": AT.isoformat()}
    response = client.post(f"/v1/models/{spec.name}:predict", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def scores(answer):
    return [prediction["score"] for prediction in answer["predictions"]]


def test_each_instance_is_answered_by_the_champion_of_its_segment(world, segmented):
    client, spec = segmented
    pooled = ask(client, spec, "UA", "AA", None)
    assert pooled["served_by"] == [None, None, None]
    own = world.promote(spec, 20, "UA")
    wait_until(lambda: "UA" in client.get(f"/v1/models/{spec.name}").json()["segments"])
    answer = ask(client, spec, "AA", "UA", None, "UA")
    assert answer["served_by"] == [None, "UA", None, "UA"]
    assert answer["segments"] == {
        "UA": {"version": own.version, "artifact_digest": own.artifact_digest, "verdict": own.verdict}
    }
    assert [scores(answer)[0], scores(answer)[2]] == [scores(pooled)[1], scores(pooled)[2]]
    united = offline(world, spec, [instance(carrier="UA")], max_iter=20)
    assert [scores(answer)[1], scores(answer)[3]] == united * 2 != [scores(pooled)[0]] * 2
    assert 'ct_release_info{artifact_digest="' + own.artifact_digest in client.get("/metrics").text


def test_a_segment_that_is_handed_back_is_answered_by_the_model_s_own_champion(world, segmented):
    client, spec = segmented
    before = ask(client, spec, "DL")
    world.promote(spec, 7, "DL")
    wait_until(lambda: ask(client, spec, "DL")["served_by"] == ["DL"])
    rollback(world.lake, world.registry, Line(spec.name, "DL"), "a test")
    wait_until(lambda: ask(client, spec, "DL")["served_by"] == [None])
    assert scores(ask(client, spec, "DL")) == scores(before)
    assert f'model="{spec.name}/DL"' not in client.get("/metrics").text


def test_a_segment_s_refused_release_leaves_the_model_s_own(world, segmented):
    client, spec = segmented
    verdict = world.judge(spec, 20, floor=0.999)
    world.point(world.release(spec, 20, verdict=verdict, segment="B6"))
    wait_until(lambda: "B6" in client.get(f"/v1/models/{spec.name}").json()["segment_refusals"])
    assert ask(client, spec, "B6")["served_by"] == [None]
    assert client.get("/readyz").status_code == 200
    # Removing the alias by hand changes nothing; a move in the ledger does.
    world.registry.unpoint(Line(spec.name, "B6").registered, CHAMPION)
    handed_back = {"version": None, "previous": "1", "reason": "a test"}
    world.ledger.append("rollback", f"{spec.name}/B6", AT, handed_back)
    wait_until(lambda: client.get(f"/v1/models/{spec.name}").json()["segment_refusals"] == {})
