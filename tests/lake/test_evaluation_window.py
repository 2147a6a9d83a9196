"""The evaluation window grows as far as a verdict takes, and no further than leaves as much to learn from."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pandas as pd
import pytest
from worlds_of_core import spec_with

from ct_assets.core.gate import GatePolicy
from ct_assets.core.spec import LabelSpec, ModelSpec
from ct_assets.lake.evaluation_window import EvaluationWindow, Growth, evaluation_window

START, DAY = pd.Timestamp("2022-05-01", tz="UTC"), pd.Timedelta(days=1)
FREE = Growth()


def spec_of(rows: int = 2, of_rarer: int = 1, **changes: Any) -> ModelSpec:
    gate = GatePolicy(min_rows=rows, min_class_rows=of_rarer, **({"metric": "mae"} if "task" in changes else {}))
    return spec_with({"x": "numeric"}, evaluation_days=2, gate=gate, **changes)


def examples(labels: Sequence[float], reach: int = 1) -> pd.DataFrame:
    """One example a day, at noon, mature some days later."""
    predicted = START + DAY / 2 + pd.to_timedelta(range(len(labels)), unit="D")
    return pd.DataFrame({"event_timestamp": predicted, "matures": predicted + reach * DAY, "label": labels})


def days(spec: ModelSpec, labels: Sequence[float], growth: Growth | None = FREE) -> int:
    """As of the end of the day on which the last one matures."""
    assert spec.label.delay is not None
    reach = spec.label.delay.days
    return evaluation_window(spec, examples(labels, reach), START + (len(labels) + reach) * DAY, growth).days


def test_the_declared_days_hold_as_long_as_they_were_enough() -> None:
    labels = [1, 0] * 4 + [0, 0, 0, 0]
    assert days(spec_of(), labels, None) == 2
    assert days(spec_of(), [*labels, 1, 0]) == 2


def test_it_reaches_back_to_the_last_row_of_the_rarer_class_that_is_needed() -> None:
    #         0  1  2  3  4  5  6  7  8  9 10 11 12
    labels = [0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0]
    assert days(spec_of(), labels) == 5
    # The second one lies seven days back, and as many have to remain.
    assert days(spec_of(of_rarer=2), labels) == 6
    assert days(spec_of(of_rarer=2), [1, 0, *labels]) == 7


def test_it_reaches_back_to_as_many_rows_as_are_needed() -> None:
    assert days(spec_of(rows=6), [0, 1] * 10) == 6
    assert days(spec_of(rows=6, task="regression"), [float(n) for n in range(20)]) == 6


@pytest.mark.parametrize(("length", "most"), [(4, 2), (13, 6), (20, 10)])
def test_at_least_as_many_remain_to_learn_from(length: int, most: int) -> None:
    assert days(spec_of(rows=1000), [0, 1] * (length // 2) + [0] * (length % 2)) == most


@pytest.mark.parametrize(("length", "most"), [(13, 5), (20, 9)])
def test_what_is_under_the_embargo_is_nothing_to_learn_from(length: int, most: int) -> None:
    """Labels of three days: the two examples before those that are judged on are not mature at the first of these."""
    label = LabelSpec(source="outcomes", sql="SELECT 1", delay=timedelta(days=3))
    spec = spec_of(rows=1000, label=label)
    assert days(spec, [0, 1] * (length // 2) + [0] * (length % 2)) == most


@pytest.mark.parametrize(("learned", "most"), [(0, 10), (6, 7), (12, 4), (16, 2), (19, 2)])
def test_of_what_nobody_has_learned_half_is_left_to_the_challenger(learned: int, most: int) -> None:
    """Of 20 days the champion has learned the first ones; of the last one or four, the declared two are judged on."""
    assert days(spec_of(rows=1000), [0, 1] * 10, Growth(START + learned * DAY)) == most


def test_it_leaves_both_classes_to_learn_from() -> None:
    assert days(spec_of(of_rarer=4), [0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0]) == 4


def test_without_a_label_there_is_nothing_to_choose() -> None:
    assert evaluation_window(spec_of(), examples([]), START, FREE) == EvaluationWindow(2)


def test_what_is_too_little_at_its_longest_is_said() -> None:
    as_of, labels = START + 7 * DAY, [0, 1, 0, 0, 1, 0]
    found = evaluation_window(spec_of(rows=4), examples(labels), as_of, FREE)
    assert found.days == 3 and "3 test rows, at least 4 needed" in found.shortage
    assert not evaluation_window(spec_of(rows=4), examples(labels), as_of, None).shortage
    # Of the declared two days, one has been learned from.
    found = evaluation_window(spec_of(rows=2), examples(labels), as_of, Growth(START + 5 * DAY))
    assert found.days == 2 and "only one class present" in found.shortage
