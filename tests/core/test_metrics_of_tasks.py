"""The metrics of several classes, of values and of quantiles, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import norm
from sklearn import metrics as oracle
from worlds_of_tasks import TASKS

from ct_assets.core import metrics, metrics_classes, metrics_values
from ct_assets.core.metrics import HIGHER_IS_BETTER

UNDIRECTED = {"bias", "coverage"}


def rare(rows=5000, decimals=2, seed=0):
    generator = np.random.default_rng(seed)
    p = np.round(generator.beta(1, 60, rows), decimals)
    return (generator.random(rows) < p).astype(int), p


def classes(rows=900, seed=0):
    generator = np.random.default_rng(seed)
    p = generator.dirichlet([2.0, 1.0, 0.5, 0.3], rows)
    y = np.array(
        [generator.choice(4, p=row) for row in generator.dirichlet([1.0, 1.0, 1.0, 1.0], rows) * 0.5 + p * 0.5]
    )
    return y, p


def values(rows=700, seed=0):
    generator = np.random.default_rng(seed)
    y = generator.gamma(2, 10, rows)
    return y, y + generator.normal(1, 5, rows)


def quantiles(levels, rows=4000, seed=0):
    """Labels of a normal distribution, and its true quantiles by row."""
    generator = np.random.default_rng(seed)
    centre = generator.normal(size=rows)
    return centre + generator.normal(size=rows), centre[:, None] + norm.ppf(levels)


@pytest.mark.parametrize("decimals", [1, 2, 6], ids=["many ties", "ties", "no ties"])
def test_where_positives_are_rare_average_precision_and_mcc_equal_scikit_learn(decimals):
    y, p = rare(decimals=decimals)
    assert 0 < y.mean() < 0.03
    assert metrics.average_precision(y, p) == pytest.approx(oracle.average_precision_score(y, p), abs=1e-12)
    assert metrics.mcc(y, p, 0.05) == pytest.approx(oracle.matthews_corrcoef(y, p >= 0.05), abs=1e-12)


def test_average_precision_has_no_value_without_a_positive_and_mcc_is_0_for_one_answer():
    assert np.isnan(metrics.average_precision([0, 0], [0.1, 0.2]))
    assert metrics.mcc([0, 1], [0.1, 0.2]) == 0
    assert np.isnan(metrics.mcc([], []))


def test_every_metric_of_classes_equals_scikit_learn():
    y, p = classes()
    best = p.argmax(axis=1)
    expected = {
        "logloss": oracle.log_loss(y, p),
        "accuracy": oracle.accuracy_score(y, best),
        "balanced_accuracy": oracle.balanced_accuracy_score(y, best),
        "macro_f1": oracle.f1_score(y, best, average="macro"),
        "auc_ovr": oracle.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "brier": oracle.brier_score_loss(y, p),
    }
    found = {name: getattr(metrics_classes, name)(y, p) for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)
    np.testing.assert_array_equal(metrics_classes.confusion(y, p), oracle.confusion_matrix(y, best))
    precision, recall, f1, rows = oracle.precision_recall_fscore_support(y, best)
    table = metrics_classes.by_class(y, p)
    for name, theirs in {"precision": precision, "recall": recall, "f1": f1, "rows": rows}.items():
        np.testing.assert_allclose(table[name], theirs, atol=1e-12)


def test_a_class_that_is_nowhere_counts_nowhere():
    y, p = classes()
    wider = np.column_stack([p, np.zeros(len(p))])
    for name in ("logloss", "accuracy", "balanced_accuracy", "macro_f1", "auc_ovr", "brier"):
        measure = getattr(metrics_classes, name)
        assert measure(y, wider) == pytest.approx(measure(y, p), abs=1e-12)


def test_the_calibration_error_of_classes_is_that_of_the_most_likely_one():
    y, p = [0] * 8 + [1] * 2 + [2] * 3 + [0] * 7, [[0.6, 0.3, 0.1]] * 10 + [[0.2, 0.1, 0.7]] * 10
    assert metrics_classes.ece(y, p) == pytest.approx(0.5 * abs(0.8 - 0.6) + 0.5 * abs(0.3 - 0.7))


def test_every_metric_of_values_equals_scikit_learn():
    y, p = values()
    expected = {
        "mae": oracle.mean_absolute_error(y, p),
        "rmse": oracle.root_mean_squared_error(y, p),
        "r2": oracle.r2_score(y, p),
        "wape": oracle.mean_absolute_error(y, p) / np.mean(np.abs(y)),
        "bias": np.mean(p) - np.mean(y),
        "relative_bias": abs(np.mean(p) - np.mean(y)) / np.mean(np.abs(y)),
    }
    assert {name: getattr(metrics_values, name)(y, p) for name in expected} == pytest.approx(expected, abs=1e-12)


def test_what_labels_leave_undefined_is_nan():
    assert np.isnan(metrics_values.r2([2, 2], [1, 3]))
    assert np.isnan(metrics_values.wape([0, 0], [1, 3]))
    assert metrics_values.mae([0, 0], [1, 3]) == 2
    assert np.isnan(metrics_values.coverage([1, 2], [[1], [2]], (0.5,)))
    assert np.isnan(metrics_values.interval_width([1, 2], [[1], [2]], (0.5,)))


def test_the_pinball_loss_equals_scikit_learn_at_each_level():
    levels = (0.05, 0.3, 0.5, 0.9)
    y, q = quantiles(levels)
    expected = np.mean([oracle.mean_pinball_loss(y, q[:, i], alpha=level) for i, level in enumerate(levels)])
    assert metrics_values.pinball(y, q + 0.3, levels) > metrics_values.pinball(y, q, levels)
    assert metrics_values.pinball(y, q, levels) == pytest.approx(expected, abs=1e-12)
    assert metrics_values.central_mae(y, q, levels) == pytest.approx(oracle.mean_absolute_error(y, q[:, 2]))


def test_true_quantiles_cover_what_they_say():
    levels = (0.1, 0.5, 0.9)
    y, q = quantiles(levels, rows=20_000)
    assert metrics_values.coverage(y, q, levels) == pytest.approx(0.8, abs=0.01)  # sd 0.003
    assert metrics_values.coverage_error(y, q, levels) < 0.01
    assert metrics_values.interval_width(y, q, levels) == pytest.approx(2 * norm.ppf(0.9))
    moved = np.mean([abs(norm.cdf(norm.ppf(level) + 0.5) - level) for level in levels])
    assert metrics_values.coverage_error(y, q + 0.5, levels) == pytest.approx(moved, abs=0.01)


def test_a_coverage_by_hand_has_its_ends_included():
    y, q = [1, 2, 3, 4], [[1, 2], [0, 1], [2, 5], [4, 4]]
    assert metrics_values.coverage(y, q, (0.2, 0.8)) == 0.75
    below, up_to = metrics_values.coverage_by_level(y, q, (0.2, 0.8))
    assert below.tolist() == [0, 0.5] and up_to.tolist() == [0.5, 0.75]
    assert metrics_values.coverage_error(y, q, (0.2, 0.8)) == pytest.approx((0.0 + 0.05) / 2)


def test_many_zeros_are_no_error_of_coverage():
    y = np.r_[np.zeros(70), np.arange(1, 31)]
    exact = np.tile(np.quantile(y, [0.1, 0.5, 0.9]), (100, 1))
    assert metrics_values.coverage_error(y, exact, (0.1, 0.5, 0.9)) == 0
    assert metrics_values.coverage_error(y, exact + 1, (0.1, 0.5, 0.9)) > 0.2


@pytest.mark.parametrize(("levels", "place"), [((0.1, 0.5, 0.9), 1), ((0.4, 0.6), 0), ((0.05, 0.7), 1), ((0.2,), 0)])
def test_the_central_quantile_is_nearest_to_the_median_and_the_lower_of_two(levels, place):
    assert metrics_values.central(levels) == place


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(float, (30, 3), elements=st.floats(-5, 5)), arrays.arrays(float, 30, elements=st.floats(-5, 5)))
def test_sorting_quantiles_that_cross_never_costs_pinball_loss(raw, y):
    levels = (0.1, 0.5, 0.9)
    sorted_loss = metrics_values.pinball(y, np.sort(raw, axis=1), levels)
    assert sorted_loss <= metrics_values.pinball(y, raw, levels) + 1e-12


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_without_rows_every_metric_is_nan(task):
    for name in task.metrics:
        assert np.isnan(task.measure(name, np.empty(0), task.unknown(0)))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_metric_has_a_direction_or_is_known_to_have_none(task):
    assert set(task.metrics) - set(HIGHER_IS_BETTER) <= UNDIRECTED
    assert task.gate_metric in HIGHER_IS_BETTER
    assert task.calibration[0] in task.metrics and HIGHER_IS_BETTER[task.calibration[0]] is False
    assert {task.gate_metric, task.calibration[0]} <= set(task.shown) <= set(task.metrics)


@pytest.mark.parametrize(
    ("metric", "y", "p", "message"),
    [
        (metrics_classes.logloss, [0, 2], [[0.5, 0.5]] * 2, "no place among the 2 classes"),
        (metrics_classes.logloss, [0, 0.5], [[0.5, 0.5]] * 2, "no place"),
        (metrics_classes.brier, [0, 1], [[0.5, np.nan]] * 2, "NaN"),
        (metrics_classes.accuracy, [0], [0.5], "expected"),
        (metrics_values.mae, [0, 1], [0], "one equal length"),
        (metrics_values.rmse, [0, np.nan], [0, 1], "NaN"),
        (lambda y, p: metrics_values.pinball(y, p, (0.1, 0.9)), [0, 1], [[0], [1]], "one column a level"),
        (lambda y, p: metrics_values.coverage(y, p, (0.1, 0.9)), [0], [[0, np.inf]], "infinity"),
    ],
)
def test_unusable_input_is_refused(metric, y, p, message):
    with pytest.raises(ValueError, match=message):
        metric(y, p)
