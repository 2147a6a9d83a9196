"""Answers of each kind of task, over real HTTP, against what the model predicts offline."""

import pandas as pd
import pytest
from world import AT, instance, spec_named

from ct_assets.core.spec import EstimatorSpec
from ct_assets.core.training import predict

CLASSES = ("soon", "late", "never")
LEVELS = (0.1, 0.5, 0.9)
FIELDS = {
    "multiclass": {"classes": CLASSES},
    "regression": {"estimator": EstimatorSpec(path="world.regressor", params={"max_iter": 5})},
    "quantile": {
        "quantiles": LEVELS,
        "estimator": EstimatorSpec(path="world.regressor", params={"max_iter": 5, "loss": "quantile"}),
    },
}
FARES = [60.0, 180.0, 320.0, 480.0]


@pytest.fixture(scope="module")
def served(world):
    """One server for a model of each task."""
    specs = {task: spec_named(f"of_{task}", task=task, **fields) for task, fields in FIELDS.items()}
    for spec in specs.values():
        world.promote(spec, 5)
    with world.server(*specs.values()) as client:
        yield client, specs


def asked(served, task):
    """The answers for a few fares, and what the model says offline to the same features."""
    client, specs = served
    body = {"instances": [instance(fare=fare) for fare in FARES], "at": AT.isoformat()}
    response = client.post(f"/v1/models/of_{task}:predict", json=body)
    assert response.status_code == 200, response.text
    return response.json()["predictions"], specs[task]


def offline(world, spec):
    known = {
        "carrier": "UA",
        "departure_hour": 15,
        "network_mean_3h": 9.5,
        "year_built": 1991.0,
        "seats": 150.0,
        "celsius": (50.0 - 32) * 5 / 9,
        "humidity": 55.0,
    }
    return predict(spec, world.model(5, spec), pd.DataFrame([{**known, "fare": fare} for fare in FARES]))


def test_a_multiclass_answer_has_the_class_and_every_probability(world, served):
    answers, spec = asked(served, "multiclass")
    expected = offline(world, spec)
    for answer, row in zip(answers, expected, strict=True):
        assert set(answer) == {"class", "probabilities", "features_at"}
        assert list(answer["probabilities"]) == list(CLASSES)
        assert list(answer["probabilities"].values()) == row.tolist()
        assert answer["class"] == CLASSES[row.argmax()]
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert len({tuple(answer["probabilities"].values()) for answer in answers}) > 1


def test_a_regression_answer_has_the_value(world, served):
    answers, spec = asked(served, "regression")
    assert all(set(answer) == {"value", "features_at"} for answer in answers)
    assert [answer["value"] for answer in answers] == offline(world, spec).tolist()


def test_a_quantile_answer_has_each_level_and_the_median(world, served):
    answers, spec = asked(served, "quantile")
    for answer, row in zip(answers, offline(world, spec), strict=True):
        assert set(answer) == {"value", "quantiles", "features_at"}
        assert answer["quantiles"] == dict(zip(("0.1", "0.5", "0.9"), row.tolist(), strict=True))
        assert answer["value"] == answer["quantiles"]["0.5"]
        assert row.tolist() == sorted(row)
        assert answer["features_at"]["plane"] is not None


def test_the_api_describes_the_answer_of_every_task(served):
    client, _ = served
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    kinds = schemas["PredictResponse"]["properties"]["predictions"]["items"]["anyOf"]
    fields = [set(schemas[kind["$ref"].rpartition("/")[2]]["properties"]) - {"features_at"} for kind in kinds]
    assert fields == [{"score"}, {"class", "probabilities"}, {"value", "quantiles"}, {"value"}]
