import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ct_assets.core.drift import (
    DriftLimits,
    UpstreamLimits,
    common_counts,
    compare,
    ks_binned,
    psi,
    psi_noise_quantile,
    upstream_change,
)
from ct_assets.core.profile import bin_edges, profile

counts = st.lists(st.integers(0, 1000), min_size=2, max_size=12)


def profiles(reference, current, cap=500):
    edges = bin_edges(reference)
    return profile(reference, edges, cap), profile(current, edges, cap)


def normal(rows, seed, shift=0.0):
    return pd.DataFrame({"x": np.random.default_rng(seed).normal(size=rows) + shift})


@settings(max_examples=100, deadline=None)
@given(counts, st.randoms(use_true_random=False))
def test_psi_is_the_sum_of_both_relative_entropies(a, random):
    b = random.sample(a, len(a))
    if not sum(a):
        return
    used = np.array(a) + np.array(b) > 0
    p, q = np.array(a)[used] + 0.5, np.array(b)[used] + 0.5
    assert psi(a, b) == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), abs=1e-10)
    assert psi(a, b) == pytest.approx(psi(b, a), abs=1e-10)


def test_psi_of_equal_shares_is_zero_and_of_an_empty_side_undefined():
    assert psi([10, 20, 0], [10, 20, 0]) == 0
    assert np.isnan(psi([0, 0], [1, 2]))


def test_mean_and_quantile_of_psi_without_drift_hold_in_simulation():
    # The mean by Yurdakul (2018).
    generator = np.random.default_rng(3)
    n, m, k = 5000, 1000, 20
    shares = np.full(k, 1 / k)
    simulated = [psi(generator.multinomial(n, shares), generator.multinomial(m, shares)) for _ in range(4000)]
    assert np.mean(simulated) == pytest.approx((k - 1) * (1 / n + 1 / m), rel=0.03)
    assert np.mean(np.array(simulated) > psi_noise_quantile(k, n, m, 0.05)) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("degrees", [3, 9, 19, 200])
@pytest.mark.parametrize("alpha", [0.1, 0.01, 0.001])
def test_the_noise_quantile_is_a_chi_square_quantile(degrees, alpha):
    exact = stats.chi2.isf(alpha, degrees) * (1 / 400 + 1 / 100)
    assert psi_noise_quantile(degrees + 1, 400, 100, alpha) == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
def test_binned_ks_is_a_lower_bound_that_misses_less_than_one_bin(shift):
    a, b = normal(3000, 1), normal(2000, 2, shift)
    p, q = profiles(a, b)
    found = ks_binned(*common_counts(p.columns["x"], q.columns["x"]))
    exact = stats.ks_2samp(a["x"], b["x"]).statistic
    assert exact - 1 / 20 <= found <= exact + 1e-12


def test_binned_ks_with_one_bin_a_value_is_the_exact_statistic():
    generator = np.random.default_rng(5)
    a, b = (pd.DataFrame({"x": generator.integers(0, 8, n).astype(float)}) for n in (300, 200))
    p, q = profiles(a, b)
    found = ks_binned(*common_counts(p.columns["x"], q.columns["x"]))
    assert found == pytest.approx(stats.ks_2samp(a["x"], b["x"]).statistic, abs=1e-12)


def test_small_windows_of_the_same_distribution_stay_quiet():
    generator = np.random.default_rng(11)
    reference = pd.DataFrame({"x": generator.normal(size=20000), "c": generator.integers(0, 60, 20000).astype(str)})
    edges = bin_edges(reference)
    base = profile(reference, edges)
    verdicts, naive_alarms = [], 0
    for _ in range(300):
        window = pd.DataFrame({"x": generator.normal(size=50), "c": generator.integers(0, 60, 50).astype(str)})
        report = compare(base, profile(window, edges))
        verdicts += [c.verdict for c in report.columns]
        naive_alarms += any(c.psi > 0.1 for c in report.columns)
    assert naive_alarms > 60  # without the noise allowance many windows would have raised a warning
    assert verdicts.count("drift") == 0
    assert verdicts.count("warn") <= 3


def test_a_shift_is_found_and_the_worst_column_comes_first():
    generator = np.random.default_rng(2)
    a = pd.DataFrame({name: generator.normal(size=5000) for name in ("calm", "mild", "wild")})
    b = pd.DataFrame(
        {
            "calm": generator.normal(size=900),
            "mild": generator.normal(size=900) + 0.45,
            "wild": generator.normal(size=900) + 2,
        }
    )
    report = compare(*profiles(a, b))
    assert [c.column for c in report.columns] == ["wild", "mild", "calm"]
    assert [c.verdict for c in report.columns] == ["drift", "warn", "ok"]
    assert report.verdict == "drift"
    assert report.drifted == ("wild",)
    assert report.drifted_share == pytest.approx(1 / 3)


def test_more_missing_values_are_drift_and_few_rows_are_not():
    full = pd.DataFrame({"x": np.arange(1000.0)})
    holes = full.where(np.arange(1000)[:, None] % 4 != 0)
    report = compare(*profiles(full, holes))
    assert report.columns[0].verdict == "drift"
    assert report.columns[0].missing_change == 0.25
    assert compare(*profiles(full, holes.iloc[:4])).verdict == "ok"


def test_a_vanished_column_is_drift_and_an_empty_window_is_not():
    a = pd.DataFrame({"x": np.arange(1000.0), "y": np.arange(1000.0)})
    assert compare(*profiles(a, a[["x"]])).drifted == ("y",)
    assert compare(*profiles(a, a.iloc[:0])).verdict == "ok"


def test_a_new_category_is_drift():
    a = pd.DataFrame({"c": ["a"] * 500 + ["b"] * 500})
    b = pd.DataFrame({"c": ["a"] * 200 + ["b"] * 200 + ["z"] * 100})
    assert compare(*profiles(a, b)).drifted == ("c",)


def test_more_categories_than_the_cap_do_not_look_like_drift():
    generator = np.random.default_rng(4)
    a, b = (pd.DataFrame({"c": generator.integers(0, 300, n).astype(str)}) for n in (30000, 9000))
    assert compare(*profiles(a, b, cap=100)).verdict == "ok"


def test_a_changed_kind_is_drift():
    a, b = pd.DataFrame({"x": [1.0] * 100}), pd.DataFrame({"x": ["a"] * 100})
    report = compare(profile(a), profile(b))
    assert report.columns[0].detail == "was numeric, is categorical"
    assert report.verdict == "drift"


def test_limits_reject_unknown_names():
    with pytest.raises(ValueError, match="psi_wram"):
        DriftLimits(psi_wram=1)


MILES = pd.DataFrame({"distance": np.random.default_rng(7).gamma(2, 500, 30000)})


@pytest.mark.parametrize(
    ("factor", "hint"),
    [
        (1.609344, "miles sent as kilometres"),
        (0.621371, "kilometres sent as miles"),
        (1000, "1000 times smaller"),
        (0.3048, "feet sent as metres"),
    ],
)
def test_a_change_of_units_is_found_and_named(factor, hint):
    sent = MILES.iloc[:900] * factor
    history, batch = profiles(MILES, sent)
    (change,) = upstream_change(history, batch, ["distance"])
    assert change.kind == "scale"
    assert change.ratio == pytest.approx(sent["distance"].mean() / MILES["distance"].mean())
    assert hint in change.hint


def test_fahrenheit_sent_as_celsius_is_named():
    fahrenheit = pd.DataFrame({"temp": np.random.default_rng(8).normal(55, 18, 20000)})
    history, batch = profiles(fahrenheit, (fahrenheit.iloc[:72] - 32) * 5 / 9)
    (change,) = upstream_change(history, batch, ["temp"])
    assert "Fahrenheit sent as Celsius" in change.hint


def test_other_days_of_the_same_distribution_are_not_changes():
    edges = bin_edges(MILES)
    history = profile(MILES, edges)
    generator = np.random.default_rng(9)
    for rows in (3, 30, 900):
        for _ in range(50):
            batch = profile(pd.DataFrame({"distance": generator.gamma(2, 500, rows)}), edges)
            assert upstream_change(history, batch, ["distance"]) == []


def test_a_jump_of_missing_values_and_a_changed_kind_are_changes():
    history = profile(pd.DataFrame({"a": np.arange(500.0), "b": np.arange(500.0)}))
    batch = profile(pd.DataFrame({"a": [np.nan] * 60 + [250.0] * 40, "b": ["x"] * 100}))
    found = upstream_change(history, batch, ["a", "b", "unknown"], UpstreamLimits())
    assert [(c.column, c.kind) for c in found] == [("a", "missing"), ("b", "type")]


def test_only_declared_columns_are_judged_and_an_empty_history_says_nothing():
    history, batch = profiles(MILES, MILES * 2)
    assert upstream_change(history, batch, []) == []
    assert upstream_change(profile(MILES.iloc[:0]), batch, ["distance"]) == []
