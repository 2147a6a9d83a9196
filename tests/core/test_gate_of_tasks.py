"""The gate for each kind of task: one rule, the task's own numbers."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import log_loss, mean_absolute_error, mean_pinball_loss, roc_auc_score
from worlds_of_tasks import CLASSES, QUANTILES, TASKS, examples_of, spec_of

from ct_assets.core.artifact import load_model
from ct_assets.core.gate import GatePolicy, TestData, validate_new_model
from ct_assets.core.inputs import model_inputs
from ct_assets.core.training import train

EACH = pytest.mark.parametrize("name", TASKS)
FEATURES = ["hour", "last", "noise", "side"]


def trained(name, rows=600, seed=1):
    spec = spec_of(name)
    made = train(spec, examples_of(name, rows, seed), examples_of(name, 50, 2))
    return load_model(made.payload, made.digest)


MODELS = {name: (trained(name), trained(name, 12, 6)) for name in TASKS}
"""For each task a model that has learned from much, and one from little."""


class Altered:
    """A model whose predictions are changed, given the rows."""

    def __init__(self, model, change):
        self.model, self.change = model, change

    def predict(self, features):
        return self.change(self.model.predict(features), features)

    def predict_proba(self, features):
        return self.change(self.model.predict_proba(features), features)


def data(name, rows=2000, slices=True):
    held_out = examples_of(name, rows, 3)
    features = model_inputs(spec_of(name), held_out)
    return TestData(features, held_out["label"], features[["side"]] if slices else None)


def judged(name, challenger, champion=None, policy=None, **given):
    return validate_new_model(challenger, champion, data(name), policy, task=TASKS[name], **given)


def check(verdict, name):
    return next(c for c in verdict.checks if c.name == name)


def test_slices_by_a_number_that_counts_are_named_without_a_fraction():
    rows = data("regression", 90, slices=False)
    by = pd.DataFrame({"weekday": [1.0, 2.0, np.nan] * 30, "share": [0.5, 1.25, 3.0] * 30})
    test = TestData(rows.features, rows.label, by)
    verdict = validate_new_model(MODELS["regression"][0], None, test, task=TASKS["regression"])
    named = [(s.column, s.value) for s in verdict.slices]
    assert named == [
        (c, v) for c, values in (("weekday", ("(missing)", "1", "2")), ("share", ("0.5", "1.25", "3"))) for v in values
    ]


ORACLES = {
    "binary": lambda y, model, x: roc_auc_score(y.astype(int), model.predict_proba(x)[:, 1]),
    "multiclass": lambda y, model, x: log_loss(y, model.predict_proba(x), labels=model.classes_),
    "regression": lambda y, model, x: mean_absolute_error(y, model.predict(x)),
    "quantile": lambda y, model, x: np.mean(
        [mean_pinball_loss(y, np.sort(model.predict(x))[:, i], alpha=q) for i, q in enumerate(QUANTILES)]
    ),
}


@EACH
def test_a_better_model_passes_and_a_worse_one_does_not_by_the_numbers_of_scikit_learn(name):
    good, bad = MODELS[name]
    verdict = judged(name, good, bad)
    assert verdict.passed, verdict.reasons()
    verdict.verify()
    rows = data(name)
    for side, model in {"challenger": good, "champion": bad}.items():
        expected = ORACLES[name](rows.label, model, rows.features)
        assert verdict.metrics[side][TASKS[name].gate_metric] == pytest.approx(expected)
    assert verdict.policy.metric == TASKS[name].gate_metric
    assert {s.value for s in verdict.slices} == {"left", "right"} and all(s.judged for s in verdict.slices)
    worse = judged(name, bad, good, GatePolicy(tolerance=0, slice_tolerance=0))
    assert {"not_worse_than_champion", "slices_not_worse"} <= {c.name for c in worse.checks if not c.passed}


@EACH
def test_any_metric_with_a_direction_can_be_gated_on(name):
    good, bad = MODELS[name]
    for metric in TASKS[name].metrics:
        if metric in ("bias", "coverage"):
            continue
        found = judged(name, good, bad, GatePolicy(metric=metric))
        assert found.metrics["challenger"][metric] is not None
        assert check(found, "not_worse_than_champion").value == found.metrics["challenger"][metric]


def test_a_metric_of_another_task_is_refused():
    with pytest.raises(ValueError, match="unknown metric of a regression task 'auc'"):
        judged("regression", MODELS["regression"][0], policy=GatePolicy(metric="auc"))


def test_metrics_that_are_asked_for_are_recorded_and_others_are_not():
    model = MODELS["binary"][0]
    assert "average_precision" not in judged("binary", model).metrics["challenger"]
    assert judged("binary", model, metrics=("average_precision",)).metrics["challenger"]["average_precision"] > 0.9


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("multiclass", lambda p, x: p * 0.9, "2000 of 2000 rows do not sum to 1"),
        ("multiclass", lambda p, x: p[:, :2], "shape (2000, 2) for 2000 rows, expected (n, 3)"),
        ("regression", lambda p, x: np.where(np.arange(len(p)) == 7, np.nan, p), "1 of 2000 predictions are NaN"),
        ("regression", lambda p, x: 1 / 0, "predict raised ZeroDivisionError"),
        ("quantile", lambda p, x: p[:, 0], "one column a quantile"),
    ],
)
def test_unusable_predictions_are_a_failed_check(name, change, told):
    good = MODELS[name][0]
    verdict = judged(name, Altered(good, change), good)
    assert not verdict.passed
    assert told in check(verdict, "challenger_predictions_usable").detail


@EACH
def test_unusable_labels_are_a_failed_check(name):
    rows = data(name)
    label = rows.label.astype(object).where(np.arange(len(rows.label)) != 3, None)
    verdict = validate_new_model(MODELS[name][0], None, TestData(rows.features, label), task=TASKS[name])
    assert not verdict.passed
    assert "1 of 2000 are missing" in check(verdict, "labels_usable").detail


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("multiclass", lambda p, x: 0.5 * p + 0.5 / 3, "expected calibration error of the most likely class"),
        ("regression", lambda p, x: p + 3, "bias relative to the mean absolute label"),
        ("quantile", lambda p, x: p + 3, "mean coverage error of the quantiles"),
    ],
)
def test_calibration_is_what_the_task_calls_so(name, change, words):
    good, policy = MODELS[name][0], GatePolicy(max_calibration_error=0.08)
    assert check(judged(name, good, policy=policy), "calibrated").passed
    off = check(judged(name, Altered(good, change), policy=policy), "calibrated")
    assert not off.passed
    assert off.detail.startswith(words)


def test_a_bias_counts_relative_to_the_size_of_the_labels():
    rows, good = data("regression"), MODELS["regression"][0]
    verdict = judged("regression", Altered(good, lambda p, x: p + 3), policy=GatePolicy(max_calibration_error=1))
    expected = abs((good.predict(rows.features) + 3 - rows.label).mean()) / rows.label.abs().mean()
    assert check(verdict, "calibrated").value == pytest.approx(expected)


@EACH
def test_a_feature_that_knows_the_label_is_named_whatever_the_task(name):
    rows = data(name, slices=False)
    codes = TASKS[name].codes(rows.label)
    told = -codes if name != "multiclass" else (rows.label == "middle").astype(float)
    verdict = validate_new_model(
        MODELS[name][0], None, TestData(rows.features.assign(told=told), rows.label), task=TASKS[name]
    )
    found = check(verdict, "no_leak")
    assert (found.passed, found.severity, found.value) == (False, "WARN", pytest.approx(1.0))
    assert "alone, told (1)" in found.detail or ", told (1)" in found.detail


def test_what_a_feature_tells_of_a_number_is_its_rank_correlation():
    rows = data("regression", slices=False)
    features = rows.features.assign(last=rows.features["last"].where(np.arange(2000) % 5 > 0))
    expected = {
        column: (1 + abs(spearmanr(features[column], rows.label, nan_policy="omit")[0])) / 2
        for column in ("hour", "last", "noise")
    }
    task = TASKS["regression"]
    for column, value in expected.items():
        known = features[column].notna().to_numpy()
        found = task.alone(features.loc[known, column], task.codes(rows.label)[known])
        assert found == pytest.approx(value, abs=1e-9)
    assert task.alone(pd.Series([1.0, 1.0]), np.array([1.0, 2.0])) == 0.5


def test_what_a_feature_tells_of_classes_is_its_best_auc_against_the_rest():
    rows, task = data("multiclass", slices=False), TASKS["multiclass"]
    areas = [roc_auc_score(rows.label == name, rows.features["hour"]) for name in CLASSES]
    found = task.alone(rows.features["hour"], task.codes(rows.label))
    assert found == pytest.approx(max(max(area, 1 - area) for area in areas))


@pytest.mark.parametrize("name", ["regression", "quantile"])
def test_a_floor_of_an_error_is_the_most_that_is_accepted(name):
    good = MODELS[name][0]
    reached = judged(name, good).metrics["challenger"][TASKS[name].gate_metric]
    assert judged(name, good, policy=GatePolicy(floor=reached * 1.01)).passed
    assert not judged(name, good, policy=GatePolicy(floor=reached * 0.99)).passed


@pytest.mark.parametrize(("name", "metric"), [("regression", "mae"), ("regression", "rmse"), ("quantile", "pinball")])
def test_a_tolerance_is_a_share_of_a_loss_in_the_unit_of_the_labels(name, metric):
    """In metres or in millimetres, the verdict is the same; a useless model never passes for a good one."""
    good, rows = MODELS[name][0], data(name, slices=False)
    for scale in (1.0, 1e-6, 1e6):
        label, policy = rows.label * scale, GatePolicy(metric=metric, tolerance=0.01)
        scaled = TestData(rows.features, label)

        def off(by, scale=scale):
            return Altered(good, lambda p, x: (p + by) * scale)

        better, worse = (validate_new_model(off(by), off(0.0), scaled, policy, task=TASKS[name]) for by in (0.0, 3.0))
        champion = better.metrics["champion"][metric]
        assert check(better, "not_worse_than_champion").limit == pytest.approx(champion * 1.01)
        assert (better.passed, worse.passed) == (True, False)


@pytest.mark.parametrize("metric", ["auc", "f1"])
def test_a_tolerance_on_a_scale_of_its_own_is_absolute(metric):
    good, bad = MODELS["binary"]
    verdict = judged("binary", good, bad, GatePolicy(metric=metric, tolerance=0.01))
    assert check(verdict, "not_worse_than_champion").limit == pytest.approx(verdict.metrics["champion"][metric] - 0.01)


def test_a_perfect_champion_is_kept_and_equalled():
    rows = data("regression", 1200, slices=False)
    features = rows.features.assign(truth=rows.label)
    test = TestData(features, rows.label)

    class Exact:
        def __init__(self, off=0.0):
            self.off = off

        def predict(self, x):
            return x["truth"].to_numpy() + self.off

    task = TASKS["regression"]
    assert validate_new_model(Exact(), Exact(), test, task=task).passed
    assert not validate_new_model(Exact(1e-9), Exact(), test, task=task).passed
