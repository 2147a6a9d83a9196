from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from worlds_of_core import spec_with

from ct_assets.core.artifact import load_model
from ct_assets.core.density_ratio import density_ratio
from ct_assets.core.spec import EstimatorSpec
from ct_assets.core.strategies import StrategySpec, choose
from ct_assets.core.training import predict, train

INPUTS = {"x": "numeric", "group": "categorical"}
LINE = EstimatorSpec(path="sklearn.linear_model.LogisticRegression", params={"C": 0.3})
DAYS = 40


def history(rows: int = 1200, seed: int = 0) -> pd.DataFrame:
    """Examples over forty days, oldest first, whose inputs move to the right."""
    random = np.random.default_rng(seed)
    age = np.sort(random.integers(0, DAYS * 24, rows))[::-1]
    x = random.normal(2 - age / (DAYS * 12), 1)
    return pd.DataFrame(
        {
            "id": np.arange(rows),
            "event_timestamp": pd.Timestamp("2020-03-01", tz="UTC") - pd.to_timedelta(age, unit="h"),
            "x": x,
            "group": random.choice(["a", "b", "c"], rows, p=[0.7, 0.2, 0.1]),
            "label": (random.random(rows) < 1 / (1 + np.exp(-x))).astype("int8"),
        }
    )


def chosen(seed: int = 1, frame: pd.DataFrame | None = None, **options: Any):
    frame = history() if frame is None else frame
    return choose(StrategySpec(**options), frame[["x", "group"]], frame["label"], frame["event_timestamp"], seed)


def coefficient(**options: Any) -> float:
    """Of a model trained on `history` as the options say."""
    spec = spec_with({"x": "numeric"}, estimator=LINE, strategy=StrategySpec(**options))
    trained = train(spec, history(), history(50, 9))
    return float(load_model(trained.payload, trained.digest).coef_[0, 0])


def coefficient_by_hand(rows: Any = slice(None), weights: Any = None) -> float:
    frame = history()
    picked = frame.iloc[rows] if isinstance(rows, slice) else frame[rows]
    line = LogisticRegression(C=0.3, random_state=0).fit(picked[["x"]], picked["label"], sample_weight=weights)
    return float(line.coef_[0, 0])


def ages() -> pd.Series:
    moments = history()["event_timestamp"]
    return (moments.max() - moments) / pd.Timedelta(days=1)


def test_the_default_learns_from_every_example_once() -> None:
    assert chosen().rows.tolist() == list(range(1200))
    assert chosen().weights is None
    assert coefficient() == coefficient_by_hand()


def test_a_window_is_the_newest_examples_of_its_length() -> None:
    assert coefficient(kind="window", window="10 days") == coefficient_by_hand((ages() < 10).to_numpy())


def test_recent_is_the_newest_rows() -> None:
    assert coefficient(sampling="recent", rows=100) == coefficient_by_hand(slice(-100, None))


def test_recent_goes_by_time_and_not_by_the_order_of_rows() -> None:
    turned = history().iloc[::-1].reset_index(drop=True)
    newest = turned.iloc[chosen(frame=turned, sampling="recent", rows=100).rows]
    assert newest["event_timestamp"].min() >= history()["event_timestamp"].iloc[-100]


def test_decay_halves_the_weight_at_each_half_life() -> None:
    expected = np.exp(-np.log(2) * ages() / 5)
    weights = chosen(sampling="time_decay", half_life="5 days").weights
    np.testing.assert_allclose(weights, expected / expected.mean())
    found = coefficient(sampling="time_decay", half_life="5 days")
    assert found == pytest.approx(coefficient_by_hand(weights=expected / expected.mean()), rel=1e-9)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(30, 300), wanted=st.integers(2, 300), seed=st.integers(0, 50))
def test_stratified_keeps_every_share_within_one_row(rows: int, wanted: int, seed: int) -> None:
    frame = history(rows, seed)
    picked = chosen(seed, frame, sampling="stratified", rows=wanted, by="group")
    assert len(picked.rows) == len(set(picked.rows)) == min(rows, wanted)
    strata = frame["label"].astype(str) + frame["group"]
    share = strata.value_counts() * min(wanted / rows, 1)
    count = strata.iloc[picked.rows].value_counts().reindex(share.index, fill_value=0)
    assert ((count - share).abs() < 1).all()


def test_stratified_draws_by_the_seed() -> None:
    first, again, other = (chosen(seed, sampling="stratified", rows=50).rows.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_stratified_cuts_amounts_into_deciles() -> None:
    frame = history().assign(label=np.arange(1200.0))
    picked = frame.iloc[chosen(frame=frame, sampling="stratified", rows=100).rows]
    assert (picked["label"] // 120).value_counts().tolist() == [10] * 10


def test_the_density_ratio_of_two_normal_distributions_is_found() -> None:
    random = np.random.default_rng(0)
    current = np.arange(20000) < 10000
    x = np.where(current, random.normal(1, 1, 20000), random.normal(0, 1, 20000))
    found = density_ratio(pd.DataFrame({"x": x}), current)
    expected = norm.pdf(x, 1) / (0.5 * norm.pdf(x, 1) + 0.5 * norm.pdf(x, 0))
    assert np.abs(found - expected).mean() < 0.02
    assert found.max() <= 2


def test_importance_weights_bring_the_mean_of_the_inputs_to_that_of_the_current_window() -> None:
    weights = chosen(sampling="importance", current="8 days").weights
    frame, now = history(), (ages() < 8).to_numpy()
    weighted = np.average(frame["x"], weights=weights)
    assert abs(weighted - frame["x"][now].mean()) < 0.25 * abs(frame["x"].mean() - frame["x"][now].mean())
    assert weights.mean() == pytest.approx(1)


def test_importance_weights_are_clipped_before_they_are_normalized() -> None:
    weights = chosen(sampling="importance", current="8 days", clip=1.5).weights
    raw = density_ratio(history()[["x", "group"]], (ages() < 8).to_numpy())
    expected = np.minimum(raw, 1.5)
    np.testing.assert_allclose(weights, expected / expected.mean())


def test_missing_numbers_and_a_window_of_everything_weigh_nothing_wrong() -> None:
    holes = history().assign(x=lambda frame: frame["x"].where(frame.index % 3 > 0))
    assert np.isfinite(chosen(frame=holes, sampling="importance", current="8 days").weights).all()
    assert set(chosen(sampling="importance", current="90 days").weights) == {1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "window"}, "kind window needs window: the time up to the newest matured example"),
        ({"kind": "warm_start"}, "kind warm_start needs add: trees or solver iterations"),
        ({"window": "3 days"}, "window is for kind window only, and kind is full"),
        ({"sampling": "recent"}, "sampling recent needs rows"),
        ({"sampling": "all", "half_life": "1 day"}, "half_life is for sampling time_decay only"),
        ({"reference": "1 day"}, "reference is for kind warm_start and incremental only"),
        ({"negatives": 3}, "negatives is for balance undersample only, and balance is none"),
        ({"kind": "windows"}, "Input should be 'full', 'window', 'warm_start' or 'incremental'"),
        ({"samplin": "all"}, "unknown field 'samplin', did you mean 'sampling'"),
        ({"kind": "window", "window": "-1 day"}, "should be greater than"),
    ],
)
def test_options_that_do_not_go_together_are_told(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StrategySpec(**options)


def test_a_stratum_that_is_no_input_and_a_weight_of_text_are_told() -> None:
    with pytest.raises(ValueError, match=r"strategy.by: unknown input 'grup', did you mean 'group'"):
        spec_with(INPUTS, strategy=StrategySpec(sampling="stratified", rows=9, by="grup"))
    with pytest.raises(ValueError, match="weight: input 'group' is categorical"):
        spec_with(INPUTS, weight="group")


def test_a_row_weight_counts_like_as_many_rows() -> None:
    frame = history(200).assign(copies=lambda f: f.index % 3)
    spec = spec_with({"x": "numeric"}, estimator=LINE, weight="copies")
    weighted = train(spec, frame, history(50, 9))
    repeated = frame.loc[frame.index.repeat(frame["copies"])]
    by_hand = LogisticRegression(C=0.3).fit(repeated[["x"]], repeated["label"])
    found = load_model(weighted.payload, weighted.digest).coef_
    np.testing.assert_allclose(found, by_hand.coef_, rtol=1e-4)


def test_row_weights_and_sampling_weights_are_multiplied() -> None:
    frame = history().assign(own=lambda f: 1.0 + f.index % 3)
    strategy = StrategySpec(sampling="time_decay", half_life=timedelta(days=5))
    trained = train(spec_with({"x": "numeric"}, estimator=LINE, weight="own", strategy=strategy), frame, history(50, 9))
    decay = (0.5 ** (ages() / 5)).to_numpy()
    expected = coefficient_by_hand(weights=frame["own"].to_numpy() * decay / decay.mean())
    assert load_model(trained.payload, trained.digest).coef_[0, 0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("broken", [np.nan, -1.0, np.inf])
def test_a_weight_that_is_none_is_told(broken: float) -> None:
    frame = history(100).assign(own=1.0)
    frame.loc[3, "own"] = broken
    with pytest.raises(ValueError, match="weight: 1 of 100 examples of m have no number from 0 up in 'own'"):
        train(spec_with({"x": "numeric"}, estimator=LINE, weight="own"), frame, history(50, 9))


def test_weights_reach_the_last_step_of_a_pipeline() -> None:
    frame = history(300).assign(own=lambda f: 0.5 + f.index % 2)
    steps = [["scale", {"path": "sklearn.preprocessing.StandardScaler"}], ["line", LINE.model_dump()]]
    pipeline = EstimatorSpec(path="sklearn.pipeline.Pipeline", params={"steps": steps})
    spec = spec_with({"x": "numeric"}, estimator=pipeline, weight="own")
    trained = train(spec, frame, history(50, 9))
    scaled = (frame[["x"]] - frame["x"].mean()) / frame["x"].std(ddof=0)
    by_hand = LogisticRegression(C=0.3).fit(scaled.to_numpy(), frame["label"], sample_weight=frame["own"])
    found = load_model(trained.payload, trained.digest)
    np.testing.assert_allclose(found[-1].coef_, by_hand.coef_, rtol=1e-6)


def test_an_ensemble_hands_the_weights_to_its_members() -> None:
    frame = history(300).assign(own=lambda f: 0.5 + f.index % 2)
    members = [["line", LINE.model_dump()], ["bayes", {"path": "sklearn.naive_bayes.GaussianNB"}]]
    params = {"estimators": members, "voting": "soft"}
    voting = EstimatorSpec(path="sklearn.ensemble.VotingClassifier", params=params)
    spec = spec_with({"x": "numeric"}, estimator=voting, weight="own")
    trained = train(spec, frame, history(50, 9))
    by_hand = LogisticRegression(C=0.3).fit(frame[["x"]], frame["label"], sample_weight=frame["own"])
    found = load_model(trained.payload, trained.digest)
    np.testing.assert_allclose(found.estimators_[0].coef_, by_hand.coef_)
    assert np.all(np.abs(predict(spec, found, frame) - 0.5) <= 0.5)


@pytest.mark.parametrize("around", [None, "sklearn.pipeline.Pipeline", "sklearn.ensemble.VotingClassifier"])
def test_an_estimator_that_cannot_take_weights_is_named(around: str | None) -> None:
    neighbours = {"path": "sklearn.neighbors.KNeighborsClassifier"}
    part = {"steps": [["n", neighbours]]} if around and "Pipeline" in around else {"estimators": [["n", neighbours]]}
    estimator = EstimatorSpec(path=around, params=part) if around else EstimatorSpec(**neighbours)
    with pytest.raises(ValueError, match="KNeighborsClassifier.* cannot take a weight for each row; choose"):
        train(spec_with({"x": "numeric"}, estimator=estimator, weight="x"), history(50).assign(x=1.0), history(50, 9))
