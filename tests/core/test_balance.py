import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from worlds_of_core import spec_with

from ct_assets.core.artifact import load_model
from ct_assets.core.balance import PriorCorrected
from ct_assets.core.gate import GatePolicy, TestData, validate_new_model
from ct_assets.core.spec import EstimatorSpec
from ct_assets.core.strategies import StrategySpec
from ct_assets.core.training import predict, train

RARE = 0.005
LINE = {"path": "sklearn.linear_model.LogisticRegression", "params": {"C": 1e6, "tol": 1e-8}}
TREES = {"path": "lightgbm.LGBMClassifier", "params": {"n_estimators": 40, "num_leaves": 7, "min_child_samples": 50}}


def rare(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Examples of which one in two hundred is positive, and the true probability of each."""
    random = np.random.default_rng(seed)
    x, z = random.normal(size=(2, rows))
    truth = 1 / (1 + np.exp(6.28 - 1.4 * x + 0.5 * z))
    label = (random.random(rows) < truth).astype("int8")
    return pd.DataFrame({"x": x, "z": z, "label": label}), truth


TRAIN, _ = rare(60_000, 1)
REST, TRUTH = rare(60_000, 2)


def scores(estimator: dict, balance: str, **options: float) -> np.ndarray:
    strategy = StrategySpec(balance=balance, **options)
    spec = spec_with({"x": "numeric", "z": "numeric"}, estimator=EstimatorSpec(**estimator), strategy=strategy)
    trained = train(spec, TRAIN, REST.head(10))
    assert train(spec, TRAIN, REST.head(10)).payload == trained.payload
    model = load_model(trained.payload, trained.digest)
    assert isinstance(model, PriorCorrected) == (balance != "none")
    return predict(spec, model, REST)


def test_the_simulation_has_half_a_percent_of_positives() -> None:
    assert 0.004 < TRAIN["label"].mean() < 0.006


@pytest.mark.parametrize("estimator", [LINE, TREES], ids=["line", "trees"])
@pytest.mark.parametrize(("balance", "options"), [("weights", {}), ("undersample", {"negatives": 20})])
def test_probabilities_stay_those_of_the_true_shares(estimator: dict, balance: str, options: dict) -> None:
    found = scores(estimator, balance, **options)
    # Weights are matched to the newest two fifths of the examples, with some 120 positives.
    assert found.mean() == pytest.approx(TRAIN["label"].mean(), rel=0.1 if balance == "undersample" else 0.25)
    top = np.argsort(TRUTH)[-6000:]  # where most positives are
    assert found[top].mean() == pytest.approx(TRUTH[top].mean(), rel=0.3)
    assert roc_auc_score(REST["label"], found) > roc_auc_score(REST["label"], TRUTH) - 0.02


def test_weights_without_the_correction_would_be_far_off() -> None:
    weighted = LogisticRegression(class_weight="balanced").fit(TRAIN[["x", "z"]], TRAIN["label"])
    assert weighted.predict_proba(REST[["x", "z"]])[:, 1].mean() > 20 * TRUTH.mean()


def test_the_correction_divides_the_odds_by_the_ratio_of_the_weights() -> None:
    balanced = LogisticRegression(class_weight="balanced", C=1e6, tol=1e-8, random_state=0)
    raw = balanced.fit(TRAIN[["x", "z"]], TRAIN["label"]).predict_proba(REST[["x", "z"]])[:, 1]
    share = TRAIN["label"].mean()
    odds = raw / (1 - raw) * share / (1 - share)
    corrected = odds / (1 + odds)
    # The intercept is matched on top, on the examples: here it is off by little.
    np.testing.assert_allclose(scores(LINE, "weights"), corrected, rtol=0.1)
    model = PriorCorrected(balanced, balanced_weights())
    np.testing.assert_allclose(model.predict_proba(REST[["x", "z"]])[:, 1], corrected, rtol=1e-9)


def balanced_weights() -> np.ndarray:
    return len(TRAIN) / (2 * np.bincount(TRAIN["label"]))


def test_matching_gives_the_examples_their_share_whatever_the_model_predicts() -> None:
    crude = LogisticRegression(class_weight="balanced", C=1e-5).fit(TRAIN[["x", "z"]], TRAIN["label"])
    share = np.array([1 - TRAIN["label"].mean(), TRAIN["label"].mean()])
    analytic = PriorCorrected(crude, balanced_weights())
    assert analytic.predict_proba(TRAIN[["x", "z"]]).mean(axis=0)[1] < 0.9 * share[1]
    raw = crude.predict_proba(TRAIN[["x", "z"]])
    for row_weights in (np.ones(60_000), np.arange(60_000.0)):
        matched = analytic.matched(raw, share, row_weights)
        means = np.average(matched.predict_proba(TRAIN[["x", "z"]]), axis=0, weights=row_weights)
        np.testing.assert_allclose(means, share, rtol=1e-6)


def test_a_forest_that_knows_its_examples_by_heart_is_matched_on_those_that_it_does_not_know() -> None:
    forest = {"path": "sklearn.ensemble.RandomForestClassifier", "params": {"n_estimators": 10}}
    spec = spec_with(
        {"x": "numeric", "z": "numeric"}, estimator=EstimatorSpec(**forest), strategy=StrategySpec(balance="weights")
    )
    trained = train(spec, TRAIN.head(20_000), REST.head(10))
    model = load_model(trained.payload, trained.digest)
    share = TRAIN["label"].head(20_000).mean()
    assert predict(spec, model, REST).mean() == pytest.approx(share, rel=0.35)
    assert predict(spec, model, TRAIN.head(20_000)).mean() > 1.3 * share  # what matching on these would have hidden


def test_undersampling_keeps_all_positives_and_as_many_negatives_as_asked() -> None:
    from ct_assets.core.balance import balanced

    strategy = StrategySpec(balance="undersample", negatives=4)
    found = balanced(strategy, TRAIN["label"], None, seed=3)
    assert found is not None
    kept = TRAIN["label"].iloc[found.rows]
    assert kept.sum() == TRAIN["label"].sum()
    assert (kept == 0).sum() == 4 * kept.sum()
    assert found.correction == {0: (kept == 0).sum() / (TRAIN["label"] == 0).sum(), 1: 1.0}


def test_the_corrected_probabilities_of_three_classes_are_bayes_rule() -> None:
    class Given:
        classes_ = np.array(["a", "b", "c"])

        def predict_proba(self, features):
            return np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])

    trained, true = np.array([1 / 3, 1 / 3, 1 / 3]), np.array([0.7, 0.2, 0.1])
    model = PriorCorrected(Given(), trained / true)
    expected = Given().predict_proba(None) * true / trained
    np.testing.assert_allclose(model.predict_proba(None), expected / expected.sum(axis=1, keepdims=True))
    assert model.predict(None).tolist() == ["a", "a"]


def test_a_holdout_with_too_few_positives_fails_a_check_in_words() -> None:
    class Truth:
        def predict_proba(self, features):
            return TRUTH[: len(features)]

    few = REST.head(1200)
    assert 0 < few["label"].sum() < 10
    data = TestData(few[["x", "z"]], few["label"])
    check = validate_new_model(Truth(), None, data, GatePolicy()).checks[0]
    assert (check.name, check.passed, check.value, check.limit) == ("enough_rows", False, few["label"].sum(), 10)
    assert f"only {few['label'].sum()} of 1200 test rows are of the rarer class, at least 10 needed" in check.detail
    assert validate_new_model(Truth(), None, data, GatePolicy(min_class_rows=3)).checks[0].passed


def test_balancing_amounts_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"strategy.balance weights is for binary and multiclass tasks, and task is reg"
    ):
        StrategySpec(balance="weights").refuse_task("regression")
    with pytest.raises(ValueError, match="undersample is for binary tasks"):
        StrategySpec(balance="undersample").refuse_task("multiclass")
