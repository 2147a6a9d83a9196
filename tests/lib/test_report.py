import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import log_loss, roc_auc_score
from worlds_of_tasks import CLASSES, examples_of, spec_of

from ct_assets.core.artifact import load_model
from ct_assets.core.baselines import fit_baseline
from ct_assets.core.drift import compare
from ct_assets.core.gate import GatePolicy, TestData, validate_new_model
from ct_assets.core.inputs import model_inputs
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.profile import bin_edges, profile
from ct_assets.core.spec import EstimatorSpec, EventSpec, LabelSpec, ModelSpec
from ct_assets.core.tasks import BINARY, task_of
from ct_assets.core.training import predict, train
from ct_assets.lib.plots import wilson_interval
from ct_assets.lib.report import ReportData, permutation_importance, plots, render, worst_first

ROWS = 3000
GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.beta(2, 3, ROWS)
LABEL = pd.Series((GENERATOR.random(ROWS) < TRUTH).astype(int))
FEATURES = pd.DataFrame(
    {
        "truth": TRUTH,
        "noise": GENERATOR.normal(size=ROWS),
        "side": np.where(np.arange(ROWS) % 3 == 0, "left", "right"),
        "rare": [f"r{i % 60}" for i in range(ROWS)],
    }
)
SPEC = ModelSpec(
    name="delay",
    owner="team:test",
    description="Late or not.",
    events=EventSpec(source="flights", sql="select 1", id_column="id"),
    label=LabelSpec(source="outcomes", sql="select 1", delay="1d"),
    entities=("side",),
    feature_service="delay_v1",
    inputs={"truth": "numeric", "noise": "numeric", "side": "categorical", "rare": "categorical"},
    estimator=EstimatorSpec(path="sklearn.dummy.DummyClassifier"),
    policy=RetrainPolicy(),
)
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta"}


class Model:
    """Predicts the truth, blurred; keeps what it was asked."""

    def __init__(self, blur=0.0, nan=False):
        self.blur, self.nan, self.asked = blur, nan, []

    def predict_proba(self, features):
        self.asked.append(features)
        logit = np.log(features["truth"] / (1 - features["truth"])) + self.blur * features["noise"]
        scores = 1 / (1 + np.exp(-logit.to_numpy()))
        if self.nan:
            scores[0] = np.nan
        return np.column_stack([1 - scores, scores])


GOOD, BAD = Model(0.2), Model(1.5)
POLICY = GatePolicy(floor=0.6, min_slice_rows=500)


def data(challenger=GOOD, champion=BAD, policy=POLICY, slices=FEATURES[["side", "rare"]], label=LABEL, **changes):
    verdict = validate_new_model(challenger, champion, TestData(FEATURES, label, slices), policy)
    made = ReportData(
        spec=SPEC,
        version="8",
        champion_version=None if champion is None else "7",
        verdict=verdict,
        label=label,
        challenger=pd.Series(challenger.predict_proba(FEATURES)[:, 1]),
        champion=None if champion is None else pd.Series(champion.predict_proba(FEATURES)[:, 1]),
        importance={"truth": 0.2, "noise": 0.01, "side": -0.001, "rare": 0.0},
        drift=None,
        facts={"rows": "9,000"},
        triggers={"schedule": "31 days since the last training."},
    )
    return replace(made, **changes)


class Page(HTMLParser):
    """Rows of the tables by first cell, the text, and whether every element that was opened was closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.rows, self.text, self.tags, self.addresses = [], [], "", set(), []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "style" in self.open:
            return
        self.text += text
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += text

    def row(self, name):
        return next(row for row in self.rows if row[0].split()[:1] == [name])


def page(made, images=None):
    return Page(render(made, images or {}))


def test_a_better_challenger_is_promotable_with_the_numbers_of_scikit_learn():
    found = page(data())
    mine, theirs = (roc_auc_score(LABEL, m.predict_proba(FEATURES)[:, 1]) for m in (GOOD, BAD))
    assert "PROMOTABLE" in found.text and "REJECTED" not in found.text
    assert found.row("auc")[1:] == [f"{mine:.4f}", f"{theirs:.4f}", f"+{mine - theirs:.4f}", "better"]


def test_a_metric_where_lower_is_better_is_better_with_a_negative_delta():
    found = page(data())
    mine, theirs = (log_loss(LABEL, m.predict_proba(FEATURES)[:, 1]) for m in (GOOD, BAD))
    assert mine < theirs
    assert found.row("logloss")[3:] == [f"−{theirs - mine:.4f}", "better"]
    assert page(data(BAD, GOOD)).row("logloss")[3:] == [f"+{theirs - mine:.4f}", "worse"]


def test_the_same_model_is_neither_better_nor_worse():
    assert page(data(GOOD, GOOD)).row("auc")[3:] == ["0.0000", "same"]


def test_a_promotable_page_says_what_would_have_rejected_it():
    made = data()
    found = page(made)
    mine, theirs = (made.verdict.metrics[side]["auc"] for side in ("challenger", "champion"))
    assert "2,001 fewer test rows" in found.text  # 3000 rows, 1000 needed
    assert f"auc {mine - theirs + 0.002:.3g} lower, against the champion" in found.text
    assert f"auc more than {mine - 0.6:.3g} lower, past the floor of 0.6" in found.text


def test_the_metric_of_a_margin_goes_up_where_lower_is_better():
    assert "higher, against the champion" in page(data(policy=GatePolicy(metric="logloss"))).text


def test_a_rejected_page_gives_every_reason_of_the_verdict():
    made = data(BAD, GOOD, GatePolicy(max_calibration_error=0.01, max_artifact_mb=1))
    found = page(made)
    assert "REJECTED" in found.text and "Champion 7 keeps serving" in found.text
    assert len(made.verdict.reasons()) == 4
    for reason in made.verdict.reasons():
        assert reason in found.text
    assert "would have rejected it" not in found.text
    assert found.row("not_worse_than_champion")[1] == "failed"


def test_a_warning_is_apart_from_the_reasons():
    found = page(data(champion=None, policy=GatePolicy(leak_bound=0.51)))
    assert "PROMOTABLE" in found.text and "what would have flipped it" not in found.text
    assert "no_leak: alone, " in found.text
    assert found.row("no_leak")[1] == "warning"


def test_every_check_is_in_the_table_and_one_without_a_limit_is_not_checked():
    made = data()
    found = page(made)
    assert [found.row(check.name)[0] for check in made.verdict.checks] == [c.name for c in made.verdict.checks]
    assert found.row("calibrated")[1:] == ["not checked", "–", "–", "no limit set"]
    assert found.row("labels_usable")[1] == "passed"
    assert found.row("enough_rows")[1:4] == ["passed", "3,000", "≥ 1,000"]


def test_without_a_champion_nothing_is_compared():
    found = page(data(champion=None))
    assert "there is no champion to compare with" in found.text
    assert found.row("auc")[2:] == ["–", "–", ""]


def test_slices_are_worst_first_and_judged_ones_lead():
    made = data(BAD, GOOD)
    ordered = worst_first(made.verdict)
    judged = [row for row in ordered if row.judged]
    assert {(row.column, row.value) for row in judged} == {("side", "left"), ("side", "right")}
    assert ordered[:2] == judged
    for group in (judged, ordered[2:]):
        assert all(a.delta <= b.delta for a, b in pairwise(group))
    table = [row for row in page(made).rows if row[0] in ("side", "rare") and len(row) == 7]
    assert [(row[0], row[1]) for row in table] == [(row.column, row.value) for row in ordered]
    assert {row[6] for row in table[:2]} == {"failed"} and {row[6] for row in table[2:]} == {"not judged"}


def test_where_lower_is_better_the_worst_slice_gained_most():
    ordered = worst_first(data(BAD, GOOD, GatePolicy(metric="logloss", min_slice_rows=1)).verdict)
    failed = [row.delta for row in ordered if not row.passed]
    assert failed == sorted(failed, reverse=True) and len(failed) > 10


def test_without_a_champion_large_slices_come_from_the_worst_value_on():
    ordered = worst_first(data(champion=None).verdict)
    assert [row.rows >= 500 for row in ordered] == [True] * 2 + [False] * 60
    assert ordered[0].challenger <= ordered[1].challenger


def test_a_long_table_of_slices_is_collapsed_and_a_short_one_is_not():
    assert "50 more" in page(data()).text  # 62 slices, 12 shown
    assert "details" not in page(data(slices=FEATURES[["side"]])).tags
    assert "No slices were evaluated" in page(data(slices=None)).text


def test_thousands_of_slices_stay_below_400_kb():
    # Of each column, 100 and the others together.
    made = data(slices=pd.DataFrame({f"route{n}": [f"route-{i % 1500}" for i in range(ROWS)] for n in range(5)}))
    html = render(made, plots(made))
    assert len(html.encode()) < 400_000
    assert "105 more slices are in the verdict" in Page(html).text


def test_drift_shows_the_worst_fifteen_columns():
    old = pd.DataFrame(GENERATOR.normal(size=(2000, 20)), columns=[f"c{i:02}" for i in range(20)])
    new = old.assign(c07=old["c07"] + 2, c11=np.nan)
    report = compare(profile(old, bin_edges(old)), profile(new, bin_edges(old)))
    found = page(data(drift=report))
    rows = [row for row in found.rows if re.fullmatch(r"c\d\d", row[0])]
    assert len(rows) == 15
    assert {row[0] for row in rows[:2]} == {"c07", "c11"} and [row[2] for row in rows[:3]] == ["drift", "drift", "ok"]
    assert found.row("c11")[6] == "0.0% → 100.0%"
    assert "2 of 20 columns drifted (10%)" in found.text and "5 more columns" in found.text
    assert "no drift report" in page(data()).text


def test_facts_triggers_and_bindings_are_shown():
    verdict = validate_new_model(
        GOOD,
        BAD,
        TestData(FEATURES, LABEL),
        bindings={"training_set_digest": "ab" * 32, "as_of": pd.Timestamp("2013-03-08 01:00", tz="Europe/Paris")},
        window=(pd.Timestamp("2013-03-01", tz="UTC"), pd.Timestamp("2013-03-08", tz="UTC")),
    )
    found = page(data(verdict=verdict))
    assert found.row("rows") == ["rows", "9,000"]
    assert "schedule: 31 days since the last training." in found.text
    assert "from 2013-03-01 00:00 UTC to 2013-03-08 00:00 UTC" in found.text
    assert ["as of", "2013-03-08 00:00 UTC"] in found.rows
    assert ["training set", "ab" * 32] in found.rows and ["verdict", verdict.digest] in found.rows


def test_nothing_from_the_data_becomes_markup():
    evil = "<script>alert('&')</script>"
    made = data(
        slices=pd.DataFrame({evil: [evil] * ROWS}),
        facts={evil: evil},
        triggers={evil: evil},
        version=evil,
        champion_version=evil,
        spec=SPEC.model_copy(update={"description": evil, "owner": evil}),
    )
    html = render(made, {})
    assert "<script" not in html
    assert Page(html).text.count(evil) >= 9


def test_the_page_loads_nothing_and_runs_nothing():
    made = data()
    found = page(made, plots(made))
    assert "script" not in found.tags and "link" not in found.tags
    assert len(found.addresses) == 4 and all(a.startswith("data:image/png;base64,") for a in found.addresses)
    assert "http" not in render(made, {}).replace("http-equiv", "")
    assert "@import" not in render(made, {})


def test_the_same_data_give_the_same_bytes_in_any_thread():
    made = data()
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda _: plots(made), range(4)))
    assert all(images == drawn[0] for images in drawn)
    assert sorted(drawn[0]) == ["calibration", "importance", "scores", "slices"]
    assert all(image.startswith(b"\x89PNG") for image in drawn[0].values())
    assert len({image for image in drawn[0].values()}) == 4
    assert render(made, drawn[0]) == render(made, drawn[1])


@pytest.mark.parametrize(
    "made",
    [
        data(champion=None),
        data(slices=None, importance={}),
        data(challenger=Model(nan=True)),
        data(champion=Model(nan=True)),
        data(label=LABEL * 0),
        data(label=LABEL.astype("Float64").mask(LABEL == 1)),
        data(label=LABEL * 7 + 5),
        data(importance={"truth": float("nan"), "side": 0.0}),
    ],
    ids=[
        "first",
        "no slices",
        "nan",
        "nan champion",
        "one class",
        "unknown labels",
        "strange labels",
        "nan importance",
    ],
)
def test_whatever_the_gate_was_given_there_is_a_page(made):
    found = page(made, plots(made))
    assert len(found.addresses) == 4
    assert ("PROMOTABLE" in found.text) == made.verdict.passed


def test_a_name_with_dollars_is_not_a_formula():
    names = pd.DataFrame({"price": np.where(np.arange(ROWS) % 2, r"$\frac$", "$5\n-$10")})
    made = data(slices=names, importance={r"$\nonsense{$": 0.1})
    assert len(plots(made)) == 4


def test_rows_without_a_usable_label_or_score_are_not_drawn():
    label = pd.Series([0, 1, None, 1, 5], index=[9, 8, 7, 6, 5])
    labels, scores = BINARY.usable(label, pd.Series([0.1, 0.9, 0.5, float("nan"), 0.2]))
    assert labels.tolist() == [0, 1] and scores.tolist() == [0.1, 0.9]


def test_the_intervals_are_those_of_scipy():
    positives, rows = np.array([0, 3, 40, 7]), np.array([5, 8, 100, 7])
    low, high = wilson_interval(positives / rows, rows.astype(float))
    for place, (k, n) in enumerate(zip(positives, rows, strict=True)):
        expected = binomtest(int(k), int(n)).proportion_ci(0.95, method="wilson")
        assert (low[place], high[place]) == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_a_column_that_decides_costs_what_chance_would_leave_and_one_that_is_not_read_costs_nothing():
    model = Model()
    drops = permutation_importance(SPEC, model, FEATURES, LABEL, "auc", rows=ROWS)
    assert list(drops) == SPEC.columns
    assert drops["truth"] == pytest.approx(roc_auc_score(LABEL, TRUTH) - 0.5, abs=0.03)  # sd of the AUC: 0.011
    assert (drops["noise"], drops["side"], drops["rare"]) == (0, 0, 0)


def test_each_copy_has_one_column_shuffled_and_the_drop_is_that_of_scikit_learn():
    model = Model(0.7)
    drops = permutation_importance(SPEC, model, FEATURES, LABEL, "auc", rows=ROWS)
    plain, batch = model.asked
    before = roc_auc_score(LABEL, Model(0.7).predict_proba(plain)[:, 1])
    for place, column in enumerate(SPEC.columns):
        copy = batch.iloc[place * ROWS : (place + 1) * ROWS].reset_index(drop=True)
        assert [c for c in SPEC.columns if not copy[c].equals(plain[c])] == [column]
        assert sorted(copy[column]) == sorted(plain[column])
        after = roc_auc_score(LABEL, Model(0.7).predict_proba(copy)[:, 1])
        assert drops[column] == pytest.approx(before - after, abs=1e-12)


def test_importance_is_positive_too_where_lower_is_better():
    drops = permutation_importance(SPEC, Model(), FEATURES, LABEL, "logloss")
    assert drops["truth"] > 0.1


def test_importance_is_seeded_and_uses_no_more_rows_than_asked():
    model = Model(0.7)
    shuffled = FEATURES.set_index(np.arange(ROWS)[::-1])
    first = permutation_importance(SPEC, model, FEATURES, LABEL, "auc", rows=400)
    assert [len(asked) for asked in model.asked] == [400, 400 * 4]
    assert permutation_importance(SPEC, model, shuffled, LABEL, "auc", rows=400) == first
    assert permutation_importance(SPEC, model, FEATURES, LABEL, "auc", rows=400, seed=1) != first


def test_another_column_changes_nothing_for_the_others():
    fewer = SPEC.model_copy(update={"inputs": {"noise": "numeric", "truth": "numeric"}})
    more = permutation_importance(SPEC, Model(0.7), FEATURES, LABEL, "auc")
    assert permutation_importance(fewer, Model(0.7), FEATURES, LABEL, "auc") == {
        name: more[name] for name in ("noise", "truth")
    }


def test_a_wide_model_is_asked_in_several_calls(monkeypatch):
    whole = permutation_importance(SPEC, Model(0.7), FEATURES, LABEL, "auc", rows=1000)
    monkeypatch.setattr("ct_assets.lib.report._ROWS_PER_CALL", 3500)
    model = Model(0.7)
    assert permutation_importance(SPEC, model, FEATURES, LABEL, "auc", rows=1000) == whole
    assert [len(asked) for asked in model.asked] == [1000, 3000, 1000]


@pytest.mark.parametrize(
    ("rows", "label", "model"),
    [(0, LABEL, Model()), (ROWS, LABEL * 0, Model()), (ROWS, LABEL * 2, Model()), (ROWS, LABEL, Model(nan=True))],
    ids=["no rows", "one class", "strange labels", "nan"],
)
def test_importance_is_empty_where_the_metric_is_undefined(rows, label, model):
    assert permutation_importance(SPEC, model, FEATURES.head(rows), label.head(rows), "auc") == {}


def test_importance_refuses_other_rows_and_metrics_without_a_direction():
    with pytest.raises(ValueError, match="frame has 3000 rows, label 5"):
        permutation_importance(SPEC, Model(), FEATURES, LABEL.head(5), "auc")
    with pytest.raises(ValueError, match="no direction"):
        permutation_importance(SPEC, Model(), FEATURES, LABEL, "rows")


FIGURES = {
    "multiclass": ["calibration", "classes", "confusion", "importance", "slices"],
    "regression": ["importance", "residuals", "slices", "values"],
    "quantile": ["coverage", "importance", "slices", "widths"],
}


def report_of(task, champion=True, break_label=False):
    """A report on a model of another task; the champion has learned from a few rows only."""
    spec = spec_of(task, slices=("side",), baseline={"kind": "input", "column": "last"})
    learned, rows = examples_of(task), examples_of(task, 1500, 3)
    label = rows["label"].where(rows.index != 3) if break_label else rows["label"]
    models = [_stored(spec, examples) for examples in (learned, examples_of(task, 16, 6))]
    kind = task_of(spec)
    verdict = validate_new_model(
        models[0],
        models[1] if champion else None,
        TestData(model_inputs(spec, rows), label, rows[["side"]]),
        task=kind,
        baseline=fit_baseline(kind, spec.baseline, spec.gate.metric, learned),
    )
    return ReportData(
        spec=spec,
        version="8",
        champion_version="7" if champion else None,
        verdict=verdict,
        label=label,
        challenger=predict(spec, models[0], rows),
        champion=predict(spec, models[1], rows) if champion else None,
        importance=permutation_importance(spec, models[0], rows, label, spec.gate.metric),
        drift=None,
        facts={},
        triggers={},
    )


def _stored(spec, examples):
    trained = train(spec, examples, examples)
    return load_model(trained.payload, trained.digest)


@pytest.mark.parametrize("task", FIGURES)
def test_each_task_has_its_own_figures_and_numbers(task):
    made = report_of(task)
    images = plots(made)
    assert sorted(images) == FIGURES[task]
    assert len({*images.values()}) == len(images) and plots(made) == images
    found = page(made, images)
    assert "PROMOTABLE" in found.text and "The naive model predicts" in found.text and "value of last" in found.text
    gate = made.spec.gate.metric
    mine, theirs, naive = (made.verdict.metrics[side][gate] for side in ("challenger", "champion", "baseline"))
    assert found.row(gate)[1:] == [
        f"{mine:.4f}",
        f"{theirs:.4f}",
        f"−{theirs - mine:.4f}",
        "better",
        f"{naive:.4f}",
    ]
    assert {row[0].split()[0] for row in found.rows if row and row[0]} >= {*made.spec.metrics}
    assert max(made.importance, key=made.importance.get) == "hour"


def test_the_labels_are_described_as_their_task_has_them():
    rows = examples_of("multiclass", 1500, 3)["label"].value_counts(normalize=True)
    assert ", ".join(f"{rows[name]:.1%} {name}" for name in CLASSES) in page(report_of("multiclass")).text
    mean = examples_of("regression", 1500, 3)["label"].mean()
    assert f"labels {mean:.4g} on average" in page(report_of("regression")).text


def test_a_figure_without_a_direction_is_neither_better_nor_worse():
    row = page(report_of("regression")).row("bias")
    assert row[0] == "bias" and row[3][0] in "+−" and row[4] == ""
    assert page(report_of("regression")).row("mae")[0].split() == ["mae", "↓", "gate"]


@pytest.mark.parametrize("task", FIGURES)
def test_whatever_the_task_there_is_a_page_without_a_champion_and_with_unusable_labels(task):
    first, broken = report_of(task, champion=False), report_of(task, break_label=True)
    assert len(page(first, plots(first)).addresses) == len(FIGURES[task])
    assert "REJECTED" in page(broken, plots(broken)).text
    assert broken.importance == {}
