import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from worlds_of_core import INPUTS, examples, logistic, spec_with

from ct_assets.core.artifact import ArtifactError, artifact_digest, load_model
from ct_assets.core.inputs import model_inputs
from ct_assets.core.profile import CategoricalColumn, NumericColumn
from ct_assets.core.spec import EstimatorSpec
from ct_assets.core.tasks import LABEL, PREDICTION
from ct_assets.core.training import predict, train

SPEC = spec_with(INPUTS)


def test_the_same_examples_give_the_same_bytes() -> None:
    first, second = (train(SPEC, examples(), examples(100, 4)) for _ in range(2))
    assert first.payload == second.payload
    assert first.digest == artifact_digest(first.payload)


def test_the_order_of_columns_and_the_index_are_of_no_account() -> None:
    shuffled = examples()[["label", "stops", "hour", "carrier"]].set_index(pd.RangeIndex(1000, 1400))
    assert train(SPEC, shuffled, examples(100, 4)).digest == train(SPEC, examples(), examples(100, 4)).digest


def test_other_examples_or_parameters_give_another_digest() -> None:
    base = train(SPEC, examples(), examples(100, 4)).digest
    other = EstimatorSpec(path="worlds_of_core.logistic", params={"C": 0.1})
    assert train(SPEC, examples(seed=9), examples(100, 4)).digest != base
    assert train(SPEC, examples(), examples(100, 4), other).digest != base


def test_the_examples_kept_for_the_gate_do_not_change_the_model() -> None:
    assert train(SPEC, examples(), examples(100, 4)).digest == train(SPEC, examples(), examples(50, 5)).digest


def test_the_stored_model_predicts_what_the_estimator_does() -> None:
    trained = train(SPEC, examples(), examples(100, 4))
    model = load_model(trained.payload, trained.digest, SPEC.trusted_types)
    peer = logistic(C=0.5).fit(model_inputs(SPEC, examples()), examples()["label"])
    expected = peer.predict_proba(model_inputs(SPEC, examples(100, 4)))[:, 1]
    np.testing.assert_array_equal(predict(SPEC, model, examples(100, 4)), expected)


def test_one_class_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="400 training examples of m have one class only.*widen the training window"):
        train(SPEC, examples().assign(label=0), examples(100, 4))


def test_no_examples_are_an_error_too() -> None:
    with pytest.raises(ValueError, match="nothing to train m on: all 100 matured examples"):
        train(SPEC, examples().iloc[:0], examples(100, 4))


def test_a_model_of_a_type_that_nobody_reviewed_is_refused_before_it_is_fitted() -> None:
    mine = EstimatorSpec(path=f"{__name__}.Unfittable")
    with pytest.raises(ArtifactError, match="test_training.Unfittable.*nobody has reviewed.*trusted_types"):
        train(spec_with({"hour": "numeric"}, estimator=mine), examples(), examples(100, 4))


class Unfittable(LogisticRegression):
    def fit(self, *_):
        raise AssertionError("fitted before it was looked at")


def test_an_estimator_chosen_by_hand_may_wrap_another_and_hand_that_one_back() -> None:
    inner = SPEC.estimator.model_dump(mode="json")
    planted = EstimatorSpec(path="ct_assets.demo.sabotage.ShuffledLabels", params=inner)
    trained = train(SPEC, examples(), examples(100, 4), planted)
    assert isinstance(load_model(trained.payload, trained.digest, SPEC.trusted_types), Pipeline)
    assert trained.digest != train(SPEC, examples(), examples(100, 4)).digest


def test_what_only_a_fit_brings_in_is_refused_too() -> None:
    splines = {"path": "sklearn.preprocessing.SplineTransformer"}
    steps = {"steps": [["splines", splines], ["line", {"path": "sklearn.linear_model.LogisticRegression"}]]}
    pipeline = EstimatorSpec(path="sklearn.pipeline.Pipeline", params=steps)
    with pytest.raises(ArtifactError, match="BSpline.*trusted_types"):
        train(spec_with({"hour": "numeric"}, estimator=pipeline), examples(), examples(100, 4))


def test_the_reference_profile_holds_inputs_and_labels_of_training_and_predictions_on_the_rest() -> None:
    held_out = examples(100, 4)
    trained = train(SPEC, examples(), held_out)
    columns = trained.reference.columns
    assert set(columns) == {*INPUTS, LABEL, PREDICTION}
    carrier, hour, label, prediction = (columns[n] for n in ("carrier", "hour", LABEL, PREDICTION))
    assert isinstance(carrier, CategoricalColumn)
    assert dict(carrier.counts) == examples()["carrier"].value_counts().to_dict()
    assert isinstance(hour, NumericColumn) and isinstance(label, NumericColumn)
    assert hour.mean == pytest.approx(examples()["hour"].mean())
    assert label.mean == pytest.approx(examples()["label"].mean())
    assert isinstance(prediction, NumericColumn)
    model = load_model(trained.payload, trained.digest)
    assert prediction.count == 100
    assert prediction.mean == pytest.approx(predict(SPEC, model, held_out).mean())


def test_nothing_to_predict_gives_nothing() -> None:
    trained = train(SPEC, examples(), examples(100, 4))
    model = load_model(trained.payload, trained.digest)
    assert predict(SPEC, model, examples().iloc[:0]).tolist() == []


def test_an_estimator_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(ValueError, match="'nowhere.Model' cannot be imported.*expected 'package.module.Class'"):
        train(SPEC, examples(), examples(100, 4), EstimatorSpec(path="nowhere.Model"))


def test_the_seed_reaches_every_step_of_a_pipeline_and_leaves_what_was_given() -> None:
    forest = "sklearn.ensemble.RandomForestClassifier"
    assert EstimatorSpec(path=forest).build(5).random_state == 5
    assert EstimatorSpec(path=forest, params={"random_state": 3}).build(5).random_state == 3
    assert EstimatorSpec(path=forest).build().random_state is None
    trees = EstimatorSpec(path="ct_assets.defs.models.flight_delay.estimator.boosted_trees").build(5)
    assert trees.get_params()["trees__random_state"] == 5
