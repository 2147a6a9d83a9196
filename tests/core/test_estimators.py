import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from worlds_of_core import INPUTS, examples, spec_with

from ct_assets.core.artifact import load_model
from ct_assets.core.inputs import model_inputs
from ct_assets.core.spec import EstimatorSpec, ModelSpec
from ct_assets.core.training import Trained, predict, train

NUMBERS = {"hour": "numeric", "stops": "numeric"}
LOGISTIC, BAYES = "sklearn.linear_model.LogisticRegression", "sklearn.naive_bayes.GaussianNB"
FOREST = "sklearn.ensemble.RandomForestClassifier"


def written(text: str) -> EstimatorSpec:
    return EstimatorSpec.model_validate(yaml.safe_load(text))


def trained_and_loaded(spec: ModelSpec) -> tuple[Trained, np.ndarray]:
    trained = train(spec, examples(), examples(100, 4))
    model = load_model(trained.payload, trained.digest, spec.trusted_types)
    return trained, predict(spec, model, examples(100, 4))


def test_a_pipeline_in_yaml_is_the_pipeline_in_python() -> None:
    estimator = written(
        """
path: sklearn.pipeline.Pipeline
params:
  steps:
    - - columns
      - path: sklearn.compose.ColumnTransformer
        params:
          transformers:
            - [carrier, {path: sklearn.preprocessing.OneHotEncoder, params: {handle_unknown: ignore}}, [carrier]]
          remainder: passthrough
    - [model, {path: sklearn.linear_model.LogisticRegression, params: {C: 0.5}}]
"""
    )
    by_hand = spec_with(INPUTS)  # the same, made by a function
    _, written_scores = trained_and_loaded(spec_with(INPUTS, estimator=estimator))
    _, expected = trained_and_loaded(by_hand)
    np.testing.assert_array_equal(written_scores, expected)


def test_a_voting_ensemble_predicts_the_mean_of_its_members_after_a_round_trip() -> None:
    members = [["line", {"path": LOGISTIC}], ["bayes", {"path": BAYES}]]
    estimator = EstimatorSpec(
        path="sklearn.ensemble.VotingClassifier", params={"estimators": members, "voting": "soft"}
    )
    assert isinstance(estimator.build(), VotingClassifier)
    _, scores = trained_and_loaded(spec_with(NUMBERS, estimator=estimator))
    inputs = model_inputs(spec_with(NUMBERS), examples())
    fitted = [model.fit(inputs, examples()["label"]) for model in (LogisticRegression(), GaussianNB())]
    rest = model_inputs(spec_with(NUMBERS), examples(100, 4))
    np.testing.assert_allclose(scores, np.mean([m.predict_proba(rest)[:, 1] for m in fitted], axis=0))


def test_a_stacking_ensemble_of_a_forest_and_a_line_is_stored_and_predicts_the_same() -> None:
    forest = {"path": FOREST, "params": {"n_estimators": 5}}
    estimator = EstimatorSpec(
        path="sklearn.ensemble.StackingClassifier",
        params={"estimators": [["f", forest], ["l", {"path": LOGISTIC}]], "final_estimator": {"path": LOGISTIC}},
    )
    spec = spec_with(NUMBERS, estimator=estimator, seed=7)
    trained, scores = trained_and_loaded(spec)
    peer = StackingClassifier(
        [("f", RandomForestClassifier(5, random_state=7)), ("l", LogisticRegression(random_state=7))],
        final_estimator=LogisticRegression(random_state=7),
    ).fit(model_inputs(spec, examples()), examples()["label"])
    np.testing.assert_array_equal(scores, peer.predict_proba(model_inputs(spec, examples(100, 4)))[:, 1])
    assert trained_and_loaded(spec)[0].payload == trained.payload


@pytest.mark.parametrize("task", ["LGBMClassifier", "LGBMRegressor"])
def test_lightgbm_is_pinned_to_one_way_of_summing_and_to_the_threads_of_the_spec(task: str) -> None:
    model = EstimatorSpec(path=f"lightgbm.{task}", params={"n_estimators": 3}).build(seed=5, threads=2)
    wanted = {"deterministic": True, "force_row_wise": True, "n_jobs": 2, "random_state": 5, "n_estimators": 3}
    assert wanted.items() <= model.get_params().items()
    own = EstimatorSpec(path=f"lightgbm.{task}", params={"n_jobs": 1, "force_row_wise": False}).build(5, 2)
    assert (own.get_params()["n_jobs"], own.get_params()["force_row_wise"]) == (1, False)


def test_lightgbm_within_a_pipeline_is_pinned_too() -> None:
    nested = {"estimator": {"path": "lightgbm.LGBMClassifier"}, "categories": ["carrier"]}
    model = EstimatorSpec(path="ct_assets.core.estimators.numbered", params=nested).build(5, 3)
    assert model.get_params()["model__n_jobs"] == 3
    assert model.get_params()["model__deterministic"] is True


def test_lightgbm_reads_text_through_numbered_categories_and_gives_the_same_bytes_twice() -> None:
    nested = {
        "estimator": {"path": "lightgbm.LGBMClassifier", "params": {"n_estimators": 5}},
        "categories": ["carrier"],
    }
    spec = spec_with(INPUTS, estimator=EstimatorSpec(path="ct_assets.core.estimators.numbered", params=nested), seed=3)
    first, scores = trained_and_loaded(spec)
    assert train(spec, examples(), examples(100, 4)).payload == first.payload
    numbers = {"AA": 0, "DL": 1, "UA": 2}

    def by_hand(frame: pd.DataFrame) -> np.ndarray:
        return np.column_stack([frame["carrier"].map(numbers), frame["hour"], frame["stops"]]).astype(float)

    import lightgbm

    data = lightgbm.Dataset(by_hand(examples()), examples()["label"].to_numpy())
    params = {"objective": "binary", "seed": 3, "deterministic": True, "force_row_wise": True, "verbose": -1}
    booster = lightgbm.train(params | {"num_threads": 1}, data, num_boost_round=5)
    np.testing.assert_array_equal(scores, booster.predict(by_hand(examples(100, 4))))


def test_a_category_that_training_never_saw_is_a_missing_number() -> None:
    model = EstimatorSpec(
        path="ct_assets.core.estimators.numbered",
        params={"estimator": {"path": "lightgbm.LGBMClassifier", "params": {"n_estimators": 2}}, "categories": ["c"]},
    ).build(1, 1)
    model.fit(pd.DataFrame({"c": ["a", "b"] * 50, "x": range(100)}), [0, 1] * 50)
    assert np.isnan(model[0].transform(pd.DataFrame({"c": ["new"], "x": [1]}))[0, 0])


PLACES = {
    r"params.steps\[0\]\[1\] path 'nowhere.Model' cannot be imported": [["m", {"path": "nowhere.Model"}]],
    r"steps\[0\]\[1\]: unknown field 'parms', did you mean 'params'": [["m", {"path": LOGISTIC, "parms": {}}]],
    r"steps\[0\]\[1\] \(sklearn.*LogisticRegression\): unknown parameter 'max_itr', did you mean 'max_iter'": [
        ["m", {"path": LOGISTIC, "params": {"max_itr": 3}}]
    ],
    r"steps\[0\] \(m\) has 'sklearn.*' in place of an estimator; expected a list of": [["m", LOGISTIC]],
    r"steps\[0\] is LogisticRegression\(\); expected a list of \[name,": [{"path": LOGISTIC}],
    r"steps is a LogisticRegression; expected a list of": {"path": LOGISTIC},
}


@pytest.mark.parametrize("message", PLACES)
def test_a_mistake_among_steps_is_told_with_its_place(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EstimatorSpec(path="sklearn.pipeline.Pipeline", params={"steps": PLACES[message]}).build()


def test_a_parameter_that_there_is_not_is_told_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Pipeline\): unknown parameter 'memry', did you mean 'memory'"):
        EstimatorSpec(path="sklearn.pipeline.Pipeline", params={"steps": [], "memry": None}).build()


def test_what_a_factory_refuses_is_told_with_its_place() -> None:
    nested = {"estimator": {"path": "sklearn.preprocessing.FunctionTransformer", "params": {}}, "categories": 3}
    with pytest.raises(ValueError, match="estimator: ct_assets.core.estimators.numbered cannot be made of params"):
        EstimatorSpec(path="ct_assets.core.estimators.numbered", params=nested).build()
