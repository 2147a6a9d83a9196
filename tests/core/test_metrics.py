import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve

from ct_assets.core.metrics import (
    advantage,
    auc,
    expected_calibration_error,
    f1,
    reliability_curve,
)
from ct_assets.core.tasks import BINARY


def sample(rows=4000, seed=0, decimals=2):
    generator = np.random.default_rng(seed)
    p = np.round(generator.beta(2, 5, rows), decimals)
    return (generator.random(rows) < p).astype(int), p


def test_every_metric_equals_scikit_learn():
    y, p = sample()
    found = BINARY.figures(y, p)
    assert found["auc"] == pytest.approx(oracle.roc_auc_score(y, p), abs=1e-12)
    assert found["logloss"] == pytest.approx(oracle.log_loss(y, p), abs=1e-12)
    assert found["brier"] == pytest.approx(oracle.brier_score_loss(y, p), abs=1e-12)
    assert found["f1"] == pytest.approx(oracle.f1_score(y, p >= 0.5), abs=1e-12)
    assert f1(y, p, threshold=0.4) == pytest.approx(oracle.f1_score(y, p >= 0.4), abs=1e-12)
    assert found["prevalence"] == y.mean()
    assert found["rows"] == 4000


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=40))
def test_auc_is_the_share_of_ordered_pairs_with_ties_half(pairs):
    y = np.array([label for label, _ in pairs])
    p = np.array([score for _, score in pairs]) / 4
    comparisons = [(a > b) + 0.5 * (a == b) for a in p[y] for b in p[~y]]
    if comparisons:
        assert auc(y, p) == pytest.approx(np.mean(comparisons), abs=1e-12)
    else:
        assert np.isnan(auc(y, p))


def test_the_reliability_curve_equals_scikit_learn():
    y, p = sample(decimals=4)
    rate, mean = calibration_curve(y, p, n_bins=10, strategy="uniform")
    curve = reliability_curve(y, p, 10)
    np.testing.assert_allclose(curve["observed_rate"], rate)
    np.testing.assert_allclose(curve["mean_predicted"], mean)
    assert curve["rows"].sum() == len(y)


def test_calibration_error_of_a_hand_made_table():
    p = [0.1] * 10 + [0.9] * 30
    y = [1] * 2 + [0] * 8 + [1] * 24 + [0] * 6
    assert expected_calibration_error(y, p) == pytest.approx(0.25 * 0.1 + 0.75 * 0.1)


def test_a_certain_prediction_falls_into_the_last_bin():
    curve = reliability_curve([1, 0], [1.0, 0.0], 15)
    assert curve["rows"].tolist() == [1, 1]
    assert curve["high"].tolist() == [pytest.approx(1 / 15), 1.0]


def test_one_class_has_no_auc_but_a_brier_score():
    found = BINARY.figures(np.ones(2), np.array([0.5, 1.0]))
    assert np.isnan(found["auc"])
    assert found["brier"] == 0.125


def test_no_rows_have_no_metrics():
    found = BINARY.figures(np.empty(0), np.empty(0))
    assert found.pop("rows") == 0
    assert all(np.isnan(value) for value in found.values())


def test_f1_without_positives_is_undefined():
    assert np.isnan(f1([0, 0], [0.1, 0.2]))


@pytest.mark.parametrize("metric", [auc, f1, expected_calibration_error])
@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([0, 2], [0.1, 0.2], "0 and 1"),
        ([0, 1], [0.1, np.nan], "NaN"),
        ([0, 1], [0.1, 1.2], "outside"),
        ([0], [0.1, 0.2], "shape"),
    ],
)
def test_unusable_input_is_refused(y, p, message, metric):
    with pytest.raises(ValueError, match=message):
        metric(y, p)


def test_an_advantage_is_positive_for_the_better_model_whatever_the_direction():
    assert advantage("auc", 0.8, 0.7) == pytest.approx(0.1)
    assert advantage("logloss", 0.8, 0.7) == pytest.approx(-0.1)
