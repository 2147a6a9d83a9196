"""The comparison's figures are those of one plain replay, whatever the order in which months are worked off."""

from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from worlds_of_core import logistic, spec_with

from ct_assets.core.artifact import load_model
from ct_assets.core.gate import GatePolicy, TestData, validate_new_model
from ct_assets.core.inputs import model_inputs
from ct_assets.core.spec import EstimatorSpec, ModelSpec
from ct_assets.core.tasks import task_of
from ct_assets.core.training import predict, train
from ct_assets.demo.compare import Comparison, _labelled_events
from ct_assets.demo.sabotage import ShuffledLabels
from ct_assets.lake.lake import Lake

START, END = pd.Timestamp("2013-01-01", tz="UTC"), pd.Timestamp("2013-06-01", tz="UTC")
MOMENTS = [pd.Timestamp(f"2013-0{month}-01", tz="UTC") for month in (4, 5)]
# The workers are other processes, which find no module of the tests.
SPEC = spec_with(
    {"hour": "numeric", "stops": "numeric"},
    estimator=EstimatorSpec(path="sklearn.linear_model.LogisticRegression", params={"C": 0.5}),
)


def world(rows: int = 3000) -> pd.DataFrame:
    """Events over five months whose labels turn round in the fourth; every tenth label never comes."""
    random = np.random.default_rng(5)
    moments = START + pd.to_timedelta(np.sort(random.uniform(0, (END - START).total_seconds(), rows)), unit="s")
    hour = random.integers(0, 24, rows).astype(float)
    late = np.where(moments < MOMENTS[0], hour / 24, 1 - hour / 24)
    frame = pd.DataFrame({"id": [f"e{i:05}" for i in range(rows)], "event_timestamp": moments.as_unit("us")})
    frame = frame.assign(hour=hour, stops=random.normal(size=rows), label=(random.random(rows) < late).astype("int8"))
    frame["known_at"] = frame["event_timestamp"] + pd.to_timedelta(random.uniform(1, 60, rows), unit="h").as_unit("us")
    frame["prediction"] = random.random(rows)
    return frame.assign(labelled=np.arange(rows) % 10 > 0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("home"), world())


def written(home: Path, events: pd.DataFrame) -> Path:
    lake = Lake(home)
    for column, name in (("event_timestamp", "scored"), ("known_at", "performance")):
        rows = events if name == "scored" else events[events["labelled"]]
        for day, part in rows.groupby(rows[column].dt.date.astype(str)):
            kept = (
                part.assign(known_at=part["event_timestamp"]).drop(columns=["label", "labelled"])
                if name == "scored"
                else part[["id", "label", "known_at"]]
            )
            lake.dataset(f"m/{name}").write(str(day), pa.Table.from_pandas(kept, preserve_index=False))
    return home


def auc(labels: pd.Series, scores: pd.Series) -> float:
    """By its definition: the share of pairs in the right order."""
    positive, negative = scores[labels == 1].to_numpy(), scores[labels == 0].to_numpy()
    return float(np.mean((positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)))


def replayed(moments: list[pd.Timestamp]) -> pd.DataFrame:
    events = world().query("labelled and known_at <= @END")
    # A label that comes early is learned from when its event is mature, a day after it.
    events["known_at"] = events["known_at"].clip(lower=events["event_timestamp"] + pd.Timedelta(days=1))

    parts = []
    for moment, end in zip(moments, [*moments[1:], END], strict=True):
        known = events[events["known_at"] < moment]
        model = SPEC.estimator.build().fit(model_inputs(SPEC, known), known["label"].to_numpy())
        part = events[(events["event_timestamp"] >= moment) & (events["event_timestamp"] < end)]
        parts.append(part.assign(prediction=model.predict_proba(model_inputs(SPEC, part))[:, 1]))
    return pd.concat(parts)


@pytest.mark.parametrize("ahead", [False, True], ids=["at the end", "while the loop runs"])
def test_every_arm_is_that_of_one_plain_replay(home: Path, ahead: bool) -> None:
    comparison = Comparison(home, SPEC, START, END)
    if ahead:
        comparison.advance(MOMENTS[1])
        for _ in range(100):
            comparison.advance(END)
            sleep(0.05)
    found = comparison.finish()["auc"]
    for arm, moments in (("static", MOMENTS[:1]), ("monthly", MOMENTS)):
        rows = replayed(moments)
        by_month = {str(m)[:7]: part for m, part in rows.groupby(rows["event_timestamp"].dt.strftime("%Y-%m"))}
        expected = {month: auc(part["label"], part["prediction"]) for month, part in by_month.items()}
        months = found["monthly"] if arm == "monthly" else found["static_monthly"]
        assert months == pytest.approx(expected, abs=1e-6)
    served = world().query("labelled and known_at <= @END and event_timestamp >= @MOMENTS[0]")
    april = served[served["event_timestamp"] < MOMENTS[1]]
    assert found["served_monthly"]["2013-04"] == pytest.approx(auc(april["label"], april["prediction"]), abs=1e-6)
    assert found["static"] == pytest.approx(np.mean(list(found["static_monthly"].values())), abs=1e-6)


def test_before_its_first_champion_a_model_is_compared_on_nothing(tmp_path: Path) -> None:
    late = world().assign(prediction=lambda rows: rows["prediction"].where(rows["event_timestamp"] >= MOMENTS[1]))
    found = Comparison(written(tmp_path / "late", late), SPEC, START, END).finish()["auc"]
    assert found["static_monthly"].keys() == found["served_monthly"].keys() == found["monthly"].keys() == {"2013-05"}
    rows = replayed(MOMENTS[:1]).query("event_timestamp >= @MOMENTS[1]")
    assert found["static"] == pytest.approx(auc(rows["label"], rows["prediction"]), abs=1e-6)
    never = world().assign(prediction=np.nan)
    assert Comparison(written(tmp_path / "never", never), SPEC, START, END).finish() == {"auc": {}, "logloss": {}}


def test_a_month_of_one_class_has_no_figure_and_spoils_no_mean(tmp_path: Path) -> None:
    events = world()
    may = events["event_timestamp"] >= MOMENTS[1]
    events = events.assign(label=events["label"].where(~may, 0))
    found = Comparison(written(tmp_path, events), SPEC, START, END).finish()["auc"]
    assert found["served_monthly"]["2013-05"] is None
    assert found["served"] == found["served_monthly"]["2013-04"]


def test_before_the_first_training_moment_there_is_nothing_to_compare(tmp_path: Path) -> None:
    assert Comparison(tmp_path, SPEC, START, MOMENTS[0]).finish() == {"auc": {}, "logloss": {}}


def test_a_corrected_label_is_the_newest_of_its_moment(tmp_path: Path) -> None:
    lake, moments = Lake(tmp_path), [START + pd.Timedelta(days=days) for days in (1, 2, 9)]
    scored = pd.DataFrame(
        {"id": ["a"], "event_timestamp": moments[:1], "known_at": moments[:1], "hour": 1.0, "stops": 0.0}
    )
    lake.dataset("m/scored").write("2013-01-02", pa.Table.from_pandas(scored, preserve_index=False))
    for label, moment in enumerate(moments[1:]):
        outcome = pa.table({"id": ["a"], "label": [label], "known_at": [moment]})
        lake.dataset("m/performance").write(str(moment.date()), outcome)
    found = [_labelled_events(tmp_path, SPEC, moment)["label"].tolist() for moment in moments[1:]]
    assert found == [[0], [1]]


def test_a_model_of_shuffled_labels_is_rejected() -> None:
    spec: ModelSpec = spec_with({"carrier": "categorical", "hour": "numeric", "stops": "numeric"})
    events = world().assign(carrier="AA", stops=0.0).query("event_timestamp < @MOMENTS[0]")
    train, test = events.iloc[:1000], events.iloc[1000:]
    sound = logistic().fit(train[spec.columns], train["label"])
    planted = ShuffledLabels("worlds_of_core.logistic", {}, seed=1).fit(train[spec.columns], train["label"])

    class Scorer:
        def __init__(self, model: object) -> None:
            self.model = model

        def predict_proba(self, features: pd.DataFrame, /) -> object:
            return predict(spec, self.model, features)

    gate = GatePolicy(min_rows=100, floor=0.6, tolerance=0.01)
    data = TestData(test[spec.columns], test["label"])
    assert validate_new_model(Scorer(sound), None, data, gate).passed
    verdict = validate_new_model(Scorer(planted), Scorer(sound), data, gate)
    assert not verdict.passed
    assert {c.name for c in verdict.checks if not c.passed} >= {"not_worse_than_champion", "above_floor"}


BOOSTED = {"loss": "quantile", "max_iter": 20}


@pytest.mark.parametrize(
    ("task", "estimator"),
    [
        ({"task": "binary"}, EstimatorSpec(path="sklearn.linear_model.LogisticRegression")),
        ({"task": "regression"}, EstimatorSpec(path="sklearn.linear_model.LinearRegression")),
        (
            {"task": "quantile", "quantiles": (0.1, 0.5, 0.9)},
            EstimatorSpec(path="sklearn.ensemble.HistGradientBoostingRegressor", params=BOOSTED),
        ),
    ],
    ids=["binary", "regression", "quantile"],
)
def test_a_training_on_shuffled_labels_learns_nothing_whatever_the_task(
    task: dict[str, Any], estimator: EstimatorSpec
) -> None:
    trusted = ("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",)
    spec = spec_with({"hour": "numeric"}, estimator=estimator, trusted_types=trusted, evaluation_days=7, **task)
    events = world().query("event_timestamp < @MOMENTS[0]")
    examples, holdout = events.iloc[:1200], events.iloc[1200:]
    planted = estimator.model_dump(mode="json") | {"quantiles": list(spec.quantiles)}
    models = [
        load_model(trained.payload, trained.digest, trusted)
        for chosen in (None, EstimatorSpec(path="ct_assets.demo.sabotage.ShuffledLabels", params=planted))
        for trained in [train(spec, examples, holdout, chosen)]
    ]
    kind, labels = task_of(spec), holdout["label"]
    metric = {"binary": "logloss", "regression": "rmse", "quantile": "pinball"}[spec.task]
    sound, shuffled = (kind.measure(metric, kind.codes(labels), predict(spec, model, holdout)) for model in models)
    assert sound < 0.97 * shuffled
