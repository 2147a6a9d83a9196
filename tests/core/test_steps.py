"""Sudden changes are found, and seasons, weekdays and days that resemble each other are none."""

import numpy as np
import pandas as pd
import pytest

from ct_assets.core.day_statistics import day_statistics, series_of
from ct_assets.core.steps import last_steps, steps

DAYS = 60


def series(name: str, seed: int = 1) -> np.ndarray:
    """Daily means of one kind of world; 200 rows a day."""
    random, day = np.random.default_rng(seed), np.arange(DAYS)
    noise = random.normal(size=DAYS) / np.sqrt(200)
    close = np.zeros(DAYS)
    for number in range(1, DAYS):
        close[number] = 0.8 * close[number - 1] + 0.6 * random.normal()
    return {
        "independent": noise,
        "season": noise + 3 * np.sin(2 * np.pi * day / 365),
        "close days": noise + 0.7 * close,
        "weekday": noise + (day % 7 > 4),
        "constant": np.zeros(DAYS),
    }[name]


def found(values: np.ndarray, **options) -> int:
    return int(steps(values[:, None], np.full((len(values), 1), 1 / 200), **options)[0])


EACH = pytest.mark.parametrize("name", ["independent", "season", "close days", "weekday", "constant"])


@EACH
def test_a_world_that_does_not_change_takes_no_step(name: str) -> None:
    for seed in range(20):
        assert found(series(name, seed)) == -1


@EACH
def test_a_large_change_is_a_step_on_its_second_day_and_from_its_first_on(name: str) -> None:
    values = series(name)
    values[50:] += 8.0
    assert found(values[:51]) == -1, "one day may be a mistake"
    assert [found(values[:end]) for end in (52, 53, 60)] == [50, 50, 50]


def test_a_step_that_has_gone_back_or_that_the_champion_knows_is_none() -> None:
    values = series("independent")
    values[50:55] += 8.0
    assert found(values[:54]) == 50
    assert found(values) == -1
    values[50:] = series("independent")[50:] + 8.0
    assert [found(values, first=first) for first in (0, 50, 54)] == [50, 50, -1]


def test_a_slow_change_is_no_step_however_far_it_goes() -> None:
    assert found(series("independent") + np.maximum(np.arange(DAYS) - 40, 0) * 0.02) == -1


def test_one_mad_day_does_not_hide_the_next_change() -> None:
    values = series("independent")
    values[30], values[50:] = 1e140, values[50:] + 8.0
    assert found(values) == 50


def test_days_without_a_value_hide_nothing() -> None:
    values = series("independent")
    values[:3] = values[20] = values[40] = np.nan
    assert found(values) == -1
    values[50:] += 8.0
    assert found(values) == 50


def test_few_days_tell_nothing() -> None:
    values = series("independent")
    values[20:] += 8.0
    assert found(values[:22]) == -1
    assert found(values[:22], history=10) == 20


def test_a_step_has_its_statistic_and_its_values() -> None:
    random = np.random.default_rng(3)
    days = [
        day_statistics(
            pd.DataFrame(
                {
                    "hot": random.normal(60, 10, 300) if day < 50 else (random.normal(60, 10, 300) - 32) / 1.8,
                    "stuck": random.normal(size=300) if day < 50 else np.zeros(300),
                    "holes": np.where(random.random(300) < (0.02 if day < 50 else 0.3), np.nan, 1.0),
                    "kind": random.choice(["a", "b"] if day < 50 else ["a", "c"], 300),
                    "calm": random.normal(size=300),
                }
            )
        )
        for day in range(53)
    ]
    steps_of = last_steps(days, list(days[0]), 0, 14)
    assert "calm" not in steps_of
    for name, statistic in {"stuck": "log spread", "holes": "missing"}.items():
        assert (steps_of[name].statistic, steps_of[name].day) == (statistic, 50)
    assert steps_of["hot"].day == steps_of["kind"].day == 50


def test_statistics_of_a_day_are_those_of_its_rows_without_the_tails() -> None:
    values = np.arange(1000.0)
    found = day_statistics(pd.DataFrame({"x": np.append(values, np.nan), "c": ["a"] * 1001}))
    clipped = np.clip(values, *np.quantile(values, [0.01, 0.99]))
    assert found["x"]["mean"] == (
        pytest.approx(clipped.mean(), rel=1e-5),
        pytest.approx(clipped.var() / 1000, rel=1e-2),
    )
    assert found["x"]["log spread"][0] == pytest.approx(np.log(clipped.std()), rel=1e-5)
    assert found["x"]["missing"][0] == pytest.approx(1 / 1001, rel=1e-5)
    assert sorted(share for name, (share, _) in found["c"].items() if name != "missing")[-2:] == [0.0, 1.0]


@pytest.mark.parametrize("values", [[1.797e308, -1.797e308, 1.0] * 9, [np.inf, -np.inf, np.nan], [], [3.0]])
def test_whatever_a_column_holds_its_statistics_are_finite_or_none(values: list[float]) -> None:
    found = day_statistics(pd.DataFrame({"x": np.array(values, dtype=float)}))
    flat = [figure for pair in found["x"].values() for figure in pair]
    assert all(figure is None or np.isfinite(figure) for figure in flat)
    assert series_of([found], "x")[1].shape == (1, 3)
