"""What an estimator decides by rows that it does not fit, it decides by rows that are newer than all that it knows."""

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from worlds_of_core import spec_with

from ct_assets.core.artifact import load_model
from ct_assets.core.estimators import early_stopped, time_ordered
from ct_assets.core.inner_split import RowTimes, TimeOrderedSplit, fitting_rows_of, splits_at_random
from ct_assets.core.lesson import lesson_of
from ct_assets.core.spec import EstimatorSpec, LabelSpec, ModelSpec
from ct_assets.core.strategies import StrategySpec
from ct_assets.core.training import train

START = pd.Timestamp("2021-03-01", tz="UTC")
DAY = pd.Timedelta(days=1)
HISTOGRAMS, CALIBRATED = "sklearn.ensemble.HistGradientBoostingClassifier", "sklearn.calibration.CalibratedClassifierCV"
TREES = {"max_iter": 60, "learning_rate": 0.2, "min_samples_leaf": 1, "max_leaf_nodes": 127}
MONTH = LabelSpec(source="outcomes", sql="SELECT 1", horizon=timedelta(days=28))


def daily(days: int, a_day: int = 1) -> pd.DataFrame:
    moments = START + np.repeat(np.arange(days), a_day) * DAY
    return pd.DataFrame({"event_timestamp": moments, "hour": np.arange(days * a_day, dtype=float)})


def noise(weeks: int = 26, houses: int = 100) -> pd.DataFrame:
    """A call within four weeks, which nothing tells: neighbouring weeks of a house share the days of their labels."""
    random = np.random.default_rng(2)
    calls = random.random((houses, 7 * weeks + 28)) < 0.02
    rows = [
        (START + 7 * week * DAY, float(house), float(week), int(calls[house, 7 * week : 7 * week + 28].any()))
        for week in range(weeks)
        for house in range(houses)
    ]
    return pd.DataFrame(rows, columns=["event_timestamp", "hour", "stops", "label"])


def by_noise(**changes: Any) -> ModelSpec:
    return spec_with({"hour": "numeric", "stops": "numeric"}, label=MONTH, **changes)


def test_folds_are_the_newest_rows_and_what_was_mature_at_their_first_prediction() -> None:
    times = RowTimes.of(daily(20), timedelta(days=3))
    with fitting_rows_of(times):
        folds = list(TimeOrderedSplit(folds=2, share=0.25).split(np.zeros((20, 1))))
    # Day 10 is the first of the older fold, and what was predicted on day 7 is mature then.
    assert [(list(earlier), list(newer)) for earlier, newer in folds] == [
        (list(range(8)), list(range(10, 15))),
        (list(range(13)), list(range(15, 20))),
    ]


def test_rows_may_lie_in_any_order() -> None:
    shuffled = daily(20).sample(frac=1, random_state=1)
    with fitting_rows_of(RowTimes.of(shuffled, timedelta(days=3))):
        ((earlier, newer),) = TimeOrderedSplit(share=0.25).split(shuffled)
    assert sorted(shuffled["hour"].iloc[newer]) == [15, 16, 17, 18, 19]
    assert sorted(shuffled["hour"].iloc[earlier]) == list(range(13))


def test_where_events_mature_by_themselves_the_newest_are_those_that_matured_last() -> None:
    frame = daily(20, 10).assign(matures_at=lambda rows: rows["event_timestamp"] + DAY)
    frame.loc[0, "matures_at"] = START + 30 * DAY  # a slow one, predicted long ago
    with fitting_rows_of(RowTimes.of(frame, None)):
        ((earlier, newer),) = TimeOrderedSplit(share=0.25).split(frame)
    starts = frame["event_timestamp"].iloc[newer].min()
    assert 0 not in earlier
    assert (frame["matures_at"].iloc[earlier] <= starts).all()


def test_rows_whose_times_are_not_known_are_not_split() -> None:
    with pytest.raises(ValueError, match=r"times of the 20 rows to split are not known \(none are\)"):
        list(TimeOrderedSplit().split(np.zeros((20, 1))))
    with fitting_rows_of(RowTimes.of(daily(8), timedelta(0))), pytest.raises(ValueError, match="those of 8 are"):
        list(TimeOrderedSplit().split(np.zeros((20, 1))))
    with (
        fitting_rows_of(RowTimes.of(daily(20), timedelta(days=30))),
        pytest.raises(ValueError, match=r"none of the 20 rows was mature at 2021-03-17.*smaller share"),
    ):
        list(TimeOrderedSplit().split(np.zeros((20, 1))))


@pytest.mark.parametrize(
    ("path", "params"),
    [(HISTOGRAMS, TREES), ("lightgbm.LGBMClassifier", {"n_estimators": 60, "learning_rate": 0.2, "num_leaves": 127})],
)
def test_boosting_stops_at_once_where_nothing_can_be_learned(path: str, params: dict[str, Any]) -> None:
    nested = {"estimator": {"path": path, "params": params}, "share": 0.2}
    spec = by_noise(estimator=EstimatorSpec(path="ct_assets.core.estimators.early_stopped", params=nested))
    trained = train(spec, noise(), noise().tail(100))
    model = load_model(trained.payload, trained.digest, spec.trusted_types)
    assert model.iterations_ <= 5

    at_random = HistGradientBoostingClassifier(**TREES, early_stopping=True, validation_fraction=0.2, random_state=0)
    at_random.fit(noise()[["hour", "stops"]], noise()["label"])
    assert at_random.n_iter_ > 20  # the neighbours in time that are left out vouch for what was remembered


def test_what_stops_early_learns_all_rows_in_the_end() -> None:
    frame = noise(12)
    with fitting_rows_of(RowTimes.of(frame, timedelta(days=28))):
        found = early_stopped(HistGradientBoostingClassifier(random_state=0), 0.2).fit(frame[["hour"]], frame["label"])
    peer = HistGradientBoostingClassifier(max_iter=found.iterations_, early_stopping=False, random_state=0)
    peer.fit(frame[["hour"]], frame["label"])
    np.testing.assert_array_equal(found.predict_proba(frame[["hour"]]), peer.predict_proba(frame[["hour"]]))


def test_weights_reach_both_sides_of_the_split() -> None:
    frame = noise(12)
    weights = np.where(frame["hour"] < 50, 0.0, 1.0)
    rows = frame[weights > 0]
    kept = early_stopped(HistGradientBoostingClassifier(random_state=0))
    with fitting_rows_of(RowTimes.of(frame, timedelta(days=28))):
        weighted = early_stopped(HistGradientBoostingClassifier(random_state=0))
        weighted.fit(frame[["stops"]], frame["label"], sample_weight=weights)
    with fitting_rows_of(RowTimes.of(rows, timedelta(days=28))):
        kept.fit(rows[["stops"]], rows["label"])
    np.testing.assert_allclose(weighted.predict_proba(rows[["stops"]]), kept.predict_proba(rows[["stops"]]), atol=0.02)


def test_an_estimator_that_takes_no_rows_to_stop_by_is_refused() -> None:
    with (
        fitting_rows_of(RowTimes.of(daily(20), timedelta(0))),
        pytest.raises(ValueError, match="LogisticRegression takes no rows to stop by"),
    ):
        early_stopped(LogisticRegression()).fit(np.zeros((20, 1)), np.arange(20) % 2)


def test_probabilities_are_calibrated_on_newer_rows() -> None:
    forest = {"path": "sklearn.ensemble.RandomForestClassifier", "params": {"n_estimators": 30, "random_state": 0}}
    cv = {"path": "ct_assets.core.estimators.time_ordered", "params": {"share": 0.3}}
    spec = by_noise(estimator=EstimatorSpec(path=CALIBRATED, params={"estimator": forest, "cv": cv}))
    trained = train(spec, noise(), noise().tail(100))
    model = load_model(trained.payload, trained.digest, spec.trusted_types)
    scores = model.predict_proba(noise()[["hour", "stops"]])[:, 1]
    shuffled = CalibratedClassifierCV(model.estimator).fit(noise()[["hour", "stops"]], noise()["label"])
    believed = shuffled.predict_proba(noise()[["hour", "stops"]])[:, 1]
    # It is noise: who calibrates in time order finds out, and says about the same of everybody.
    assert np.std(scores) < 0.5 * np.std(believed)


def test_the_histograms_stop_by_no_random_part_unless_asked_to() -> None:
    assert EstimatorSpec(path=HISTOGRAMS).build().get_params()["early_stopping"] is False
    nested = {"estimator": {"path": HISTOGRAMS}, "categories": ["carrier"]}
    pipeline = EstimatorSpec(path="ct_assets.core.estimators.numbered", params=nested).build()
    assert pipeline.get_params()["model__early_stopping"] is False


@pytest.mark.parametrize(
    ("path", "params", "named"),
    [
        (HISTOGRAMS, {"early_stopping": True}, "early_stopping: HistGradientBoostingClassifier stops by a random part"),
        ("sklearn.neural_network.MLPClassifier", {"early_stopping": True}, "early_stopping: MLPClassifier"),
        ("sklearn.linear_model.SGDClassifier", {"early_stopping": True}, "early_stopping: SGDClassifier"),
        ("sklearn.ensemble.GradientBoostingClassifier", {"n_iter_no_change": 5}, "n_iter_no_change: GradientBoosting"),
        (CALIBRATED, {}, "cv: CalibratedClassifierCV splits the rows into folds"),
        (CALIBRATED, {"cv": 3}, "cv: CalibratedClassifierCV"),
        (
            CALIBRATED,
            {"estimator": {"path": HISTOGRAMS, "params": {"early_stopping": True}}},
            "cv: .*; estimator__early_stopping: Hist",
        ),
        ("sklearn.linear_model.LogisticRegressionCV", {}, "cv: LogisticRegressionCV"),
        (
            "sklearn.model_selection.GridSearchCV",
            {"estimator": {"path": HISTOGRAMS}, "param_grid": {"max_iter": [1, 2]}, "cv": 3},
            "cv: GridSearchCV .*time_ordered",
        ),
    ],
)
def test_a_training_refuses_splits_that_are_not_in_time_order(path: str, params: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        train(by_noise(estimator=EstimatorSpec(path=path, params=params)), noise(8), noise(8).tail(10))


def test_splits_in_time_order_and_fixed_numbers_of_iterations_are_fine() -> None:
    fine = [
        LogisticRegression(),
        HistGradientBoostingClassifier(early_stopping=False),
        CalibratedClassifierCV(cv=time_ordered()),
        early_stopped(HistGradientBoostingClassifier(early_stopping=False)),
    ]
    assert [splits_at_random(estimator) for estimator in fine] == [[], [], [], []]


def test_a_balanced_training_is_matched_to_what_its_models_could_not_know() -> None:
    strategy = StrategySpec(balance="weights")
    forest = EstimatorSpec(path="sklearn.ensemble.RandomForestClassifier", params={"n_estimators": 40})
    spec = by_noise(estimator=forest, strategy=strategy)
    frame = noise()
    trained = train(spec, frame, frame.tail(10))
    model = load_model(trained.payload, trained.digest, spec.trusted_types)
    lesson = lesson_of(spec, frame, frame[["hour", "stops"]], None)
    folds = list(TimeOrderedSplit(2, 0.2).of(lesson.times))
    assert all(
        (lesson.times.matures.iloc[earlier].max(), len(earlier) > 0) <= (lesson.times.predicted.iloc[newer].min(), True)
        for _, earlier, newer in folds
    )
    # A forest that remembers is far too sure of what it has learned, and not of what comes after.
    raw = [
        RandomForestClassifier(40, class_weight="balanced", random_state=0)
        .fit(frame[["hour", "stops"]].iloc[earlier], frame["label"].iloc[earlier])
        .predict_proba(frame[["hour", "stops"]].iloc[newer])
        for _, earlier, newer in folds
    ]
    labels = frame["label"].to_numpy()[np.concatenate([newer for *_, newer in folds])]
    corrected = np.concatenate(raw) / model.weights
    assert (corrected[:, 1] / corrected.sum(axis=1)).mean() == pytest.approx(labels.mean(), rel=0.1)
