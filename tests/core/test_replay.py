import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from ct_assets.core.replay import fit_before, monthly_metrics


def day(n):
    return pd.Timestamp("2013-01-01", tz="UTC") + pd.Timedelta(days=n)


@pytest.fixture
def events():
    return pd.DataFrame(
        {
            "known": [day(1), day(4), day(2), day(5), pd.NaT, day(9)],
            "label": [1.0, 0.0, 0.0, 1.0, np.nan, 1.0],
            "f": range(6),
            "g": 7,
        },
        index=list("abcdef"),
    )


def trained_on(frame, moment):
    columns = {"known_column": "known", "label_column": "label", "feature_columns": ["f"]}
    return fit_before(frame, moment, **columns, fit=lambda features, labels: features.assign(label=labels))


@pytest.mark.parametrize(("moment", "rows"), [(2, "a"), (4, "ac"), (5, "abc"), (6, "abcd"), (10, "abcdf")])
def test_a_training_sees_only_labels_known_before_it(events, moment, rows):
    # The label of c becomes known on day 2: not before day 2. That of e never does.
    expected = events.loc[list(rows), ["f", "label"]]
    pd.testing.assert_frame_equal(trained_on(events, day(moment)), expected)


def test_a_moment_without_known_labels_is_refused(events):
    with pytest.raises(ValueError, match="no label was known before 2013-01-02"):
        trained_on(events, day(1))


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
