"""Claim: with 0.5 % positives, balanced trainings rank as well as an unbalanced one and their probabilities stay true.

The data are simulated, so that the probability of every row is known. Each arm trains LightGBM through the platform
and predicts fresh rows. The peer is the same estimator with `class_weight="balanced"` and nothing else, which is what
people often do: it ranks as well, and its probabilities are of another world.
"""

import argparse
import statistics
import time
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks._claim import Claim, Figure, publish, table
from ct_assets.core.artifact import load_model
from ct_assets.core.metrics import auc, logloss
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.spec import EstimatorSpec, EventSpec, LabelSpec, ModelSpec
from ct_assets.core.strategies import StrategySpec
from ct_assets.core.training import predict, train

MAX_LOSS_OF_AUC = 0.01
MAX_RATIO = 1.25
INPUTS = [f"x{i}" for i in range(8)]
PARAMS = {"n_estimators": 100, "num_leaves": 7, "min_child_samples": 100}
PEER = "class_weight alone"
ARMS: dict[str, StrategySpec] = {
    "none": StrategySpec(),
    "weights": StrategySpec(balance="weights"),
    "undersample": StrategySpec(balance="undersample", negatives=20),
    PEER: StrategySpec(),
}

Scores = npt.NDArray[np.float64]


def simulated(rows: int, seed: int) -> tuple[pd.DataFrame, Scores]:
    """Rows with labels of which about one in two hundred is positive, and each row's true probability."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, len(INPUTS))), columns=INPUTS)
    logit = -6.4 + frame["x0"] + 0.7 * frame["x1"] * (frame["x2"] > 0) + 0.8 * np.maximum(frame["x3"], 0)
    truth = (1 / (1 + np.exp(-logit))).to_numpy()
    return frame.assign(label=(random.random(rows) < truth).astype("int8")), truth


def spec_of(arm: str) -> ModelSpec:
    """The model of one arm."""
    params = PARAMS | ({"class_weight": "balanced"} if arm == PEER else {})
    return ModelSpec(
        name="rare",
        owner="team:benchmark",
        description="A rare event",
        events=EventSpec(source="events", sql="SELECT 1", id_column="id", lookback_days=1),
        label=LabelSpec(source="events", sql="SELECT 1", delay=timedelta(days=1)),
        entities=(),
        feature_service="rare_v1",
        inputs=dict.fromkeys(INPUTS, "numeric"),
        estimator=EstimatorSpec(path="lightgbm.LGBMClassifier", params=params),
        strategy=ARMS[arm],
        policy=RetrainPolicy(),
    )


def measured(arm: str, examples: pd.DataFrame, rest: pd.DataFrame, truth: Scores) -> dict[str, float]:
    """One training of an arm: how it ranks, how true its probabilities are, and how long its fit took."""
    spec = spec_of(arm)
    started = time.perf_counter()
    trained = train(spec, examples, rest.head(100))
    seconds = time.perf_counter() - started
    scores = predict(spec, load_model(trained.payload, trained.digest), rest)
    top = np.argsort(truth)[-len(truth) // 10 :]
    return {
        "auc": auc(rest["label"], scores),
        "logloss": logloss(rest["label"], scores),
        "ratio": float(scores.mean() / truth.mean()),
        "ratio_top": float(scores[top].mean() / truth[top].mean()),
        "seconds": seconds,
    }


def main() -> None:
    """Train every arm on several simulated worlds, and compare medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repetitions", type=int, default=5)
    chosen = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    prevalence = []
    for seed in range(chosen.repetitions):
        examples, _ = simulated(chosen.rows, 2 * seed)
        rest, truth = simulated(chosen.rows, 2 * seed + 1)
        prevalence.append(float(truth.mean()))
        for arm, results in found.items():
            results.append(measured(arm, examples, rest, truth))
    middle = {
        arm: {name: statistics.median(r[name] for r in results) for name in results[0]}
        for arm, results in found.items()
    }
    ours = [middle["weights"], middle["undersample"]]
    ok = all(
        each["auc"] > middle["none"]["auc"] - MAX_LOSS_OF_AUC and 1 / MAX_RATIO < each[name] < MAX_RATIO
        for each in ours
        for name in ("ratio", "ratio_top")
    )
    figures: dict[str, Figure] = {"rows": chosen.rows, "prevalence": statistics.median(prevalence)}
    figures |= {
        f"{arm.replace(' ', '_')}_{name}": value for arm, each in middle.items() for name, value in each.items()
    }
    columns = ("arm", "auc", "logloss", "mean predicted / true", "the same, top tenth", "seconds")
    rows = [(arm, *each.values()) for arm, each in middle.items()]
    goal = (
        f"weights and undersample lose less than {MAX_LOSS_OF_AUC} auc, and their mean probabilities are within a "
        f"factor of {MAX_RATIO} of the true ones, overall and in the top tenth"
    )
    publish(Claim("imbalance", figures, goal, ok), [table("0.5 % positives", columns, rows)])


if __name__ == "__main__":
    main()
