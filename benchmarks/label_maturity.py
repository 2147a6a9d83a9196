"""Claim: training on whatever labels have arrived misstates the rate of bad loans, and matured cohorts alone tell it.

A simulation: a bad loan shows within weeks, a good one when its term of months is over, and the number of loans grows.
The naive rate is of every loan whose label is known; ours is that of the training set, through the code that trains.
"""

import argparse
import math
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks._claim import Claim, Figure, publish, table
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.spec import EstimatorSpec, EventSpec, LabelSpec, ModelSpec
from ct_assets.lake.examples import MATURES, read_labels
from ct_assets.lake.lake import Lake
from ct_assets.lake.training_set import FEATURES_DIGEST, FeatureVersions, build_training_set, read_examples

if TYPE_CHECKING:
    from feast import FeatureStore

PARTS: tuple[Literal["train", "holdout"], ...] = ("train", "holdout")
BAD_RATE = 0.187
LONGEST_DAYS = 120
"""Longest term; the others have half of it or three quarters."""
TERMS = (LONGEST_DAYS // 2, LONGEST_DAYS * 3 // 4, LONGEST_DAYS)
BAD_WITHIN_DAYS = 45
GOAL_BIAS = 0.1
GOAL_ERRORS = 4.0
"""How many standard errors a rate of matured cohorts may be off; one in 16,000 rates is by chance."""
START = pd.Timestamp("2020-01-01", tz="UTC")
DAY = pd.Timedelta(days=1)
FEATURES = FeatureVersions({}, "none")
KINDS: dict[str, dict[str, Any]] = {
    "delay": {"source": "endings", "sql": "SELECT loan, bad AS label, known_at FROM endings"},
    "matures_at": {"source": "endings", "sql": "SELECT loan, bad AS label, known_at FROM endings"},
    "horizon": {
        "source": "endings",
        "sql": """
SELECT e.loan, CAST(count(d.loan) > 0 AS TINYINT) AS label FROM events e LEFT JOIN endings d
  ON d.loan = e.loan AND d.bad = 1 AND d.known_at < e.horizon_ends
GROUP BY e.loan
""",
    },
    "delay, absent": {"source": "endings", "sql": "SELECT loan, bad AS label, known_at FROM endings WHERE bad = 1"},
}
MATURITY: dict[str, dict[str, Any]] = {
    "delay": {"delay": timedelta(days=LONGEST_DAYS, hours=1)},
    "matures_at": {"matures_at": "term_ends"},
    "horizon": {"horizon": timedelta(days=BAD_WITHIN_DAYS)},
    "delay, absent": {"delay": timedelta(days=BAD_WITHIN_DAYS), "absent": 0},
}


@dataclass(frozen=True)
class Rates:
    """Rates of bad loans as one kind of label tells them.

    Attributes:
        kind: Of label.
        naive: Of the loans whose label has arrived.
        ours: Of the training set and its holdout.
        rows: How many loans those are.
    """

    kind: str
    naive: float
    ours: float
    rows: int

    @property
    def errors(self) -> float:
        """How many standard errors of a rate of so many loans ours is off the truth."""
        return abs(self.ours - BAD_RATE) / math.sqrt(BAD_RATE * (1 - BAD_RATE) / self.rows)


def model(kind: str) -> ModelSpec:
    """A model of bad loans."""
    return ModelSpec(
        name="loans",
        owner="team:benchmarks",
        description="Does the loan go bad?",
        events=EventSpec(
            source="loans", id_column="loan", sql="SELECT loan, starts_at AS event_timestamp, term_ends FROM loans"
        ),
        label=LabelSpec(**KINDS[kind], **MATURITY[kind]),
        entities=("loan",),
        feature_service="none",
        inputs={"amount": "numeric"},
        estimator=EstimatorSpec(path="sklearn.linear_model.LogisticRegression"),
        policy=RetrainPolicy(),
    )


def loans(days: int, a_day: int, seed: int) -> pd.DataFrame:
    """Loans of so many days, at the end a third more of them than at the start, and when and how each of them ends."""
    random = np.random.default_rng(seed)
    count = days * a_day
    starts = np.sort(days * (np.sqrt(1 + 7 / 9 * random.random(count)) - 1) * 3)
    terms = random.choice(TERMS, count)
    bad = random.random(count) < BAD_RATE
    ends = starts + np.where(bad, random.uniform(1, BAD_WITHIN_DAYS, count), terms)
    return pd.DataFrame(
        {
            "loan": np.arange(count),
            "starts_at": _moments(starts),
            "term_ends": _moments(starts + terms),
            "ends_at": _moments(ends),
            "bad": bad.astype("int8"),
            "amount": random.lognormal(size=count),
        }
    )


def write(lake: Lake, spec: ModelSpec, frame: pd.DataFrame) -> None:
    """Let loans and endings arrive, and score every loan."""
    started = frame.assign(known_at=frame["starts_at"])
    ended = frame[["loan", "bad"]].assign(known_at=frame["ends_at"])
    scored = started[["loan", "known_at", "amount"]].assign(event_timestamp=frame["starts_at"])
    scored[FEATURES_DIGEST] = FEATURES.digest
    if spec.label.matures_at:
        scored[MATURES] = frame["term_ends"]
    for name, rows in (
        ("loans", started[["loan", "starts_at", "term_ends", "known_at"]]),
        ("endings", ended),
        (f"{spec.name}/scored", scored),
    ):
        # A month a partition: the days in between would only take time to write.
        for month, part in rows.groupby(rows["known_at"].dt.strftime("%Y-%m-01")):
            lake.dataset(name).write(str(month), pa.Table.from_pandas(part, preserve_index=False))


def measure(kind: str, frame: pd.DataFrame, as_of: pd.Timestamp) -> Rates:
    """The rate of bad loans as of a moment, by whichever labels have arrived and by matured cohorts."""
    with tempfile.TemporaryDirectory() as folder:
        lake, spec = Lake(Path(folder)), model(kind)
        write(lake, spec, frame)
        arrived = read_labels(lake, model("delay"), as_of, START)
        # Every loan is scored, so the feature store is not asked.
        snapshot = build_training_set(lake, cast("FeatureStore", None), spec, as_of, START, FEATURES)
        labels = pd.concat([read_examples(lake, snapshot, part)["label"] for part in PARTS])
        return Rates(kind, float(arrived["label"].mean()), float(labels.mean()), len(labels))


def main() -> None:
    """Measure every kind of label."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=150, help="days of loans before the moment of training")
    parser.add_argument("--a-day", type=int, default=400, help="loans a day")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    frame = loans(options.days, options.a_day, options.seed)
    rates = [measure(kind, frame, START + options.days * DAY) for kind in KINDS]
    figures: dict[str, Figure] = {"truth": BAD_RATE, "naive": round(rates[0].naive, 4)}
    figures |= {f"ours ({each.kind})": round(each.ours, 4) for each in rates}
    figures |= {f"standard errors off ({each.kind})": round(each.errors, 2) for each in rates}
    claim = Claim(
        name="label_maturity",
        figures=figures,
        goal=f"naive more than {GOAL_BIAS:.0%} too high, ours within {GOAL_ERRORS:g} standard errors for every kind",
        ok=rates[0].naive - BAD_RATE > GOAL_BIAS and all(each.errors <= GOAL_ERRORS for each in rates),
    )
    rows = [(each.kind, each.rows, BAD_RATE, each.naive, each.ours, each.errors) for each in rates]
    columns = ("label", "loans", "truth", "whatever arrived", "matured cohorts", "standard errors off")
    publish(claim, [table("Rate of bad loans", columns, rows)])


def _moments(days: Any) -> pd.DatetimeIndex:
    return (START + pd.to_timedelta(days, unit="D")).as_unit("us")


if __name__ == "__main__":
    main()
