from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from ct_assets.core.replay import monthly_metrics, replay_schedule


def day(n):
    return pd.Timestamp("2013-01-01", tz="UTC") + pd.Timedelta(days=n)


class Mean:
    """Predicts the training labels' mean, and remembers what it was trained on."""

    trained: ClassVar[list] = []

    def __init__(self, features, labels):
        self.mean = labels.mean()
        Mean.trained.append(sorted(features.index))

    def predict_proba(self, features):
        return np.full((len(features), 2), [1 - self.mean, self.mean])


@pytest.fixture
def events():
    Mean.trained = []
    return pd.DataFrame(
        {
            "at": [day(n) for n in range(6)],
            "known": [day(1), day(4), day(2), day(5), pd.NaT, day(9)],
            "label": [1.0, 0.0, 0.0, 1.0, np.nan, 1.0],
            "f": range(6),
        },
        index=list("abcdef"),
    )


def replay(frame, moments, until=6, **changes):
    arguments = {
        "time_column": "at",
        "known_column": "known",
        "label_column": "label",
        "feature_columns": ["f"],
        "fit": Mean,
    }
    return replay_schedule(frame, **(arguments | changes), train_at=[day(m) for m in moments], until=day(until))


def test_each_model_sees_only_labels_known_before_it(events):
    found = replay(events.sample(frac=1, random_state=1), [2, 4])
    assert Mean.trained == [["a"], ["a", "c"]]  # c's label becomes known on day 2: not before day 2; b's on day 4
    assert found["prediction"].to_dict() == {"c": 1.0, "d": 1.0, "e": 0.5, "f": 0.5}
    assert found["model_as_of"].tolist() == [day(2), day(2), day(4), day(4)]


def test_a_static_model_is_one_moment(events):
    found = replay(events, [2], until=5)
    assert list(found.index) == ["c", "d", "e"]
    assert set(found["model_as_of"]) == {day(2)}


def test_moments_may_come_in_any_order_and_a_gap_without_events_is_fine(events):
    gap = events.drop(index=["c", "d"])
    pd.testing.assert_frame_equal(replay(gap, [4, 2]), replay(gap, [2, 4]))
    assert list(replay(gap, [2, 4]).index) == ["e", "f"]


def test_a_moment_without_known_labels_is_refused(events):
    with pytest.raises(ValueError, match="no label was known before 2013-01-02"):
        replay(events, [1])


def test_moments_after_the_end_and_missing_columns_are_refused(events):
    with pytest.raises(ValueError, match="all before until"):
        replay(events, [2, 6])
    with pytest.raises(ValueError, match="no column g"):
        replay(events, [2], feature_columns=["f", "g"])


def test_monthly_metrics_are_those_of_the_months_known_labels():
    generator = np.random.default_rng(0)
    at = pd.Timestamp("2013-01-01", tz="UTC") + pd.to_timedelta(generator.uniform(0, 59, 500), unit="D")
    p = generator.random(500)
    predictions = pd.DataFrame({"at": at, "label": (generator.random(500) < p).astype(float), "prediction": p})
    predictions.loc[::7, "label"] = np.nan
    found = monthly_metrics(predictions, time_column="at", label_column="label")
    assert list(found.index) == ["2013-01", "2013-02"]
    january = predictions[(predictions["at"] < pd.Timestamp("2013-02-01", tz="UTC"))]
    known = january.dropna()
    assert found.loc["2013-01", "events"] == len(january)
    assert found.loc["2013-01", "rows"] == len(known)
    assert found.loc["2013-01", "auc"] == pytest.approx(roc_auc_score(known["label"], known["prediction"]))
