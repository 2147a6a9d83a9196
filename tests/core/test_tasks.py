"""Each kind of task: what it asks, checks and stores, from the spec to a trained model."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_absolute_error, roc_auc_score
from worlds_of_tasks import CLASSES, FIELDS, INPUTS, PATHS, QUANTILES, TASKS, examples_of, spec_of

from ct_assets.core.artifact import load_model
from ct_assets.core.drift import compare
from ct_assets.core.gate import GatePolicy
from ct_assets.core.inputs import model_inputs
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.profile import NumericColumn, profile
from ct_assets.core.replay import fit_before, monthly_metrics
from ct_assets.core.spec import EstimatorSpec
from ct_assets.core.tasks import LABEL, PredictionError, task_of
from ct_assets.core.training import predict, train

EACH = pytest.mark.parametrize("name", TASKS)


class Says:
    """A model that has its answer ready."""

    def __init__(self, answer, classes=None):
        self.answer = np.asarray(answer)
        if classes:
            self.classes_ = np.asarray(classes)

    def predict_proba(self, features):
        return self.answer[: len(features)]

    predict = predict_proba


def frame(rows):
    return pd.DataFrame({"x": range(rows)})


@EACH
def test_a_spec_has_its_task_and_what_the_task_uses_unless_it_says_otherwise(name):
    spec, task = spec_of(name), TASKS[name]
    assert task_of(spec) == task
    assert spec.metrics == task.shown
    assert (spec.gate.metric, spec.policy.performance_metric) == (task.gate_metric, task.gate_metric)


def test_a_spec_may_name_any_metric_of_its_task():
    spec = spec_of("regression", metrics=("rmse",), gate=GatePolicy(metric="rmse"))
    assert (spec.metrics, spec.gate.metric, spec.policy.performance_metric) == (("rmse",), "rmse", "mae")
    assert spec_of("binary", gate=GatePolicy(metric="average_precision")).gate.metric == "average_precision"


@pytest.mark.parametrize(
    ("task", "changes", "told"),
    [
        (
            "regression",
            {"gate": GatePolicy(metric="auc")},
            "unknown metric of a regression task 'auc'.*expected one of",
        ),
        ("regression", {"gate": GatePolicy(metric="auc_ovr")}, "unknown metric of a regression task"),
        ("binary", {"policy": RetrainPolicy(performance_metric="mae")}, "unknown metric of a binary task 'mae'"),
        ("quantile", {"metrics": ("pinbal",)}, "unknown metric 'pinbal', did you mean 'pinball'?"),
        ("regression", {"gate": {"metric": "bias"}}, "'bias' has no direction"),
        ("multiclass", {"classes": ("a",)}, "expected at least two names of classes"),
        ("multiclass", {"classes": ()}, "a multiclass task has none; expected at least two"),
        ("multiclass", {"classes": ("a", "b", "A")}, "'a' is there twice"),
        ("multiclass", {"classes": ("a", 'b"')}, "no name of a class"),
        ("quantile", {"quantiles": ()}, "expected at least one level"),
        ("quantile", {"quantiles": (0.5, 0.1)}, "expected ascending ones between 0 and 1"),
        ("quantile", {"quantiles": (0.5, 1.0)}, "between 0 and 1"),
        ("binary", {"classes": ("a", "b")}, "a binary task has none; expected them with `task: multiclass` only"),
        ("regression", {"quantiles": (0.5,)}, "with `task: quantile` only"),
        (
            "multiclass",
            {"inputs": INPUTS | {"prediction_High": "numeric"}},
            "'prediction_High' is a column that is stored beside the inputs",
        ),
        ("regression", {"baseline": {"kind": "input"}}, "needs a column"),
        ("regression", {"baseline": {"kind": "prior", "column": "last"}}, "reads no column, but names 'last'"),
        ("regression", {"baseline": {"kind": "input", "column": "lst"}}, "baseline: unknown input 'lst', did you mean"),
        ("quantile", {"baseline": {"kind": "input", "column": "side"}}, "'side' is categorical"),
        ("ranking", {}, "task.*'binary', 'multiclass', 'regression' or 'quantile'"),
    ],
)
def test_a_mistake_is_told_with_what_is_expected(task, changes, told):
    with pytest.raises(ValueError, match=f"(?s){told}"):
        spec_of(task, **changes)


@EACH
def test_a_model_is_trained_stored_and_predicts_in_range_the_same_each_time(name):
    spec, task = spec_of(name), TASKS[name]
    learned, held_out = examples_of(name), examples_of(name, 200, 2)
    first, second = train(spec, learned, held_out), train(spec, learned, held_out)
    assert first.payload == second.payload
    model = load_model(first.payload, first.digest, spec.trusted_types)
    predictions = predict(spec, model, held_out)
    assert predictions.shape == ((200,) if task.width is None else (200, task.width))
    assert task.problem(predictions) is None
    assert predict(spec, model, held_out.iloc[:0]).shape == task.unknown(0).shape
    stored = task.frame(predictions)
    assert list(stored) == task.columns
    np.testing.assert_array_equal(task.array(stored), predictions)


def test_what_is_stored_says_what_the_columns_say():
    classes = TASKS["multiclass"].frame(np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [np.nan] * 3]))
    assert classes["prediction"].tolist() == ["middle", "low", None]  # the first of equally likely ones
    assert classes["prediction_high"].tolist()[:2] == [0.3, 0.4]
    quantiles = TASKS["quantile"].frame(np.array([[1.0, 2.0, 4.0]]))
    assert quantiles.iloc[0].to_dict() == {
        "prediction": 2.0,
        "prediction_q10": 1.0,
        "prediction_q50": 2.0,
        "prediction_q90": 4.0,
    }


@EACH
def test_labels_are_stored_as_their_task_says_and_others_are_refused(name):
    task, label = TASKS[name], examples_of(name)["label"]
    expected = {"binary": "int8", "multiclass": "object"}.get(name, "float64")
    assert task.stored(label).dtype == expected
    np.testing.assert_array_equal(task.codes(label), task.encode(label)[0])
    strange = {"binary": 2, "multiclass": "hgih"}.get(name, "dear")
    with pytest.raises(ValueError, match=f"labels of a {name} task.*mend the label's SQL"):
        task.stored(pd.Series([*label.head(9), strange], dtype=object))


@pytest.mark.parametrize(
    ("name", "labels", "told"),
    [
        ("multiclass", ["low", None], "1 of 2 are missing"),
        ("multiclass", ["low", "hgih", "x"], "2 of 3 are none of the classes low, middle, high (but 'hgih', 'x')"),
        ("multiclass", ["low", "low"], "only one class present"),
        ("multiclass", [], "no rows"),
        ("regression", [1.0, np.nan], "1 of 2 are missing"),
        ("regression", [1.0, np.inf], "1 of 2 are infinite"),
        ("quantile", ["dear"], "not numbers"),
        ("quantile", [], "no rows"),
    ],
)
def test_what_is_wrong_with_labels_is_told(name, labels, told):
    assert told in TASKS[name].encode(pd.Series(labels, dtype=object if "x" in map(str, labels) else None))[1]


def test_whole_numbers_may_name_classes():
    spec = spec_of("multiclass", classes=("1", "2", "3"))
    assert task_of(spec).encode(pd.Series([3, 1, 2]))[0].tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("name", "answer", "told"),
    [
        ("binary", [0.5, np.nan], "1 of 2 predictions are NaN"),
        ("binary", [0.5, 1.1], "1 of 2 predictions are outside [0, 1]"),
        ("multiclass", [[0.2, 0.3, 0.5], [0.2, 0.3, 0.4]], "1 of 2 rows do not sum to 1"),
        ("multiclass", [[0.2, 0.3, 0.5], [-0.2, 0.7, 0.5]], "1 of 2 predictions are outside [0, 1]"),
        ("multiclass", [[0.2, 0.3, 0.5], [np.nan, 0.7, 0.5]], "1 of 2 predictions are NaN"),
        ("regression", [1.0, np.inf], "1 of 2 predictions are NaN or infinite"),
        ("quantile", [[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]], "1 of 2 predictions are NaN or infinite"),
    ],
)
def test_predictions_out_of_range_are_told_and_left_out(name, answer, told):
    task = TASKS[name]
    predictions = task.predict(Says(answer), frame(2))
    assert told in task.problem(predictions)
    label = examples_of(name, 2)["label"]
    labels, kept = task.usable(label.set_axis([9, 9]), predictions)
    assert len(labels) == len(kept) == 1


@pytest.mark.parametrize(
    ("name", "answer", "told"),
    [
        ("binary", [[0.1, 0.2, 0.7]] * 2, r"shape \(2, 3\) for 2 rows, expected \(n,\) or \(n, 2\)"),
        ("multiclass", [0.1, 0.2], r"expected \(n, 3\), one column a class"),
        ("regression", [[1.0, 2.0]] * 2, r"expected \(n,\) or \(n, 1\)"),
        ("quantile", [1.0, 2.0], "one column a quantile: name an estimator with a parameter `quantile`"),
    ],
)
def test_another_shape_is_told_with_the_one_expected(name, answer, told):
    with pytest.raises(PredictionError, match=told):
        TASKS[name].predict(Says(answer), frame(2))


def test_probabilities_are_put_in_the_specs_order_and_a_class_never_seen_gets_none():
    found = TASKS["multiclass"].predict(Says([[0.7, 0.3]], classes=["high", "low"]), frame(1))
    np.testing.assert_array_equal(found, [[0.3, 0.0, 0.7]])
    with pytest.raises(PredictionError, match="knows the class 'other', which is none of low, middle, high"):
        TASKS["multiclass"].predict(Says([[0.7, 0.3]], classes=["high", "other"]), frame(1))
    spec, seen = spec_of("multiclass"), examples_of("multiclass").query("label != 'middle'")
    trained = train(spec, seen, examples_of("multiclass", 50, 2))
    predictions = predict(spec, load_model(trained.payload, trained.digest), examples_of("multiclass", 50, 2))
    assert (predictions[:, 1] == 0).all()
    np.testing.assert_allclose(predictions.sum(axis=1), 1)


def test_quantiles_that_cross_are_put_in_order():
    found = TASKS["quantile"].predict(Says([[3.0, 1.0, 2.0]]), frame(1))
    np.testing.assert_array_equal(found, [[1.0, 2.0, 3.0]])


def test_an_estimator_of_another_task_is_told():
    with pytest.raises(ValueError, match="worlds_of_tasks.line has no predict_proba, which a binary task needs"):
        train(spec_of("binary", estimator=EstimatorSpec(path=PATHS["regression"])), *[examples_of("binary")] * 2)


def test_one_class_is_too_few_and_one_value_is_not():
    with pytest.raises(ValueError, match="one class only; expected two classes"):
        train(spec_of("multiclass"), *[examples_of("multiclass").assign(label="low")] * 2)
    assert train(spec_of("regression"), *[examples_of("regression").assign(label=3.0)] * 2).digest


@EACH
def test_drift_of_labels_and_of_every_output_is_seen(name):
    spec, task = spec_of(name), TASKS[name]
    learned, held_out = examples_of(name, 1500), examples_of(name, 1500, 2)
    trained = train(spec, learned, held_out)
    reference = trained.reference
    assert set(reference.columns) == {*INPUTS, LABEL, *task.watched}
    model = load_model(trained.payload, trained.digest, spec.trusted_types)
    edges = {n: list(c.edges) for n, c in reference.columns.items() if isinstance(c, NumericColumn)}

    def report(rows):
        predictions = task.frame(predict(spec, model, rows))[task.watched]
        label = task.watched_label(rows["label"])
        return compare(reference, profile(model_inputs(spec, rows).join(predictions).assign(**{LABEL: label}), edges))

    assert not {LABEL, *task.watched} & set(report(examples_of(name, 1500, 3)).drifted)
    late = examples_of(name, 6000, 4).query("hour > 14").reset_index(drop=True)
    assert {LABEL, task.watched[0]} <= set(report(late).drifted)


@EACH
def test_a_replay_measures_what_the_task_measures(name):
    task, spec = TASKS[name], spec_of(name)
    rows = examples_of(name, 800)
    at = pd.Timestamp("2013-01-01", tz="UTC") + pd.to_timedelta(np.linspace(0, 58, 800), unit="D")
    rows = rows.assign(at=at, known=at)

    def fit(features, labels):
        return task.prepare(spec.estimator.build()).fit(model_inputs(spec, features), task.targets(labels))

    moment, columns = pd.Timestamp("2013-01-15", tz="UTC"), {"known_column": "known", "label_column": "label"}
    model = fit_before(rows, moment, **columns, feature_columns=spec.columns, fit=fit)
    found = rows[rows["at"] >= moment].reset_index(drop=True)
    found = found[["at", "label"]].join(task.frame(task.predict(model, model_inputs(spec, found))))
    months = monthly_metrics(found, time_column="at", label_column="label", task=task)
    assert list(months.index) == ["2013-01", "2013-02"]
    february = found[found["at"] >= pd.Timestamp("2013-02-01", tz="UTC")]
    expected = task.measure(task.gate_metric, task.codes(february["label"]), task.array(february))
    assert months.loc["2013-02", task.gate_metric] == pytest.approx(expected)
    if name == "regression":
        assert expected == pytest.approx(mean_absolute_error(february["label"], february["prediction"]))
    if name == "binary":
        assert expected == pytest.approx(roc_auc_score(february["label"].astype(int), february["prediction"]))


def test_the_fields_of_a_task_survive_json():
    for name in FIELDS:
        spec = spec_of(name)
        assert type(spec).model_validate_json(spec.model_dump_json()) == spec
    assert (spec_of("multiclass").classes, spec_of("quantile").quantiles) == (CLASSES, QUANTILES)
