import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler
from worlds_of_core import spec_with

from ct_assets.core.artifact import load_model
from ct_assets.core.gate import GatePolicy, TestData, validate_new_model
from ct_assets.core.lesson import Start
from ct_assets.core.spec import EstimatorSpec, ModelSpec
from ct_assets.core.strategies import StrategySpec
from ct_assets.core.training import Trained, predict, train

SGD = {"path": "sklearn.linear_model.SGDClassifier", "params": {"loss": "log_loss", "alpha": 0.01}}
SCALED = {
    "path": "sklearn.pipeline.Pipeline",
    "params": {"steps": [["scale", {"path": "sklearn.preprocessing.StandardScaler"}], ["line", SGD]]},
}
TREES = {"path": "lightgbm.LGBMClassifier", "params": {"n_estimators": 10, "num_leaves": 7}}
INPUTS = {"x": "numeric", "z": "numeric"}
INCREMENTAL, MORE = StrategySpec(kind="incremental"), StrategySpec(kind="warm_start", add=4)


def rows(count: int, seed: int, slope: float = 2.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    x, z = random.normal(size=(2, count))
    label = (random.random(count) < 1 / (1 + np.exp(-slope * x + z))).astype("int8")
    return pd.DataFrame({"x": 3 + 2 * x, "z": z, "label": label})


OLD, NEW = rows(400, 1), rows(200, 2)
BOTH = pd.concat([OLD, NEW], ignore_index=True)
UNSEEN = np.arange(600) >= 400


def spec_of(estimator: dict, strategy: StrategySpec, **changes) -> ModelSpec:
    return spec_with(INPUTS, estimator=EstimatorSpec(**estimator), strategy=strategy, **changes)


def first_and_second(spec: ModelSpec) -> tuple[Trained, Trained]:
    """A first training, and one that goes on from what it stored with the rows that are new."""
    first = train(spec, OLD, NEW)
    return first, train(spec, BOTH, NEW, start=start(first))


def start(trained: Trained) -> Start:
    return Start(load_model(trained.payload, trained.digest), UNSEEN)


def loaded(trained: Trained):
    return load_model(trained.payload, trained.digest)


def features(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[["x", "z"]]


def test_incremental_is_partial_fit_on_the_new_rows() -> None:
    _, second = first_and_second(spec_of(SGD, INCREMENTAL))
    peer = SGDClassifier(loss="log_loss", alpha=0.01, random_state=0).fit(features(OLD), OLD["label"])
    peer.partial_fit(features(NEW), NEW["label"])
    np.testing.assert_array_equal(loaded(second).coef_, peer.coef_)


def test_the_first_training_of_a_line_is_an_ordinary_one() -> None:
    first, _ = first_and_second(spec_of(SGD, INCREMENTAL))
    assert first.payload == train(spec_of(SGD, StrategySpec()), OLD, NEW).payload


def test_the_same_start_and_rows_give_the_same_bytes() -> None:
    for spec in (spec_of(SCALED, INCREMENTAL), spec_of(TREES, MORE), spec_of(FOREST, MORE)):
        assert first_and_second(spec)[1].payload == first_and_second(spec)[1].payload


def test_the_steps_before_the_last_stay_as_they_were_first() -> None:
    first, second = first_and_second(spec_of(SCALED, INCREMENTAL))
    scale = StandardScaler().fit(features(OLD))
    np.testing.assert_array_equal(loaded(second)[0].mean_, scale.mean_)
    peer = SGDClassifier(loss="log_loss", alpha=0.01, random_state=0).fit(scale.transform(features(OLD)), OLD["label"])
    peer.partial_fit(scale.transform(features(NEW)), NEW["label"])
    np.testing.assert_array_equal(loaded(second)[1].coef_, peer.coef_)
    assert first.digest != second.digest


def test_weights_count_for_the_new_rows() -> None:
    spec = spec_of(SGD, INCREMENTAL, weight="own")
    weight = np.where(np.arange(600) % 2, 2.0, 0.5)
    first = train(spec, OLD.assign(own=weight[:400]), NEW)
    second = train(spec, BOTH.assign(own=weight), NEW, start=start(first))
    peer = SGDClassifier(loss="log_loss", alpha=0.01, random_state=0)
    peer.fit(features(OLD), OLD["label"], sample_weight=weight[:400])
    peer.partial_fit(features(NEW), NEW["label"], sample_weight=weight[400:])
    np.testing.assert_array_equal(loaded(second).coef_, peer.coef_)


def test_lightgbm_adds_trees_to_those_that_it_has() -> None:
    import lightgbm

    first, second = first_and_second(spec_of(TREES, MORE))
    before, after = loaded(first).booster_, loaded(second).booster_
    assert (before.num_trees(), after.num_trees()) == (10, 14)
    params = {"objective": "binary", "num_leaves": 7, "seed": 0, "deterministic": True, "force_row_wise": True}
    quiet = params | {"verbose": -1, "num_threads": 1}
    old = lightgbm.train(quiet, lightgbm.Dataset(features(OLD).to_numpy(), OLD["label"]), num_boost_round=10)
    added = lightgbm.train(
        quiet, lightgbm.Dataset(features(NEW).to_numpy(), NEW["label"]), num_boost_round=4, init_model=old
    )
    np.testing.assert_allclose(after.predict(features(NEW)), added.predict(features(NEW)), rtol=1e-12)


FOREST = {"path": "sklearn.ensemble.RandomForestClassifier", "params": {"n_estimators": 5}}
BOOSTED = {"path": "sklearn.ensemble.GradientBoostingClassifier", "params": {"n_estimators": 5}}


@pytest.mark.parametrize(
    ("estimator", "peer"), [(FOREST, RandomForestClassifier), (BOOSTED, GradientBoostingClassifier)]
)
def test_scikit_learns_ensembles_add_trees_to_those_that_they_have(estimator: dict, peer: type) -> None:
    first, second = first_and_second(spec_of(estimator, MORE))
    assert (len(loaded(first).estimators_), len(loaded(second).estimators_)) == (5, 9)
    by_hand = peer(n_estimators=5, random_state=0, warm_start=True).fit(features(OLD), OLD["label"])
    by_hand.set_params(n_estimators=9).fit(features(NEW), NEW["label"])
    np.testing.assert_array_equal(loaded(second).predict_proba(features(NEW)), by_hand.predict_proba(features(NEW)))


def test_a_solver_starts_from_the_coefficients_that_it_has() -> None:
    line = {"path": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 300}}
    still = StrategySpec(kind="warm_start", add=1)
    first, second = first_and_second(spec_of(line, still))
    distant = train(spec_of({**line, "params": {"max_iter": 1}}, StrategySpec()), NEW, NEW)
    moved, anew = (np.abs(loaded(other).coef_ - loaded(first).coef_).max() for other in (second, distant))
    assert 0 < moved < anew


@pytest.mark.parametrize(
    ("path", "strategy", "message"),
    [
        ("sklearn.linear_model.LogisticRegression", INCREMENTAL, "needs an estimator with partial_fit, and .*Logistic"),
        (
            "sklearn.naive_bayes.GaussianNB",
            MORE,
            "needs an estimator with warm_start, not sklearn.naive_bayes.GaussianNB",
        ),
        ("sklearn.ensemble.HistGradientBoostingClassifier", MORE, "on the rows that it was first fitted on only"),
    ],
)
def test_what_an_estimator_cannot_do_is_told_at_the_first_training(path: str, strategy, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(spec_of({"path": path}, strategy), OLD, NEW)


@pytest.mark.parametrize("estimator", [TREES, FOREST, BOOSTED], ids=lambda e: e["path"])
def test_new_rows_of_one_class_are_no_silent_loss_of_the_other(estimator: dict) -> None:
    spec = spec_of(estimator, MORE)
    first = train(spec, OLD, NEW)
    one_class = pd.concat([OLD, NEW.assign(label=0)], ignore_index=True)
    with pytest.raises(ValueError, match=r"new have the classes \['0'\], and the champion knows \['0', '1'\]"):
        train(spec, one_class, NEW, start=start(first))


@pytest.mark.parametrize("balance", ["none", "weights"])
@pytest.mark.parametrize("kind", ["window", "recent"])
def test_a_choice_of_one_class_is_told_before_anything_is_fitted(kind: str, balance: str) -> None:
    moments = pd.Timestamp("2013-01-01", tz="UTC") + pd.to_timedelta(np.arange(600), unit="h")
    turned = BOTH.assign(event_timestamp=moments, label=(np.arange(600) < 500).astype("int8"))
    chosen = {"kind": "window", "window": "50 hours"} if kind == "window" else {"sampling": "recent", "rows": 50}
    spec = spec_of(TREES, StrategySpec(**chosen, balance=balance))
    with pytest.raises(ValueError, match="that `strategy` chooses of 600 for m have one class only; expected both"):
        train(spec, turned, NEW)


def test_partial_fit_takes_new_rows_of_one_class() -> None:
    spec = spec_of(SGD, StrategySpec(kind="incremental", balance="weights"))
    first = train(spec, OLD, NEW)
    second = train(spec, pd.concat([OLD, NEW.assign(label=0)], ignore_index=True), NEW, start=start(first))
    np.testing.assert_array_equal(loaded(second).weights, loaded(first).weights)
    assert predict(spec, loaded(second), NEW).mean() < predict(spec, loaded(first), NEW).mean()


def test_nothing_new_is_told() -> None:
    first, _ = first_and_second(spec_of(SGD, INCREMENTAL))
    nothing = Start(loaded(first), np.zeros(600, dtype=bool))
    with pytest.raises(ValueError, match="m has nothing new to learn: its champion has seen all 600 examples"):
        train(spec_of(SGD, INCREMENTAL), BOTH, NEW, start=nothing)


def test_a_balanced_model_stays_calibrated_as_it_learns_more() -> None:
    strategy = StrategySpec(kind="warm_start", add=20, balance="weights")
    old, new = rows(6000, 3).assign(z=3), rows(6000, 4).assign(z=3)
    rare_old, rare_new = (f.assign(label=f["label"] * (np.arange(6000) % 4 == 0)) for f in (old, new))
    spec = spec_of(TREES, strategy)
    first = train(spec, rare_old, new)
    both = pd.concat([rare_old, rare_new], ignore_index=True)
    second = train(spec, both, new, start=Start(loaded(first), np.arange(12000) >= 6000))
    np.testing.assert_array_equal(loaded(first).trained, loaded(second).trained)
    assert predict(spec, loaded(second), rare_new).mean() == pytest.approx(rare_new["label"].mean(), rel=0.1)


class Scorer:
    def __init__(self, spec: ModelSpec, trained: Trained) -> None:
        self.spec, self.model = spec, loaded(trained)

    def predict_proba(self, frame: pd.DataFrame):
        return predict(self.spec, self.model, frame)


def remembers(challenger: Scorer, champion: Scorer, older: pd.DataFrame, **policy: float):
    newest = rows(2000, 8)
    reference = TestData(features(older), older["label"])
    verdict = validate_new_model(
        challenger, champion, TestData(features(newest), newest["label"]), GatePolicy(**policy), reference=reference
    )
    return next(check for check in verdict.checks if check.name == "remembers")


def test_catastrophic_forgetting_is_caught_and_honest_learning_is_not() -> None:
    # A concept appears and disappears: in its time, the slope of x is the other way round.
    older, strategy = rows(2000, 5), StrategySpec(kind="incremental")
    spec = spec_of(SCALED, strategy)
    champion = train(spec, rows(3000, 6), NEW)
    outcomes = {}
    for name, slope in (("same", 2.0), ("other", -2.0)):
        both = pd.concat([rows(3000, 6), rows(3000, 7, slope)], ignore_index=True)
        challenger = train(spec, both, NEW, start=Start(loaded(champion), np.arange(6000) >= 3000))
        outcomes[name] = remembers(Scorer(spec, challenger), Scorer(spec, champion), older)
    assert outcomes["same"].passed
    assert not outcomes["other"].passed
    assert "it forgot; a training in full" in outcomes["other"].detail
    assert outcomes["other"].value < 0.5 < 0.8 < outcomes["same"].value


def test_the_tolerance_and_too_few_reference_rows_decide() -> None:
    spec = spec_of(SGD, StrategySpec())
    champion, challenger = (Scorer(spec, train(spec, rows(400, seed), NEW)) for seed in (1, 2))
    wide = remembers(challenger, champion, rows(2000, 5), remember_tolerance=1.0)
    assert wide.passed
    few = remembers(challenger, champion, rows(40, 5))
    assert not few.passed
    assert "only 40 rows; expected at least 500" in few.detail
    forgetful = remembers(challenger, champion, rows(2000, 5).assign(label=1))
    assert "only one class present" in forgetful.detail
