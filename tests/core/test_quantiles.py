"""Quantiles from estimators of one quantile."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import QuantileRegressor, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ct_assets.core.artifact import artifact_digest, dump_model, load_model
from ct_assets.core.quantiles import QuantileModels, quantile_parameters
from ct_assets.core.tasks import Quantile
from ct_assets.core.training import limited

LEVELS = (0.1, 0.5, 0.9)
GENERATOR = np.random.default_rng(0)
X = GENERATOR.uniform(0, 10, (3000, 2))
Y = 3 * X[:, 0] + (1 + X[:, 0]) * GENERATOR.normal(size=3000)


@pytest.mark.parametrize(
    ("estimator", "named"),
    [
        (QuantileRegressor(alpha=0.0), ["quantile"]),
        (HistGradientBoostingRegressor(loss="quantile"), ["quantile"]),
        (GradientBoostingRegressor(loss="quantile"), ["alpha"]),
        (make_pipeline(StandardScaler(), QuantileRegressor()), ["quantileregressor__quantile"]),
        (HistGradientBoostingRegressor(), []),
        (GradientBoostingRegressor(), []),
        (Ridge(alpha=1.0), []),
        (object(), []),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
def test_the_parameter_of_the_quantile_is_found_and_no_other(estimator, named):
    assert quantile_parameters(estimator) == named
    prepared = Quantile(LEVELS).prepare(estimator)
    assert isinstance(prepared, QuantileModels) == bool(named)
    assert (prepared is estimator) == (not named)


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(StandardScaler(), QuantileRegressor(alpha=0.0)),
        HistGradientBoostingRegressor(loss="quantile", max_iter=40, random_state=0),
        GradientBoostingRegressor(loss="quantile", n_estimators=60, random_state=0),
    ],
    ids=["linear", "histogram", "boosting"],
)
def test_each_copy_is_the_estimator_with_its_quantile_and_comes_near_the_truth(estimator):
    (name,) = quantile_parameters(estimator)
    with limited(1):
        found = Quantile(LEVELS).prepare(estimator).fit(X, Y).predict(X)
        alone = clone(estimator).set_params(**{name: 0.9}).fit(X, Y).predict(X)
    np.testing.assert_array_equal(found[:, 2], alone)
    truth = 3 * X[:, :1] + (1 + X[:, :1]) * norm.ppf(LEVELS)
    assert np.abs(found - truth).mean() < 1.5  # the labels' own standard deviation is 6 on average


def test_it_is_stored_and_predicts_the_same():
    trees = HistGradientBoostingRegressor(loss="quantile", max_iter=5, random_state=0)
    with limited(1):
        model, again = (QuantileModels(trees, LEVELS).fit(X, Y) for _ in range(2))
    payload = dump_model(model)
    assert payload == dump_model(again)
    np.testing.assert_array_equal(load_model(payload, artifact_digest(payload)).predict(X[:50]), model.predict(X[:50]))


def test_sample_weights_reach_every_copy():
    weights = np.where(np.median(Y) < Y, 1.0, 0.0)
    model = QuantileModels(QuantileRegressor(alpha=0.0), (0.5,)).fit(np.zeros((3000, 1)), Y, sample_weight=weights)
    assert model.predict([[0.0]])[0, 0] == pytest.approx(np.median(Y[weights > 0]), abs=0.1)


def test_an_estimator_without_a_quantile_is_told():
    with pytest.raises(ValueError, match="Ridge has no parameter `quantile`, nor `alpha` with the loss 'quantile'"):
        QuantileModels(Ridge(), LEVELS).fit(X, Y)


def test_an_estimator_that_predicts_them_all_is_left_alone():
    class Forest:
        def predict(self, rows):
            return np.tile([1.0, 2.0, 3.0], (len(rows), 1))

    task, forest = Quantile(LEVELS), Forest()
    assert task.prepare(forest) is forest
    assert task.predict(forest, X[:4]).shape == (4, 3)
