"""Labels: only those of mature events, as they were known, each event once.

The oracle of `labelled_world` works every loan out by itself, in pandas.
"""

import tempfile
from pathlib import Path
from shutil import rmtree

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from labelled_world import DAY, HOUR, LABELS, REACH, START, World, day, drift_of_day, model, world

from ct_assets.core.gate import Bindings, GatePolicy, TestData, validate_new_model
from ct_assets.core.ledger import PROMOTION, VERDICT, Ledger
from ct_assets.core.policy import decide
from ct_assets.core.profile import bin_edges, profile
from ct_assets.core.segments import Line
from ct_assets.lake.examples import maturity, read_labels
from ct_assets.lake.lake import Lake
from ct_assets.lake.releases import Release, Releases
from ct_assets.lake.training_set import read_examples
from ct_assets.lib.decisions import decide_about, gather_evidence
from ct_assets.lib.label_counts import labels_known, untrainable
from ct_assets.lib.model_assets import model_key
from ct_assets.lib.monitoring import _performance
from ct_assets.lib.monitoring_reports import read_report
from ct_assets.lib.outcomes import read_outcomes, save_outcomes
from ct_assets.lib.performance import performance_report
from ct_assets.resources.lake import LakeResource

DAYS = 7
KINDS = [(kind, absent) for kind in LABELS for absent in (None, 0)]


def end_of(number: int) -> pd.Timestamp:
    return START + (number + 1) * DAY


def outcomes(world: World, as_of: pd.Timestamp, days: float = 4) -> dict[str, int]:
    rows = read_outcomes(world.lake, world.spec, as_of, as_of - days * DAY)
    rows = rows[maturity(world.spec, rows) < as_of]
    assert rows["id"].is_unique
    return dict(zip(rows["id"], rows["label"], strict=True))


# -- Nothing immature, nothing from the future

hours = st.integers(0, 24 * DAYS * 4).map(lambda quarter: quarter / 4)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list, list, list]:
    """Loans, messages about them (some corrected, some never sent), and orders (some late); quarters of an hour."""
    starts = draw(st.lists(hours, min_size=12, max_size=30))
    later = st.integers(0, 4 * 24 * 4).map(lambda quarter: quarter / 4)
    loans = [(f"l{i:02}", start, start + draw(later)) for i, start in enumerate(starts)]
    messages, orders = [], []
    for name, start, _ in loans:
        moments = draw(st.lists(later, max_size=3, unique=True))
        messages += [(name, draw(st.integers(0, 1)), start + after) for after in moments]
        for after, late in draw(st.lists(st.tuples(later, st.sampled_from([0.0, 0.5, 30.0])), max_size=2)):
            orders.append((name, start + after, start + after + late))
    return loans, messages, orders


@pytest.mark.parametrize(("kind", "absent"), KINDS)
@settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    # A day takes a while to write, and shrinking a history would take minutes.
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
@given(history=histories(), missed=st.integers(2, DAYS - 2))
def test_only_known_labels_of_mature_events_are_used(
    kind: str, absent: int | None, history: tuple[list, list, list], missed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = world(Path(folder), model(kind, absent), *history)
        made.arrive(DAYS)
        for number in range(DAYS):
            if number != missed:
                save_outcomes(made.lake, made.spec, day(number))
            if number == missed + 1:
                save_outcomes(made.lake, made.spec, day(missed))
            as_of = end_of(number)
            truth = made.truth(as_of)
            labelled = truth.dropna(subset="label")
            if number != missed:
                recent = labelled[labelled["matured"] >= as_of - 4 * DAY]
                assert outcomes(made, as_of) == recent["label"].to_dict()
            if number < DAYS - 3:
                continue
            if labelled.empty:
                with pytest.raises(ValueError, match="no example of m has matured"):
                    made.snapshot(as_of)
                continue
            snapshot = made.snapshot(as_of)
            parts = made.divided(as_of)
            assert made.rows(snapshot) == parts
            assert snapshot.embargoed == len(labelled) - sum(map(len, parts.values()))
            assert snapshot.unlabelled == len(truth) - len(labelled)
            assert snapshot.absent == (made.without_label(as_of) if absent is not None else 0)


# -- A horizon

#: Hours. Loans a to d are of one moment; a buys at once, b on the horizon's last hour, c too late, d never.
COHORT = {
    "loans": [(name, 12, 0) for name in "abcd"],
    "orders": [("a", 13, 13), ("b", 71.5, 71.5), ("c", 72, 72), ("c", 11, 13)],
}


def test_all_labels_of_a_cohort_become_known_at_the_same_moment(tmp_path: Path) -> None:
    made = world(tmp_path, model("horizon"), COHORT["loans"], (), COHORT["orders"])
    made.arrive(5)
    for number in range(5):
        save_outcomes(made.lake, made.spec, day(number))
    ends = START + 12 * HOUR + REACH
    assert read_labels(made.lake, made.spec, ends, START).empty
    labels = read_labels(made.lake, made.spec, ends + DAY, START)
    assert dict(zip(labels["id"], labels["label"], strict=True)) == {"a": 1, "b": 1, "c": 0, "d": 0}
    assert set(labels["known_at"]) == {ends}
    assert [labels_known(made.lake, made.spec, end_of(n)) for n in range(5)] == [0, 0, 0, 4, 4]
    assert set(read_outcomes(made.lake, made.spec, ends + DAY, START)["known_at"]) == {ends}


def test_what_became_known_after_as_of_is_invisible_and_then_corrects(tmp_path: Path) -> None:
    # d ordered in time, and the shop's message of it takes until the fifth day.
    orders = [*COHORT["orders"], ("d", 20, 110)]
    made = world(tmp_path, model("horizon"), COHORT["loans"], (), orders)
    made.arrive(6)
    for number in range(6):
        save_outcomes(made.lake, made.spec, day(number))
    assert outcomes(made, end_of(3))["d"] == 0
    assert made.rows(made.snapshot(end_of(3)))["holdout"]["d"] == 0
    for number in (4, 5):
        assert outcomes(made, end_of(number)) == {"a": 1, "b": 1, "c": 0, "d": 1}
        assert labels_known(made.lake, made.spec, end_of(number)) == 4
    assert made.rows(made.snapshot(end_of(4)))["holdout"]["d"] == 1
    stored = made.lake.dataset("m/performance")
    assert [(f.partition, f.rows, f.name) for f in stored.files() if f.rows] == [
        (day(3), 4, ""),
        (day(4), 1, "corrections"),
    ]
    for number in (3, 4, 5, 3):
        before = stored.manifest_path.read_bytes()
        save_outcomes(made.lake, made.spec, day(number))
        assert stored.manifest_path.read_bytes() == before


def test_a_horizon_that_yields_an_event_twice_is_refused(tmp_path: Path) -> None:
    twice = "SELECT e.id, 1 AS label FROM events e JOIN orders o USING (id)"
    spec = model("horizon")
    spec = spec.model_copy(update={"label": spec.label.model_copy(update={"sql": twice})})
    made = world(tmp_path, spec, COHORT["loans"], (), COHORT["orders"])
    made.arrive(5)
    with pytest.raises(ValueError, match="yields id 'c' more than once; expected one row for each event"):
        made.snapshot(end_of(4))


# -- Corrections, labels that never come, labels that come early


def test_a_corrected_label_counts_once_and_as_it_was_known(tmp_path: Path) -> None:
    messages = [("a", 0, 30), ("b", 0, 31), ("a", 1, 100), ("a", 1, 101), ("a", 0, 130)]
    made = world(tmp_path, model("delay"), [("a", 1, 0), ("b", 2, 0), ("never", 3, 0)], messages)
    made.arrive(7)
    for number in range(7):
        save_outcomes(made.lake, made.spec, day(number))
    assert [outcomes(made, end_of(n), days=9).get("a") for n in range(2, 7)] == [0, 0, 1, 0, 0]
    assert [labels_known(made.lake, made.spec, end_of(n)) for n in range(7)] == [0, 2, 2, 2, 2, 2, 2]
    # Matured in the three days that end with the fourth: the newest labels, one of each event.
    window = read_outcomes(made.lake, made.spec, end_of(4), end_of(4) - made.spec.drift_window_days * DAY)
    assert sorted(window["label"]) == [0.0, 1.0]
    rows = read_outcomes(made.lake, made.spec, end_of(5), START)
    assert dict(zip(rows["id"], rows["versions"], strict=True)) == {"a": 3, "b": 1}
    snapshot = made.snapshot(end_of(4))
    assert (snapshot.unlabelled, made.rows(snapshot)["train"]) == (1, {"a": 1, "b": 0})


def test_a_slice_may_be_called_as_sql_calls_something(tmp_path: Path) -> None:
    spec = model("delay").model_copy(update={"slices": ("group",)})
    made = world(tmp_path, spec, [("a", 1, 0), ("b", 2, 0)], [("a", 0, 3), ("b", 1, 4)])
    made.arrive(1)
    rows = pa.Table.from_pandas(made.scored().assign(group=["x", "y"]), preserve_index=False)
    made.lake.dataset("m/scored", "event_timestamp").write(day(0), rows)
    assert save_outcomes(made.lake, spec, day(0)).first["group"].to_pylist() == ["x", "y"]


@pytest.mark.parametrize("kind", LABELS)
def test_an_id_may_be_called_as_sql_calls_something(kind: str, tmp_path: Path) -> None:
    loans = [(f"l{i}", 5 * i, 5 * i + 60) for i in range(12)]
    messages = [(name, i % 2, start + 20) for i, (name, start, _) in enumerate(loans) if i % 5]
    orders = [(name, start + 3, start + 3) for i, (name, start, _) in enumerate(loans) if i % 2]
    found = {}
    for name in ("id", "order", "Loan Id"):
        plain = model(kind)
        called = f'"{name}"'
        events = {"id_column": name, "sql": f"SELECT id AS {called}, starts_at AS event_timestamp, due_at FROM loans"}
        label = {"sql": plain.label.sql.replace("e.id", f"e.{called}").replace("SELECT id,", f"SELECT id AS {called},")}
        spec = plain.model_copy(
            update={"events": plain.events.model_copy(update=events), "label": plain.label.model_copy(update=label)}
        )
        made = world(tmp_path / name, spec, loans, messages, orders)
        made.arrive(7)
        for number in range(7):
            rows = made.scored().rename(columns={"id": name})
            rows = rows[rows["known_at"].dt.strftime("%Y-%m-%d") == day(number)]
            table = pa.Table.from_pandas(rows, preserve_index=False)
            made.lake.dataset("m/scored", "event_timestamp").write(day(number), table)
            save_outcomes(made.lake, spec, day(number))
        known = read_outcomes(made.lake, spec, end_of(6), START).rename(columns={name: "id"})
        examples = read_examples(made.lake, made.snapshot(end_of(6)), "train").rename(columns={name: "id"})
        untold = untrainable(made.lake, spec, Line("m"), end_of(6))
        found[name] = (known.to_dict("list"), examples.to_dict("list"), untold)
    assert found["id"][0]["id"] and found["id"][1]["id"]
    assert found["order"] == found["Loan Id"] == found["id"]


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_labels_of_one_moment_the_same_counts_everywhere_in_whatever_order_they_came(
    first: int, tmp_path: Path
) -> None:
    messages = [("a", first, 30), ("a", 1 - first, 30), ("b", first, 31), ("a", 1, 50)]
    made = world(tmp_path, model("delay"), [("a", 1, 0), ("b", 2, 0)], messages)
    made.arrive(5)
    for number in range(5):
        save_outcomes(made.lake, made.spec, day(number))
    assert outcomes(made, end_of(4)) == {"a": 1, "b": first}
    assert made.rows(made.snapshot(end_of(4)))["train"] == {"a": 1, "b": first}
    rows = read_outcomes(made.lake, made.spec, end_of(4), START)
    assert dict(zip(rows["id"], rows["versions"], strict=True)) == {"a": 1, "b": 1}


def test_a_label_that_was_known_before_its_prediction_counts_once(tmp_path: Path) -> None:
    made = world(tmp_path, model("delay"), [("a", 30, 0)], [("a", 1, 20)])
    made.arrive(6)
    for number in range(6):
        save_outcomes(made.lake, made.spec, day(number))
    assert [labels_known(made.lake, made.spec, end_of(n)) for n in range(6)] == [0, 1, 1, 1, 1, 1]
    assert outcomes(made, end_of(5)) == {"a": 1}


def test_the_want_of_a_label_is_one_once_its_time_is_over(tmp_path: Path) -> None:
    messages = [("a", 1, 30), ("late", 1, 100)]
    made = world(tmp_path, model("delay", absent=0), [("a", 1, 0), ("late", 2, 0), ("never", 3, 0)], messages)
    made.arrive(6)
    for number in range(6):
        save_outcomes(made.lake, made.spec, day(number))
    assert outcomes(made, end_of(1)) == {}
    assert outcomes(made, end_of(2)) == {"a": 1, "late": 0, "never": 0}
    assert outcomes(made, end_of(4)) == {"a": 1, "late": 1, "never": 0}
    # The label of `a` came early, and says nothing before those of the others may.
    assert [labels_known(made.lake, made.spec, end_of(n)) for n in range(6)] == [0, 0, 3, 3, 3, 3]
    snapshots = [made.snapshot(end_of(number)) for number in (3, 4)]
    assert [(snapshot.unlabelled, snapshot.absent) for snapshot in snapshots] == [(0, 2), (0, 1)]


def test_the_newest_of_events_that_mature_by_themselves_are_those_that_matured_last(tmp_path: Path) -> None:
    loans = [("long", 1, 90), ("short", 60, 70), ("never mature", 2, float("nan")), ("running", 3, 200)]
    messages = [(name, 1, 65) for name, *_ in loans]
    made = world(tmp_path, model("matures_at"), loans, messages)
    made.arrive(5)
    for number in range(5):
        save_outcomes(made.lake, made.spec, day(number))
    spec = made.spec.model_copy(update={"evaluation_days": 1})
    made.spec = spec
    # The short one was over when the long one had begun long ago: what is known of it says something of that time.
    snapshot = made.snapshot(START + 100 * HOUR)
    assert (made.rows(snapshot), snapshot.embargoed) == ({"train": {}, "holdout": {"long": 1}}, 1)
    assert outcomes(made, end_of(4)) == {"short": 1, "long": 1}


# -- What is not mature decides nothing


class Constant:
    """A model that says one half."""

    def predict_proba(self, features: pd.DataFrame, /) -> object:
        return pd.Series(0.5, index=features.index).to_numpy()


def champion(home: Path, ledger: Ledger) -> Releases:
    """Releases with one champion, judged on rows that any model passes on."""
    data = TestData(pd.DataFrame({"x": [0.0, 1.0] * 10}), pd.Series([0, 1] * 10), None)
    verdict = validate_new_model(
        Constant(),
        None,
        data,
        GatePolicy(min_rows=1),
        bindings=Bindings(
            model={"name": "m", "version": "1"},
            artifact_digest="a",
            champion_digest=None,
            feature_versions={},
            training_set_digest="t",
            as_of=START.isoformat(),
        ),
        artifact_mb=0.1,
    )
    releases = Releases(home, Line("m"), ledger)
    releases.save_verdict(verdict)
    releases.save(Release("m", "1", str(home / "model"), "a", "m_v1", {}, "t", verdict.digest, START.isoformat()))
    ledger.append(VERDICT, "m", START, {"version": "1", "verdict": verdict.digest, "passed": True})
    ledger.append(PROMOTION, "m", START, {"version": "1"})
    return releases


@pytest.mark.parametrize(("came", "late", "fine"), [(20, 0, True), (70, 50, False)])
def test_events_without_a_label_in_time_are_a_figure_and_a_check_of_each_day(
    tmp_path: Path, came: int, late: int, fine: bool
) -> None:
    # 200 loans of one afternoon, mature 60 hours later; of 30 nothing is ever heard, of 50 perhaps too late.
    loans = [(f"loan{i}", 1 + i / 100, 0) for i in range(200)]
    messages = [(f"loan{i}", i % 2, 20 if i < 120 else came) for i in range(170)]
    made, resource = world(tmp_path, model("delay"), loans, messages), LakeResource(home=str(tmp_path))
    made.arrive(5)
    releases = champion(tmp_path, resource.ledger())
    for number in range(5):
        outcomes = save_outcomes(made.lake, made.spec, day(number))
    report = performance_report(made.lake, releases, made.spec, end_of(4))
    figures = {"mature": 200, "unlabelled": 30, "unlabelled_share": 0.15, "late": late, "late_share": late / 200}
    assert figures.items() <= report.items()
    told = {releases.line: report}
    result = _performance(resource, made.spec, model_key(made.spec, "performance"), end_of(4), told, outcomes)
    (check,) = (each for each in result.check_results if each.check_name == "labels_in_time")
    assert (check.passed, check.severity.value) == (fine, "WARN")
    assert {name: each.value for name, each in check.metadata.items()} == figures | {"limit": 0.2}
    evidence, decision = decide_about(made.lake, releases, made.spec, end_of(4))
    assert ("labels" in decision.reasons) is not fine
    if not fine:
        assert "30 (15.0%) have no label and those of 50 (25.0%) came after maturity" in decision.reasons["labels"]
        assert evidence.label_gaps == check.description


def test_a_day_before_the_first_label_ever_has_no_outcome_and_fails_nothing(tmp_path: Path) -> None:
    made = world(tmp_path, model("delay"), [("a", 1, 0), ("b", 2, 0)])
    made.arrive(1)
    rmtree(tmp_path / "lake" / "messages")
    outcomes = save_outcomes(Lake(tmp_path), made.spec, day(0))
    assert (outcomes.first.num_rows, outcomes.corrections.num_rows) == (0, 0)


def test_provisional_figures_are_told_and_decide_nothing(tmp_path: Path) -> None:
    # Matured: one bad of three; young: six loans whose labels came at once, and one without any.
    loans = [(f"old{i}", 1 + i, 0) for i in range(4)] + [(f"young{i}", 90 + i, 0) for i in range(7)]
    matured = [("old0", 0, 20), ("old1", 0, 25), ("old2", 1, 40), ("old2", 0, 41), ("old2", 1, 80)]
    young = [(f"young{i}", 1 - i % 2, 98) for i in range(6)]
    spec = model("delay")
    limits = {"performance_drop": 0.1, "performance_min_rows": 1}
    spec = spec.model_copy(update={"policy": spec.policy.model_copy(update=limits)})
    reports, evidence, checks = {}, {}, {}
    for name, messages in (("with", [*matured, *young]), ("without", matured)):
        home = tmp_path / name
        made, resource = world(home, spec, loans, messages), LakeResource(home=str(home))
        made.arrive(5)
        releases = champion(home, resource.ledger())
        for number in range(5):
            outcomes = save_outcomes(made.lake, spec, day(number))
            told = {releases.line: performance_report(made.lake, releases, spec, end_of(number))}
            result = _performance(resource, spec, model_key(spec, "performance"), end_of(number), told, outcomes)
        reports[name] = read_report(made.lake, spec, "performance", end_of(4), Line("m"))
        evidence[name] = gather_evidence(made.lake, releases, spec, end_of(4))
        checks[name], *_ = result.check_results
        assert result.metadata["provisional (decides nothing)"] == reports[name]["provisional"]
    told, silent = reports["with"], reports["without"]
    assert (told["rows"], told["label_rate"], told["unlabelled"], told["corrected"]) == (3, 1 / 3, 1, 1)
    # Predictions grow with the loan's number: the bad loan of the matured ones is ranked first, above the reference...
    assert (told["now"], told["reference"]) == (1.0, 0.5)
    # ... which is that of the verdict: the release has no evaluated rows beside it, so nothing says what chance shows.
    assert told["margin"] is None
    # ... and of the young ones the first, third and fifth are bad: three of nine pairs are in order, far below it.
    assert told["provisional"] == {"now": pytest.approx(3 / 9), "rows": 6, "label_rate": 0.5}
    assert silent["provisional"] == {"now": None, "rows": 0, "label_rate": None}
    apart = ("provisional", "labels_known")
    assert {k: v for k, v in told.items() if k not in apart} == {k: v for k, v in silent.items() if k not in apart}
    assert checks["with"].passed
    assert "provisional" not in checks["with"].metadata
    # The number of labels that arrived is the one thing that young events add to, where labels have a fixed delay.
    assert evidence["with"].known_labels - evidence["without"].known_labels == 6
    assert evidence["with"].model_copy(update={"known_labels": 3}) == evidence["without"]
    assert "performance" not in decide(spec.policy, evidence["with"]).triggers


def test_what_another_champion_served_is_told_and_is_not_the_new_one_s(tmp_path: Path) -> None:
    loans = [(f"l{i}", 1 + i, 0) for i in range(5)]
    made = world(tmp_path, model("delay"), loans, [(f"l{i}", int(i in (1, 4)), 20 + i) for i in range(5)])
    made.arrive(5)
    ledger = Ledger(tmp_path / "decisions.jsonl")
    releases = champion(tmp_path, ledger)
    for number in range(5):
        save_outcomes(made.lake, made.spec, day(number))
    first = performance_report(made.lake, releases, made.spec, end_of(4))
    # All loans were scored by version 1; of the six pairs of a bad and a good one, four are in order.
    assert first["served"] == {"now": pytest.approx(4 / 6), "rows": 5, "label_rate": 0.4}
    assert {name: first[name] for name in first["served"]} == first["served"]
    releases.save(Release("m", "2", "", "b", "m_v1", {}, "t", releases.get("1").verdict, (START + DAY).isoformat()))
    ledger.append(PROMOTION, "m", START + DAY, {"version": "2"})
    second = performance_report(made.lake, releases, made.spec, end_of(4))
    assert (second["champion"], second["rows"], second["now"], second["served"]) == ("2", 0, None, first["served"])


@pytest.mark.parametrize("first", [1, 60], ids=["one immature loan", "no loan"])
def test_before_anything_matures_there_is_nothing_to_tell_and_nothing_breaks(tmp_path: Path, first: int) -> None:
    inputs = pd.DataFrame({"x": range(20), "prediction": 0.5, "label": [0.0, 1.0] * 10})
    for kind, absent in KINDS:
        home = tmp_path / f"{kind}{absent}"
        made, ledger = world(home, model(kind, absent), [("a", first, 200)]), Ledger(home / "decisions.jsonl")
        made.arrive(1)
        releases = champion(home, ledger)
        (home / "reference.json").write_text(profile(inputs, bin_edges(inputs)).to_json())
        outcome = save_outcomes(made.lake, made.spec, day(0))
        assert (outcome.first.num_rows, outcome.corrections.num_rows) == (0, 0)
        report = performance_report(made.lake, releases, made.spec, end_of(0))
        assert (report["rows"], report["now"], report["labels_known"], report["unlabelled"]) == (0, None, 0, 0)
        assert drift_of_day(made.lake, Releases(home, Line("none"), ledger), made.spec, day(0)) is None
        drift = drift_of_day(made.lake, releases, made.spec, day(0))
        assert drift is not None
        assert "label" not in {column.column for column in drift.columns}
        with pytest.raises(ValueError, match="no example of m has matured by 2020-03-02"):
            made.snapshot(end_of(0))


def test_an_event_that_was_announced_again_counts_once_as_it_was_predicted_last(tmp_path: Path) -> None:
    made = world(tmp_path, model("delay"), [("a", 1, 99), ("b", 2, 99), ("a", 30, 99)], [("a", 1, 40), ("b", 0, 41)])
    made.arrive(DAYS)
    for number in range(DAYS):
        save_outcomes(made.lake, made.spec, day(number))
    rows = read_outcomes(made.lake, made.spec, end_of(DAYS - 1), START)
    last = START + 30 * HOUR
    assert rows.loc[rows["id"] == "a", ["event_timestamp", "prediction"]].values.tolist() == [[last, 0.002]]
    assert labels_known(made.lake, made.spec, end_of(DAYS - 1)) == 2
    snapshot = made.snapshot(end_of(DAYS - 1))
    examples = pd.concat([read_examples(made.lake, snapshot, "train"), read_examples(made.lake, snapshot, "holdout")])
    assert sorted(zip(examples["id"], examples["event_timestamp"], strict=True)) == [
        ("a", last),
        ("b", START + 2 * HOUR),
    ]


def test_a_label_that_the_task_does_not_know_is_not_kept(tmp_path: Path) -> None:
    made = world(tmp_path, model("delay"), [("a", 1, 99)], [("a", 2, 20)])
    made.arrive(DAYS)
    with pytest.raises(ValueError, match="labels of a binary task: 1 of 1 are neither 0 nor 1; mend the label's SQL"):
        save_outcomes(made.lake, made.spec, day(0))
    assert made.lake.dataset("m/performance").files() == []
