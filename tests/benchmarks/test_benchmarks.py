"""Each benchmark at a tiny size: it runs, its answers agree with the peer's, and it ends in one readable line.

Nothing here asserts a time: how long something takes on a busy machine says nothing about the code.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]

IMPORT_LOG = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 |       numpy.core
import time:       300 |        400 |     numpy
import time:      1000 |       1400 |   pandas
import time:        50 |       1450 | ct_assets.definitions
import time:         5 |          5 | site
import time:        30 |         30 |     duckdb
import time:        20 |         50 |   ct_assets.lake.lake
import time:        10 |         60 | ct_assets.lib.sources
"""


def run(name: str, *arguments: str) -> dict[str, Any]:
    """What the last line of `python -m benchmarks.NAME` says."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    lines = ran.stdout.strip().splitlines()
    assert lines, ran.stderr
    claim = json.loads(lines[-1])
    assert list(claim) == ["name", "figures", "goal", "ok"]
    assert claim["name"] == name
    assert ran.returncode == (0 if claim["ok"] else 1)
    return claim


@pytest.fixture
def load_time(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(CHECKOUT)
    from benchmarks import load_time

    return load_time


def test_a_run_and_a_tick_request_the_same_on_both_storages() -> None:
    figures = run("dagster_storage", "--days", "1")["figures"]
    assert figures["same_requests"] is True
    assert {"run_ratio", "tick_ratio", "ratio"} <= set(figures)


def test_the_asof_join_gives_what_feasts_own_store_gives() -> None:
    figures = run("asof_join", "--rows", "300", "--history", "6000", "--repetitions", "1")["figures"]
    assert figures["equal"] is True
    assert figures["entity_rows"] == 300
    assert 0 < figures["share_found"] < 1


def test_the_bare_script_scores_what_the_platform_scores() -> None:
    figures = run("loop", "--days", "1", "--repetitions", "1")["figures"]
    assert figures["same_predictions"] is True
    assert {"ratio", "cpu_ratio", "trainings"} <= set(figures)


def test_matured_cohorts_tell_the_rate_of_bad_loans_and_arrived_labels_do_not() -> None:
    claim = run("label_maturity", "--a-day", "60")
    assert claim["ok"] is True
    assert claim["figures"]["naive"] > 1.6 * claim["figures"]["truth"]


def test_balanced_trainings_are_compared_with_class_weights_that_nobody_corrects() -> None:
    figures = run("imbalance", "--rows", "20000", "--repetitions", "1")["figures"]
    assert figures["class_weight_alone_ratio"] > 10 * figures["weights_ratio"]
    assert {"none_auc", "weights_auc", "undersample_auc", "undersample_ratio_top"} <= set(figures)


def test_an_idle_tick_asks_for_nothing_however_many_segments_there_are() -> None:
    figures = run("segments", "--segments", "5", "--repetitions", "1")["figures"]
    assert figures["segments"] == 5
    assert {"load_seconds", "idle_tick_seconds", "first_tick_seconds"} <= set(figures)


def test_a_day_is_worked_off_at_every_stage_after_histories_of_several_lengths() -> None:
    figures = run("arrival", "--lengths", "30", "33", "--days", "1")["figures"]
    assert figures["days"] == 33
    assert {"cpu_seconds", "cpu_ratio", "read_ratio", "memory_ratio", "grown_stages"} <= set(figures)


def test_the_load_time_is_of_the_real_definitions() -> None:
    figures = run("load_time", "--repetitions", "1")["figures"]
    assert figures["load_seconds"] > figures["bare_interpreter_seconds"]
    assert figures["modules"] > 100


def test_the_import_log_is_read_as_a_tree(load_time: Any) -> None:
    imports = {each.name: each for each in load_time.parse(IMPORT_LOG)}
    parents = {name: each.parent.name if each.parent else None for name, each in imports.items()}
    assert parents == {
        "ct_assets.definitions": None,
        "pandas": "ct_assets.definitions",
        "numpy": "pandas",
        "numpy.core": "numpy",
        "site": None,
        "ct_assets.lib.sources": None,
        "ct_assets.lake.lake": "ct_assets.lib.sources",
        "duckdb": "ct_assets.lake.lake",
    }


def test_an_import_line_costs_what_it_brought_in(load_time: Any) -> None:
    imports = load_time.parse(IMPORT_LOG)
    assert load_time.by_line(imports) == [
        ("ct_assets.definitions", "pandas", 0.0014),
        ("ct_assets.lake.lake", "duckdb", 0.00003),
    ]
    assert load_time.by_package(imports)[:2] == [("pandas", 1, 0.001), ("numpy", 2, pytest.approx(0.0004))]


def test_output_without_a_claim_says_what_was_expected(load_time: Any) -> None:
    from benchmarks._claim import last_line

    with pytest.raises(ValueError, match="expected one JSON object with name, figures, goal, ok"):
        last_line("Traceback\nKeyError: 'x'")


def test_worlds_that_do_not_change_are_retrained_on_schedule_only_and_changes_are_found() -> None:
    figures = run("false_alarms", "--days", "31", "--models", "2")["figures"]
    assert (figures["retrains by drift"], figures["retrains by performance"]) == (0, 0)
    assert figures["retrains by schedule"] == 5
    assert figures["drift found in time"] == 1.0


def test_features_served_live_equal_those_judged() -> None:
    claim = run("live_parity", "--days", "2", "--minutes", "240", "--predictions", "60")
    assert (claim["figures"]["predictions"], claim["figures"]["equal"]) == (60, 60)
    assert claim["figures"]["missing_online"] == claim["figures"]["missing_offline"] < 0.2
    assert claim["ok"]
