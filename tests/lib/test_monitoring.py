"""Which decision counts, and which labels were known."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from worlds_of_core import INPUTS, spec_with

from ct_assets.core.ledger import RETRAIN, SKIP, TRAINING, VERDICT, Ledger, Record
from ct_assets.core.policy import decide as decide_by
from ct_assets.core.segments import Line
from ct_assets.lake.lake import Lake
from ct_assets.lake.releases import Releases
from ct_assets.lib.decisions import decide_about, gather_evidence, reconsider, record_decision, retrain_due
from ct_assets.lib.label_counts import labels_known
from ct_assets.lib.monitoring_reports import save_report
from ct_assets.lib.partitions import end_of
from ct_assets.lib.performance import performance_report
from ct_assets.lib.training import _chosen
from ct_assets.words import explain

SPEC = spec_with(INPUTS)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "decisions.jsonl")


def at(day: int) -> pd.Timestamp:
    return pd.Timestamp(2013, 1, day, tz="UTC")


def due_by(ledger: Ledger) -> Record | None:
    return retrain_due(Releases(ledger.path.parent, Line("m"), ledger))


def decide(ledger: Ledger, day: int, kind: str) -> None:
    reasons = {"schedule": f"reason of day {day}"}
    decision = {"retrain": kind == RETRAIN, "triggers": ["schedule"], "reasons": reasons}
    ledger.append(kind, "m", at(day), {"decision": decision})


def judge(ledger: Ledger, day: int) -> None:
    ledger.append(VERDICT, "m", at(day), {"version": str(day), "passed": False, "reasons": [], "metrics": {}})


def test_a_due_retrain_stays_due_until_a_model_is_judged(ledger: Ledger) -> None:
    assert due_by(ledger) is None
    decide(ledger, 5, RETRAIN)
    due = due_by(ledger)
    assert due is not None
    assert pd.Timestamp(due.as_of) == at(5)
    ledger.append(TRAINING, "m", at(5), {"version": "1"})
    assert due_by(ledger) == due
    judge(ledger, 5)
    assert due_by(ledger) is None


def test_a_model_judged_for_an_earlier_moment_is_no_answer(ledger: Ledger) -> None:
    decide(ledger, 5, RETRAIN)
    judge(ledger, 4)
    assert due_by(ledger) is not None


@pytest.mark.parametrize(("newer", "older", "due"), [(RETRAIN, SKIP, True), (SKIP, RETRAIN, False)])
def test_an_older_day_that_is_decided_late_changes_nothing(ledger: Ledger, newer: str, older: str, due: bool) -> None:
    decide(ledger, 5, newer)
    decide(ledger, 4, older)
    assert (due_by(ledger) is not None) is due


@pytest.fixture
def first_labels(tmp_path: Path, ledger: Ledger) -> Lake:
    """Ten labels make a first training; six of day 3 were joined when it was decided about, and day 2 was late."""
    lake = Lake(tmp_path)
    lake.dataset("m/performance").write("2013-01-03", outcomes(3, 6))
    skipped(lake, ledger, 3)
    return lake


def outcomes(day: int, rows: int) -> pa.Table:
    """Labels of both classes that became known on one day, of events old enough to learn from and young ones."""
    frame = pd.DataFrame({"id": [f"{day}-{n}" for n in range(rows)], "label": [n % 2 for n in range(rows)]})
    frame["event_timestamp"] = [at(day) - n * pd.Timedelta(days=2) for n in range(rows)]
    frame["known_at"] = at(day) + pd.Timedelta(hours=12)
    return pa.Table.from_pandas(frame, preserve_index=False)


def skipped(lake: Lake, ledger: Ledger, day: int) -> None:
    partition, releases = f"2013-01-{day:02d}", Releases(lake.home, Line("m"), ledger)
    as_of = end_of(partition)
    save_report(lake, SPEC, "performance", as_of, performance_report(lake, releases, SPEC, as_of))
    evidence = gather_evidence(lake, releases, SPEC, as_of)
    assert record_decision(releases, evidence, decide_by(SPEC.policy, evidence)).kind == SKIP


def test_labels_that_a_late_day_brings_turn_the_newest_decision(first_labels: Lake, ledger: Ledger) -> None:
    first_labels.dataset("m/performance").write("2013-01-02", outcomes(2, 4))
    skipped(first_labels, ledger, 2)
    releases = Releases(first_labels.home, Line("m"), ledger)
    record = reconsider(first_labels, releases, SPEC, at(3))
    assert record is not None
    assert (record.kind, pd.Timestamp(record.as_of)) == (RETRAIN, at(4))
    assert record.evidence["evidence"]["known_labels"] == 10
    assert due_by(ledger) == record
    assert reconsider(first_labels, releases, SPEC, at(3)) is None


def test_late_labels_of_the_newest_day_turn_its_own_decision(first_labels: Lake, ledger: Ledger) -> None:
    releases = Releases(first_labels.home, Line("m"), ledger)
    first_labels.dataset("m/performance").write("2013-01-03", outcomes(3, 12))
    save_report(first_labels, SPEC, "performance", at(4), performance_report(first_labels, releases, SPEC, at(4)))
    records = [record_decision(releases, *decide_about(first_labels, releases, SPEC, at(4))) for _ in range(2)]
    assert records[0] == records[1] == due_by(ledger)
    assert (records[0].kind, records[0].evidence["evidence"]["known_labels"]) == (RETRAIN, 12)
    assert [record.kind for record in ledger.records()] == [SKIP, RETRAIN]


def test_a_late_day_that_tips_nothing_writes_nothing(first_labels: Lake, ledger: Ledger) -> None:
    first_labels.dataset("m/performance").write("2013-01-02", outcomes(2, 3))
    releases = Releases(first_labels.home, Line("m"), ledger)
    assert reconsider(first_labels, releases, SPEC, at(3)) is None
    assert reconsider(first_labels, releases, SPEC, at(4)) is None
    assert len(ledger.records()) == 1


def test_why_tells_the_newest_decision_in_event_time(ledger: Ledger) -> None:
    decide(ledger, 5, RETRAIN)
    decide(ledger, 4, SKIP)
    told = {"train_rows": 9, "training_set": "d", "code_version": "c", "version": "1"}
    ledger.append(TRAINING, "m", at(5), told | {"by_hand": False})
    story = explain(ledger, "m", "1")
    assert "because of schedule: reason of day 5" in story
    assert "Newest decision, 2013-01-05: retrain." in story


def test_a_training_by_hand_is_told_as_such_although_a_retrain_was_due_then(ledger: Ledger) -> None:
    decide(ledger, 5, RETRAIN)
    told = {"train_rows": 9, "training_set": "d", "code_version": "c", "version": "1"}
    ledger.append(TRAINING, "m", at(5), told | {"by_hand": True})
    assert "It was trained by hand." in explain(ledger, "m", "1")


def test_a_moment_that_was_not_decided_about_is_refused() -> None:
    assert _chosen("", at(5)) == at(5)
    assert _chosen("2013-01-04T00:00:00Z", at(5)) == at(4)
    with pytest.raises(ValueError, match="is later than 2013-01-05T00:00:00"):
        _chosen("2013-01-06T00:00:00Z", at(5))
    with pytest.raises(ValueError, match="has no time zone"):
        _chosen("2013-01-04", at(5))


def test_a_day_that_was_scored_late_counts_no_label_before_it_was_known(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for day, known in (("2013-01-01", [1, 1]), ("2013-01-02", [2, 4, 5]), ("2013-01-05", [5])):
        moments = pa.array([at(d) + pd.Timedelta(hours=12) for d in known], pa.timestamp("us", tz="UTC"))
        lake.dataset("m/performance").write(day, pa.table({"id": list(map(str, known)), "known_at": moments}))
    assert [labels_known(lake, SPEC, at(day)) for day in range(1, 7)] == [0, 2, 3, 3, 4, 6]
