"""Whether a training could end in a judged model is told from outcomes as the training set's own rows tell it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from labelled_world import LABELS, day, model, world

from ct_assets.core.ledger import Ledger
from ct_assets.core.segments import Line
from ct_assets.core.strategies import StrategySpec
from ct_assets.lake.releases import Releases
from ct_assets.lake.training_set import read_examples
from ct_assets.lib.decisions import decide_about
from ct_assets.lib.label_counts import untrainable
from ct_assets.lib.monitoring_reports import save_report
from ct_assets.lib.outcomes import save_outcomes
from ct_assets.lib.partitions import end_of
from ct_assets.lib.performance import performance_report

DAYS = 12


def expected(train: pd.DataFrame, holdout: pd.DataFrame) -> str:
    if holdout.empty:
        return "none has a label, to judge"
    if train.empty:
        return "to judge on"
    return "one class only; expected both classes" if train["label"].nunique() < 2 else ""


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("absent", [None, 0])
def test_it_is_what_the_training_set_of_the_moment_would_hold(kind: str, absent: int | None, tmp_path: Path) -> None:
    random, seen = np.random.default_rng(3), set()
    # Loans of one kind first, then a turn, and none at all for some days before the end.
    hours = np.sort(random.integers(1, 150, 45))
    loans = [(f"l{i}", int(h), int(h) + 60) for i, h in enumerate(hours)]
    messages = [(f"l{i}", int(h > 40), int(h) + int(random.integers(1, 58))) for i, h in enumerate(hours) if i % 7]
    orders = [(f"l{i}", int(h) + 5, int(h) + 5) for i, h in enumerate(hours) if h > 40]
    made = world(tmp_path, model(kind, absent), loans, messages, orders)
    made.arrive(DAYS)
    for number in range(DAYS):
        save_outcomes(made.lake, made.spec, day(number))
        as_of = end_of(day(number))
        found = untrainable(made.lake, made.spec, Line("m"), as_of)
        try:
            snapshot = made.snapshot(as_of)
        except ValueError:
            assert found
            continue
        train, holdout = (read_examples(made.lake, snapshot, part) for part in ("train", "holdout"))
        told = expected(train, holdout)
        assert (told in found) if told else not found
        seen.add(told)
    assert "" in seen and len(seen) > 2


@pytest.mark.parametrize(
    ("chosen", "known"),
    [
        ({}, ""),
        ({"kind": "window", "window": "15 hours"}, "the 15 examples to learn from have one class only"),
        ({"kind": "window", "window": "30 hours"}, ""),
        ({"sampling": "recent", "rows": 20}, "the 20 examples to learn from have one class only"),
        ({"sampling": "recent", "rows": 60}, ""),
        ({"sampling": "stratified", "rows": 20}, ""),
    ],
)
def test_a_window_of_one_class_is_told_before_it_is_trained_on(chosen: dict, known: str, tmp_path: Path) -> None:
    loans = [(f"l{i}", i, i + 60) for i in range(200)]
    spec = model("delay", strategy=StrategySpec(**chosen))
    # A loan an hour, of which the first 72 are to learn from: they are mature when the first to judge on begins, at 132
    # hours. Those from 52 on turn out well.
    made = world(tmp_path, spec, loans, [(name, int(at < 52), at + 50) for name, at, _ in loans])
    made.arrive(DAYS)
    for number in range(DAYS):
        save_outcomes(made.lake, made.spec, day(number))
    told = untrainable(made.lake, made.spec, Line("m"), end_of(day(9)))
    assert told.startswith(known) if known else told == ""


def test_a_first_training_waits_for_the_second_class_and_says_so(tmp_path: Path) -> None:
    loans = [(f"l{i}", i, i + 60) for i in range(250)]
    made = world(tmp_path, model("delay"), loans, [(name, int(at > 50), at + 50) for name, at, _ in loans])
    made.arrive(DAYS)
    releases = Releases(tmp_path, Line("m"), Ledger(tmp_path / "decisions.jsonl"))
    decided = {}
    for number in range(DAYS):
        save_outcomes(made.lake, made.spec, day(number))
        save_report(
            made.lake,
            made.spec,
            "performance",
            end_of(day(number)),
            performance_report(made.lake, releases, made.spec, end_of(day(number))),
        )
        _, decision = decide_about(made.lake, releases, made.spec, end_of(day(number)))
        decided[number] = (decision.blocked_by, decision.reasons.get("untrainable", ""))
    blocked = [number for number, (by, _) in decided.items() if by == "untrainable"]
    assert blocked and decided[blocked[-1]][1].endswith("have one class only; expected both classes")
    # The first loan that goes bad is mature after 111 hours. From the tenth day on, all to judge on begin later.
    assert max(blocked) == 8
    assert decide_about(made.lake, releases, made.spec, end_of(day(max(blocked) + 1)))[1].retrain
