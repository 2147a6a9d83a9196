"""An instance that has no prediction is an error of its own; the others of its request are answered."""

import numpy as np
import pytest
from test_app import ask
from world import instance, spec_named

from ct_assets.serving.live import Live
from ct_assets.serving.one_by_one import MOST_CALLS, one_by_one

BAD = {"raises": 401.0, "nan": 402.0, "above_one": 403.0}


@pytest.fixture(scope="module")
def moody(world):
    """A model that fails on some fares, each in another way."""
    spec = spec_named("moody")
    world.promote(spec, 5)
    answer = Live.answer

    def failing(self, inputs):
        if (inputs["fare"] == BAD["raises"]).any():
            raise ValueError("no such fare")
        predictions = answer(self, inputs)
        predictions[(inputs["fare"] == BAD["nan"]).to_numpy()] = np.nan
        predictions[(inputs["fare"] == BAD["above_one"]).to_numpy()] = 1.5
        return predictions

    with pytest.MonkeyPatch.context() as patch, world.server(spec) as client:
        patch.setattr(Live, "answer", failing)
        yield client, spec


@pytest.mark.parametrize("kind", BAD)
def test_one_instance_without_a_usable_prediction_is_named(moody, kind):
    client, spec = moody
    alone = ask(client, spec, [instance(fare=BAD[kind])])
    beside = ask(client, spec, [instance(fare=100.0), instance(fare=BAD[kind]), instance(fare=200.0)])
    good = ask(client, spec, [instance(fare=100.0), instance(fare=200.0)]).json()["predictions"]
    assert (alone.status_code, beside.status_code) == (422, 422)
    assert [error["instance"] for error in beside.json()["errors"]] == [1]
    assert "instances[1]: the model" in beside.json()["detail"]
    assert beside.json()["predictions"] == [good[0], None, good[1]]


def test_rows_that_fail_are_found_by_halves():
    def compute(rows):
        if bad & set(rows):
            raise ValueError("bad")
        return [row * 2 for row in rows]

    bad = {3, 700}
    found, failed = one_by_one(compute, list(range(1000)))
    assert set(failed) == bad
    assert found == {row: row * 2 for row in range(1000) if row not in bad}


def test_a_model_that_fails_on_everything_is_not_asked_for_ever():
    calls = []

    def compute(rows):
        calls.append(rows)
        raise ValueError("bad")

    found, failed = one_by_one(compute, list(range(1000)))
    assert (len(found), len(failed)) == (0, 1000)
    assert len(calls) < 3 * MOST_CALLS
