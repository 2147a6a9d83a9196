"""Naive models: worth by hand, and scored by the gate like any other."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier, DummyRegressor
from worlds_of_tasks import QUANTILES, TASKS, examples_of

from ct_assets.core.baselines import baseline_from, fit_baseline, in_words
from ct_assets.core.gate import GatePolicy, TestData, validate_new_model
from ct_assets.core.inputs import MISSING_CATEGORY
from ct_assets.core.spec import BaselineSpec

PRIOR = BaselineSpec()
LAST = BaselineSpec(kind="input", column="last")


def fitted(name, spec=PRIOR, examples=None, metric=""):
    task = TASKS[name]
    examples = examples_of(name) if examples is None else examples
    return task, fit_baseline(task, spec, metric or task.gate_metric, examples)


def test_the_prior_is_that_of_scikit_learn():
    rows = examples_of("multiclass", 5, 9)
    for name in ("binary", "multiclass"):
        task, model = fitted(name)
        peer = DummyClassifier(strategy="prior").fit(np.zeros((600, 1)), examples_of(name)["label"])
        expected = task.predict(peer, rows[["hour"]])
        np.testing.assert_allclose(task.predict(model, rows), expected, rtol=1e-12)
    for metric, strategy in {"mae": "median", "wape": "median", "rmse": "mean", "r2": "mean"}.items():
        task, model = fitted("regression", metric=metric)
        peer = DummyRegressor(strategy=strategy).fit(np.zeros((600, 1)), examples_of("regression")["label"])
        np.testing.assert_allclose(task.predict(model, rows), peer.predict(rows[["hour"]]))
    task, model = fitted("quantile")
    for place, level in enumerate(QUANTILES):
        peer = DummyRegressor(strategy="quantile", quantile=level)
        peer.fit(np.zeros((600, 1)), examples_of("quantile")["label"])
        np.testing.assert_allclose(task.predict(model, rows)[:, place], peer.predict(rows[["hour"]]))


def test_the_binary_prior_is_exactly_the_share_of_positives():
    label = examples_of("binary", 577)["label"]
    assert float(fitted("binary", examples=examples_of("binary", 577))[1].prediction) == int(label.sum()) / 577


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("spec", [PRIOR, LAST], ids=["prior", "last"])
def test_a_stored_baseline_predicts_the_same(name, spec):
    rows = examples_of(name, 50, 3)
    task, model = fitted(name, spec)
    again = baseline_from(json.loads(json.dumps(model.to_dict())))
    np.testing.assert_array_equal(task.predict(again, rows), task.predict(model, rows))


def test_the_last_value_is_predicted_and_where_it_is_missing_the_prior():
    rows = pd.DataFrame({"last": [3.5, np.nan, np.inf]})
    task, model = fitted("regression", LAST)
    median = examples_of("regression")["label"].median()
    np.testing.assert_allclose(task.predict(model, rows), [3.5, median, median])


def test_quantiles_are_the_last_value_and_those_of_its_errors():
    examples = examples_of("quantile")
    examples.loc[:99, "last"] = np.nan
    task, model = fitted("quantile", LAST, examples)
    known = examples.iloc[100:]
    offsets = np.quantile(known["label"] - known["last"], QUANTILES)
    expected = [3.5 + offsets, np.quantile(examples["label"], QUANTILES)]
    np.testing.assert_allclose(task.predict(model, pd.DataFrame({"last": [3.5, np.nan]})), expected)
    task, model = fitted("quantile", LAST, examples.assign(last=np.nan))
    np.testing.assert_allclose(task.predict(model, pd.DataFrame({"last": [3.5]})), expected[1:])


def test_the_last_class_gives_the_classes_that_followed_it():
    examples = pd.DataFrame(
        {
            "last": ["low"] * 4 + ["high"] * 2 + [MISSING_CATEGORY, None],
            "label": ["low", "low", "middle", "low", "high", "high", "low", "high"],
        }
    )
    task, model = fitted("multiclass", LAST, examples)
    prior = np.array([4, 1, 3]) / 8
    after_low, after_high = (np.array([3, 1, 0]) + 3 * prior) / 7, (np.array([0, 0, 2]) + 3 * prior) / 5
    found = task.predict(model, pd.DataFrame({"last": ["high", "low", "new", None, MISSING_CATEGORY]}))
    np.testing.assert_allclose(found, [after_high, after_low, prior, prior, prior])
    assert task.problem(found) is None


def test_the_last_class_of_a_binary_task_may_be_a_number():
    examples = pd.DataFrame({"last": [1.0, 1.0, 0.0, np.nan], "label": [1, 1, 0, 0]})
    task, model = fitted("binary", LAST, examples)
    found = task.predict(model, pd.DataFrame({"last": [1.0, 0.0, np.nan]}))
    np.testing.assert_allclose(found, [(2 + 2 * 0.5) / 4, (0 + 2 * 0.5) / 3, 0.5])


@pytest.mark.parametrize("spec", [PRIOR, LAST], ids=["prior", "last"])
@pytest.mark.parametrize("name", TASKS)
def test_the_gate_scores_it_on_the_same_rows_and_can_demand_to_beat_it(name, spec):
    task, model = fitted(name, spec)
    rows = examples_of(name, 1500, 2)
    data = TestData(rows[["hour", "last", "side"]], rows["label"])
    verdict = validate_new_model(model, None, data, GatePolicy(beat_baseline=True), task=task, baseline=model)
    expected = task.measure(task.gate_metric, task.codes(rows["label"]), task.predict(model, rows))
    assert verdict.metrics["baseline"][task.gate_metric] == pytest.approx(expected)
    (check,) = (c for c in verdict.checks if c.name == "beats_baseline")
    assert (check.passed, check.value, check.limit) == (False, pytest.approx(expected), pytest.approx(expected))


def test_the_last_value_beats_the_prior_where_labels_persist():
    for name in ("regression", "quantile"):
        rows = examples_of(name, 1500, 2)
        losses = [
            task.measure(task.gate_metric, task.codes(rows["label"]), task.predict(model, rows))
            for task, model in (fitted(name, LAST), fitted(name, PRIOR))
        ]
        assert losses[0] < losses[1]


@pytest.mark.parametrize("name", TASKS)
def test_it_can_be_told_in_words(name):
    assert in_words(PRIOR, TASKS[name]).endswith("for every row")
    assert "last" in in_words(LAST, TASKS[name])
