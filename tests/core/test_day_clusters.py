"""Metrics with days as the independent units, against the closed form, another estimator and simulations."""

import numpy as np
import pytest
from scipy import stats

from ct_assets.core.day_clusters import Estimate, estimate, noise_margin
from ct_assets.core.metrics import auc
from ct_assets.core.tasks import BINARY
from ct_assets.core.tasks.values import Regression


def errors(days, rows, seed, day_sd=0.0):
    """Labels 0 and predictions that err, with an effect of the day."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), rows)
    wrong = np.abs(random.normal(size=days * rows) + day_sd * random.normal(size=days)[day])
    return np.zeros(len(day)), wrong, day


def test_of_a_mean_over_equal_days_the_variance_is_that_of_the_day_means():
    labels, wrong, day = errors(12, 30, 1, 0.5)
    found = estimate(Regression(), "mae", labels, wrong, day)
    assert found is not None
    means = wrong.reshape(12, 30).mean(axis=1)
    assert (found.value, found.rows, found.days) == (pytest.approx(wrong.mean()), 360, 12)
    jackknife = 11 / 12 * sum(change**2 for change in found.changes)
    assert jackknife == pytest.approx(means.var(ddof=1) / 12)


def test_without_autocorrelation_the_margin_is_that_of_the_pooled_t_test_of_day_means():
    # Alternating days: the correlation of neighbours is negative, and nothing is inflated.
    means = [np.array([1.0, 2.0] * 4), np.array([1.5, 2.7] * 3)]
    found = [estimate(Regression(), "mae", np.zeros(len(m)), m, np.arange(len(m))) for m in means]
    pooled = (7 * means[0].var(ddof=1) + 5 * means[1].var(ddof=1)) / 12 * (1 / 8 + 1 / 6)
    assert found[0] is not None and found[1] is not None
    assert noise_margin(*found, alpha=0.01) == pytest.approx(stats.t.ppf(0.99, 12) * np.sqrt(pooled))


def test_the_variance_of_auc_is_that_of_structural_components_summed_by_day():
    random = np.random.default_rng(4)
    day = np.repeat(np.arange(20), 200)
    labels = (random.random(4000) < 0.3).astype(float)
    scores = 1 / (1 + np.exp(-(random.normal(size=4000) + labels * (0.8 + 0.5 * random.normal(size=20)[day]))))
    found = estimate(BINARY, "auc", labels, scores, day)
    # Obuchowski (1997), with the sums of each day's components.
    positive, negative = scores[labels == 1], scores[labels == 0]
    area = auc(labels, scores)
    v10 = np.array([(p > negative).mean() for p in positive]) - area
    v01 = np.array([(positive > n).mean() for n in negative]) - area
    sums = np.bincount(day[labels == 1], v10, 20) / len(positive) + np.bincount(day[labels == 0], v01, 20) / len(
        negative
    )
    assert found is not None
    assert 19 / 20 * sum(change**2 for change in found.changes) == pytest.approx(20 / 19 * (sums**2).sum(), rel=0.05)


def test_rows_that_leave_the_metric_undefined_say_nothing():
    nothing = np.array([])
    assert estimate(BINARY, "auc", nothing, nothing, nothing) is None
    assert estimate(BINARY, "auc", np.ones(3), np.full(3, 0.5), np.arange(3)) is None
    one_day = estimate(BINARY, "auc", np.array([0.0, 1.0]), np.array([0.2, 0.7]), np.zeros(2))
    assert one_day is not None
    assert noise_margin(one_day, one_day) is None
    # The only positive lies on one day: without that day there is no AUC, and the others still tell how days differ.
    labels, day = np.array([0.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 2])
    lonely = estimate(BINARY, "auc", labels, np.array([0.2, 0.7, 0.9, 0.1]), day)
    assert lonely is not None and lonely.days == 2


@pytest.mark.parametrize(("day_sd", "correlation"), [(0.0, 0.0), (0.5, 0.0), (0.5, 0.5)])
def test_a_look_without_loss_exceeds_the_margin_as_often_as_it_says(day_sd, correlation):
    random, looks, alarms = np.random.default_rng(7), 1500, 0
    for _ in range(looks):
        means = day_sd * random.normal(size=21)
        for day in range(1, 21):
            means[day] = correlation * means[day - 1] + np.sqrt(1 - correlation**2) * means[day]
        values = np.abs(means) + random.normal(size=21) / np.sqrt(50)
        both = [estimate(Regression(), "mae", np.zeros(len(v)), v, np.arange(len(v))) for v in (values[:7], values[7:])]
        loss = both[1].value - both[0].value
        alarms += loss > noise_margin(both[0], both[1], alpha=0.01)
    assert alarms / looks <= 0.02


def classes(*days: tuple[int, int]) -> Estimate:
    """Days with so many rows and so many positives among them."""
    labels = np.concatenate([np.arange(rows) < positives for rows, positives in days]).astype(float)
    day = np.repeat(np.arange(len(days)), [rows for rows, _ in days])
    found = estimate(BINARY, "auc", labels, np.random.default_rng(3).random(len(labels)), day)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("days", "says_something"),
    [
        ([(40, 8)] * 14, True),
        ([(40, 5)] * 2, True),
        ([(40, 0)] * 9 + [(40, 2)] * 5, True),
        ([(40, 0)] * 5 + [(40, 1)] * 9, False),
        ([(40, 0)] * 10 + [(40, 8)] * 4, False),
        ([(40, 0)] * 13 + [(40, 20)], False),
        ([(40, 0), (40, 20)], False),
        ([(40, 20)], False),
    ],
)
def test_a_rare_class_on_few_days_gives_no_margin(days: list[tuple[int, int]], says_something: bool) -> None:
    usual = classes(*[(40, 8)] * 14)
    assert (noise_margin(usual, classes(*days)) is not None) is says_something
    assert (noise_margin(classes(*days), usual) is not None) is says_something


def test_few_days_of_many_rows_differ_by_as_much_as_few_days_of_few() -> None:
    random, looks, alarms = np.random.default_rng(8), 1000, 0

    def days(count: int, rows: int) -> Estimate:
        day = np.repeat(np.arange(count), rows)
        wrong = random.normal(size=count * rows) * np.exp(0.3 * random.normal(size=count))[day]
        found = estimate(Regression(), "mae", np.zeros(len(wrong)), wrong, day)
        assert found is not None
        return found

    for _ in range(looks):
        reference, now = days(28, 50), days(2, 250)
        margin = noise_margin(reference, now, alpha=0.01)
        assert margin is not None
        alarms += now.value - reference.value > margin
    assert alarms / looks <= 0.025
