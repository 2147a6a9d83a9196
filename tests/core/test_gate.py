import json
from itertools import count

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from ct_assets.core.baselines import Prior
from ct_assets.core.canonical import digest
from ct_assets.core.gate import CHECK_NAMES, GatePolicy, TestData, Verdict, VerdictError, validate_new_model

ROWS = 6000
GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.beta(2, 3, ROWS)
LABEL = (GENERATOR.random(ROWS) < TRUTH).astype(int)
NOISE = GENERATOR.normal(size=ROWS)
FEATURES = pd.DataFrame({"truth": TRUTH, "noise": NOISE, "row": np.arange(ROWS)})
SLICES = pd.DataFrame(
    {"side": np.where(np.arange(ROWS) % 3 == 0, "left", "right"), "rare": [f"r{i % 60}" for i in range(ROWS)]}
)


class Model:
    """Predicts the truth, blurred; `broken` rewrites the scores, given the rows."""

    def __init__(self, blur=0.0, broken=None, shape=2):
        self.blur, self.broken, self.shape = blur, broken, shape

    def predict_proba(self, features):
        logit = np.log(features["truth"] / (1 - features["truth"])) + self.blur * features["noise"]
        scores = 1 / (1 + np.exp(-logit.to_numpy()))
        if self.broken:
            scores = self.broken(scores, features)
        return np.column_stack([1 - scores, scores]) if self.shape == 2 else scores


GOOD, BAD = Model(0.2), Model(1.5)


def data(rows=ROWS, slices=SLICES):
    return TestData(FEATURES.head(rows), pd.Series(LABEL[:rows]), None if slices is None else slices.head(rows))


def check(verdict, name):
    return next(c for c in verdict.checks if c.name == name)


def auc_of(model, rows=slice(None)):
    return roc_auc_score(LABEL[rows], model.predict_proba(FEATURES[rows])[:, 1])


def test_a_better_challenger_passes_and_a_worse_one_does_not():
    assert validate_new_model(GOOD, BAD, data()).passed
    verdict = validate_new_model(BAD, GOOD, data())
    assert not verdict.passed
    assert not check(verdict, "not_worse_than_champion").passed


def test_the_numbers_are_those_of_scikit_learn():
    verdict = validate_new_model(GOOD, BAD, data())
    assert verdict.metrics["challenger"]["auc"] == pytest.approx(auc_of(GOOD))
    assert verdict.metrics["champion"]["auc"] == pytest.approx(auc_of(BAD))
    left = np.arange(ROWS) % 3 == 0
    found = next(s for s in verdict.slices if s.value == "left")
    assert (found.rows, found.judged) == (2000, True)
    assert found.delta == pytest.approx(auc_of(GOOD, left) - auc_of(BAD, left))


@pytest.mark.parametrize(("tolerance", "passes"), [(0.999, False), (1.001, True)])
def test_the_tolerance_decides_at_the_loss(tolerance, passes):
    policy = GatePolicy(tolerance=(auc_of(GOOD) - auc_of(BAD)) * tolerance, slice_tolerance=1)
    assert validate_new_model(BAD, GOOD, data(), policy).passed is passes


def test_the_same_model_passes_with_a_tolerance_and_fails_without():
    assert validate_new_model(GOOD, GOOD, data()).passed
    assert not validate_new_model(GOOD, GOOD, data(), GatePolicy(tolerance=0)).passed


def test_where_lower_is_better_the_rule_turns_round():
    policy = GatePolicy(metric="logloss", floor=0.9)
    assert validate_new_model(GOOD, BAD, data(), policy).passed
    verdict = validate_new_model(BAD, GOOD, data(), policy)
    found = check(verdict, "not_worse_than_champion")
    assert (found.passed, found.comparison) == (False, "<")
    assert found.limit == pytest.approx(log_loss(LABEL, GOOD.predict_proba(FEATURES)) * 1.002)
    assert not check(
        validate_new_model(BAD, GOOD, data(), GatePolicy(metric="logloss", floor=0.3)), "above_floor"
    ).passed


def test_a_loss_in_one_slice_fails_though_the_whole_is_better():
    def reversed_on_the_left(scores, features):
        return np.where(features["row"] % 3 == 0, 1 - scores, scores)

    policy = GatePolicy(tolerance=0.5)
    verdict = validate_new_model(Model(0.2, reversed_on_the_left), GOOD, data(), policy)
    assert check(verdict, "not_worse_than_champion").passed
    assert not verdict.passed
    assert "side=left (2000 rows" in " ".join(verdict.reasons())


def test_small_slices_are_shown_and_not_judged():
    verdict = validate_new_model(GOOD, BAD, data())
    rare = [s for s in verdict.slices if s.column == "rare"]
    assert len(rare) == 60
    assert not any(s.judged for s in rare)
    assert all(s.challenger is not None for s in rare)


def test_missing_slice_values_are_a_slice():
    slices = pd.DataFrame({"side": [None] * 3000 + ["a"] * 3000})
    verdict = validate_new_model(GOOD, BAD, data(slices=slices))
    assert [(s.value, s.rows) for s in verdict.slices] == [("(missing)", 3000), ("a", 3000)]


def test_without_a_champion_the_floor_decides():
    assert validate_new_model(GOOD, None, data(), GatePolicy(floor=auc_of(GOOD) - 1e-9)).passed
    assert not validate_new_model(GOOD, None, data(), GatePolicy(floor=auc_of(GOOD) + 1e-9)).passed


def test_without_champion_and_floor_a_model_has_to_beat_the_best_constant_by_more_than_chance():
    verdict = validate_new_model(GOOD, None, data())
    found = check(verdict, "beats_baseline")
    assert (verdict.passed, found.value) == (True, pytest.approx(auc_of(GOOD)))
    assert 0.5 < found.limit < 0.53, "1.645 standard errors of an auc of 6000 rows are about 0.012"
    passes = 0
    for seed in range(200):
        tosses = Scores(pd.Series(np.random.default_rng(seed).random(2000)))
        passes += validate_new_model(tosses, None, data(2000, None)).passed
    assert passes <= 20, "one in twenty is expected to; of 200, more than 20 come about once in 1,500 times"
    constant = Scores(pd.Series(np.full(ROWS, 0.3)))
    assert not validate_new_model(constant, None, data()).passed
    assert not validate_new_model(constant, None, data(), baseline=Prior(float(LABEL.mean()))).passed
    assert validate_new_model(constant, None, data(), GatePolicy(floor=0.5)).passed, "a floor is asked for instead"


def test_what_too_few_rows_cannot_tell_is_inconclusive_and_no_pass():
    few = validate_new_model(BAD, GOOD, data(900))
    assert (few.passed, few.outcome) == (False, "inconclusive")
    assert any(reason.startswith("enough_rows: inconclusive: ") for reason in few.reasons())
    assert check(few, "not_worse_than_champion").inconclusive
    one_class = validate_new_model(GOOD, BAD, TestData(FEATURES, pd.Series(np.zeros(ROWS)), SLICES))
    assert one_class.outcome == "inconclusive"
    broken = validate_new_model(Model(0.2, nan_once), GOOD, data(900))
    assert broken.outcome == "rejected", "no number of rows makes its predictions usable"
    assert validate_new_model(BAD, GOOD, data()).outcome == "rejected"
    assert validate_new_model(GOOD, BAD, data()).outcome == "passed"


def test_a_better_challenger_replaces_a_champion_that_a_naive_prediction_beats_too():
    """Figures by hand: on these scores the auc is that of the order of rows, right, half right or reversed."""
    policy, naive = GatePolicy(beat_baseline=True), Model(0.5)
    worst, better = Model(5.0), Model(2.0)
    assert auc_of(worst) < auc_of(better) < auc_of(naive)
    verdict = validate_new_model(better, worst, data(slices=None), policy, baseline=naive)
    found = check(verdict, "beats_baseline")
    assert (verdict.passed, found.passed, found.severity) == (True, False, "WARN")
    assert "the champion's" in found.detail and any("beats_baseline: warning only" in r for r in verdict.reasons())
    assert not validate_new_model(worst, better, data(slices=None), policy, baseline=naive).passed
    assert not validate_new_model(better, GOOD, data(slices=None), policy, baseline=naive).passed
    assert not validate_new_model(better, None, data(slices=None), policy, baseline=naive).passed, "a first model"


@pytest.mark.parametrize(("blur", "passes"), [(0.2, True), (1.5, False)])
def test_a_release_that_was_rolled_back_is_compared_with_and_only_warned_of(blur, passes):
    verdict = validate_new_model(Model(blur), BAD, data(), rolled_back=Model(0.6))
    found = check(verdict, "better_than_rolled_back")
    assert verdict.passed
    assert (found.passed, found.severity) == (passes, "WARN")
    assert found.limit == pytest.approx(auc_of(Model(0.6)) + 0.002)
    assert verdict.metrics["rolled_back"]["auc"] == pytest.approx(auc_of(Model(0.6)))


def nan_once(scores, features):
    return np.where(features["row"] == 7, np.nan, scores)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (nan_once, "1 of 6000 predictions are NaN"),
        (lambda s, f: s + 1, "6000 of 6000 predictions are outside [0, 1]"),
        (lambda s, f: s[:-1], "shape (5999,) for 6000 rows"),
        (lambda s, f: 1 / 0, "predict_proba raised ZeroDivisionError"),
    ],
)
def test_unusable_predictions_are_a_failed_check(broken, reason):
    model = Model(0.2, broken, shape=1)
    verdict = validate_new_model(model, BAD, data())
    assert not verdict.passed
    assert reason in check(verdict, "challenger_predictions_usable").detail
    assert not check(verdict, "not_worse_than_champion").passed
    as_champion = validate_new_model(GOOD, model, data())
    assert not as_champion.passed
    assert reason in check(as_champion, "champion_predictions_usable").detail


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (np.ones(ROWS), "only one class"),
        (np.where(np.arange(ROWS) == 3, np.nan, LABEL), "1 of 6000 are missing"),
        (LABEL * 2, "neither 0 nor 1"),
        (np.array(["late"] * ROWS), "not numbers"),
    ],
)
def test_unusable_labels_are_a_failed_check(label, reason):
    verdict = validate_new_model(GOOD, BAD, TestData(FEATURES, pd.Series(label), SLICES))
    assert not verdict.passed
    assert reason in check(verdict, "labels_usable").detail
    verdict.verify()


@pytest.mark.parametrize("rows", [0, 1, 999])
def test_too_few_rows_are_a_failed_check(rows):
    verdict = validate_new_model(GOOD, BAD, data(rows))
    assert not verdict.passed
    assert f"{1000 - rows} more labelled rows would have flipped it" in check(verdict, "enough_rows").detail
    verdict.verify()


def test_a_badly_calibrated_model_fails_only_where_the_policy_asks():
    model = Model(0.0, lambda scores, _: scores / 2)  # the same order of rows, half the probability
    assert validate_new_model(model, GOOD, data()).passed
    verdict = validate_new_model(model, GOOD, data(), GatePolicy(max_calibration_error=0.05))
    assert not verdict.passed
    assert check(verdict, "calibrated").value == pytest.approx(LABEL.mean() / 2, abs=0.02)


def test_latency_and_size_are_checked_but_not_part_of_the_digest():
    policy = GatePolicy(max_latency_ms=5, max_artifact_mb=10)

    def judged(ms, mb):
        ticks = count()
        return validate_new_model(GOOD, BAD, data(), policy, artifact_mb=mb, clock=lambda: next(ticks) * ms / 1000)

    fast, faster, slow = judged(4.0, 9), judged(3.0, 8), judged(6.0, 11)
    assert fast.measured.latency_ms_per_row == pytest.approx(4)
    assert fast.passed
    assert fast.digest == faster.digest != slow.digest
    assert slow.reasons() == [
        "fast_enough: median one-row latency has to be <= 5 ms (measured: 6 ms)",
        "small_enough: artifact size has to be <= 10 MB (measured: 11 MB)",
    ]


def test_a_size_limit_without_a_known_size_fails():
    assert not validate_new_model(GOOD, BAD, data(), GatePolicy(max_artifact_mb=10)).passed


def test_every_verdict_has_the_same_checks_in_the_same_order():
    for verdict in (validate_new_model(GOOD, None, data(0)), validate_new_model(GOOD, BAD, data())):
        assert tuple(c.name for c in verdict.checks) == CHECK_NAMES


def bound():
    return validate_new_model(
        GOOD,
        BAD,
        data(),
        bindings={
            "model": "delay",
            "artifact_digest": "a1",
            "feature_versions": {"flight": "3"},
            "as_of": pd.Timestamp("2013-05-01", tz="UTC"),
        },
        window=(pd.Timestamp("2013-04-01", tz="UTC"), pd.Timestamp("2013-05-01", tz="UTC")),
    )


def test_the_digest_survives_json_and_repeats():
    read_back = Verdict.model_validate_json(bound().model_dump_json())
    read_back.verify()
    assert read_back == bound().model_copy(update={"measured": read_back.measured})
    assert read_back.bindings.as_of == "2013-05-01T00:00:00+00:00"
    assert read_back.window == ("2013-04-01T00:00:00+00:00", "2013-05-01T00:00:00+00:00")


@pytest.mark.parametrize(
    "path",
    [
        ("passed",),
        ("rows",),
        ("metrics", "challenger", "auc"),
        ("checks", 4, "passed"),
        ("bindings", "artifact_digest"),
        ("policy", "tolerance"),
        ("test_data_digest",),
        ("digest",),
    ],
)
def test_any_change_is_detected(path):
    document = json.loads(bound().model_dump_json())
    place = document
    for step in path[:-1]:
        place = place[step]
    old = place[path[-1]]
    place[path[-1]] = (not old) if isinstance(old, bool) else old + ("x" if isinstance(old, str) else 1)
    with pytest.raises(VerdictError, match="changed after"):
        Verdict.model_validate(document).verify()


def test_a_verdict_that_contradicts_its_checks_is_refused_even_with_a_matching_digest():
    forged = validate_new_model(BAD, GOOD, data()).model_copy(update={"passed": True})
    forged = forged.model_copy(update={"digest": forged.computed_digest()})
    with pytest.raises(VerdictError, match="does not follow"):
        forged.verify()


def test_the_test_data_digest_sees_every_cell_and_name_but_not_the_index():
    same = TestData(FEATURES.set_axis(np.arange(ROWS) + 5), pd.Series(LABEL), SLICES)
    assert same.digest == data().digest
    cell = FEATURES.assign(noise=np.where(np.arange(ROWS) == 9, 0.0, NOISE))
    renamed = FEATURES.rename(columns={"noise": "other"})
    others = {TestData(f, pd.Series(LABEL), SLICES).digest for f in (cell, renamed)} | {data(slices=None).digest}
    assert len(others | {same.digest}) == 4


@pytest.mark.parametrize("dtype", ["bool", "boolean", "int8", "Int64", "float32"])
def test_labels_may_have_any_type_that_means_zero_and_one(dtype):
    verdict = validate_new_model(GOOD, BAD, TestData(FEATURES, pd.Series(LABEL).astype(dtype), SLICES))
    assert verdict.passed
    assert verdict.metrics["challenger"]["prevalence"] == LABEL.mean()


def test_a_column_name_that_appears_twice_is_refused():
    with pytest.raises(ValueError, match=r"columns \['noise'\] appear twice"):
        TestData(FEATURES.rename(columns={"row": "noise"}), pd.Series(LABEL), None)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\[6000, 5, 6000\] rows"):
        TestData(FEATURES, pd.Series(LABEL[:5]), None)


@pytest.mark.parametrize("wrong", [{"metric": "prevalence"}, {"toleranec": 1}, {"tolerance": -1}])
def test_an_invalid_policy_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GatePolicy(**wrong)


@pytest.mark.parametrize("sign", [1, -1], ids=["upwards", "downwards"])
def test_a_feature_that_knows_the_label_is_named_and_stops_nothing(sign):
    generator = np.random.default_rng(4)
    label = pd.Series(generator.integers(0, 2, 2000))
    honest = label * 0.5 + generator.normal(size=2000)
    told = sign * label.where(generator.random(2000) > 0.3).astype(float)
    features = pd.DataFrame({"honest": honest, "told": told, "empty": np.nan, "carrier": "AA", "count": 3})
    verdict = validate_new_model(Scores(honest.rank(pct=True)), None, TestData(features, label), GatePolicy(floor=0.5))
    (check,) = (c for c in verdict.checks if c.name == "no_leak")
    assert verdict.passed
    assert (check.passed, check.severity, check.value, check.limit) == (False, "WARN", 1.0, 0.95)
    assert "alone, told (1) would reach an auc above 0.95" in check.detail
    assert any(reason.startswith("no_leak: warning only:") for reason in verdict.reasons())
    quiet = validate_new_model(
        Scores(honest.rank(pct=True)), None, TestData(features[["honest"]], label), GatePolicy(floor=0.5)
    )
    (check,) = (c for c in quiet.checks if c.name == "no_leak")
    assert check.passed
    assert check.value == pytest.approx(roc_auc_score(label, honest), abs=1e-12)


class Scores:
    """A model that has its scores ready."""

    def __init__(self, scores: pd.Series) -> None:
        self.scores = scores.to_numpy()

    def predict_proba(self, features: pd.DataFrame, /) -> np.ndarray:
        return self.scores[: len(features)]


@pytest.mark.parametrize(("metric", "naive"), [("auc", 0.5), ("logloss", None)])
def test_the_baseline_is_recorded_and_has_to_be_beaten_where_the_policy_says_so(metric, naive):
    rate = float(LABEL.mean())
    naive = naive or -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    policy = GatePolicy(metric=metric, beat_baseline=True, floor=0.0 if metric == "auc" else 9.0)
    good = validate_new_model(GOOD, None, data(), policy, baseline=Prior(rate))
    assert good.metrics["baseline"][metric] == pytest.approx(naive, abs=1e-12)
    (check,) = (c for c in good.checks if c.name == "beats_baseline")
    assert (check.passed, check.limit) == (True, pytest.approx(naive, abs=1e-12))
    constant = validate_new_model(Prior(rate / 2), None, data(), policy, baseline=Prior(rate))
    assert not constant.passed
    assert any("that of a naive prediction" in reason for reason in constant.reasons())
    asked_for_a_floor = GatePolicy(metric=metric, floor=0.4 if metric == "auc" else 2.0)
    assert validate_new_model(Prior(rate / 2), None, data(), asked_for_a_floor, baseline=Prior(rate)).passed
    assert not validate_new_model(GOOD, None, data(), policy).passed, "a baseline that is asked for has to be given"


def test_a_number_is_sliced_by_its_quantiles_and_many_categories_by_the_largest():
    by = pd.DataFrame(
        {
            "noise": FEATURES["noise"].where(FEATURES["row"] >= 60),
            "row": FEATURES["row"],
            "tail": [f"N{i % 3000}" if i % 2 else "N0" for i in range(ROWS)],
        }
    )
    verdict = validate_new_model(GOOD, BAD, data(slices=by))
    edges = np.quantile(NOISE[60:], [0.2, 0.4, 0.6, 0.8])
    expected = np.histogram(NOISE[60:], [-np.inf, *edges, np.inf])[0]
    found = {column: [s for s in verdict.slices if s.column == column] for column in by}
    assert [s.rows for s in found["noise"]] == [60, *expected]
    assert found["noise"][0].value == "(missing)"
    assert found["noise"][2].value == f"[{edges[0]:.6g}, {edges[1]:.6g})"
    lowest = edges[0] > NOISE
    assert found["noise"][1].challenger == pytest.approx(auc_of(GOOD, lowest & (FEATURES["row"] >= 60)))
    assert [s.rows for s in found["row"]] == [1200] * 5
    assert len(found["tail"]) == 101
    assert sum(s.rows for s in found["tail"]) == ROWS
    assert next(s.rows for s in found["tail"] if s.value == "N0") == 3000
    assert len(verdict.model_dump_json()) < 60_000


def test_a_slice_with_few_rows_of_one_class_is_shown_and_not_judged():
    left = np.arange(ROWS) < 1000
    label = pd.Series(np.where(left & (np.arange(ROWS) >= 9), 0, LABEL)).where(np.arange(ROWS) >= 9, 1)
    slices = pd.DataFrame({"side": np.where(left, "left", "right")})
    verdict = validate_new_model(BAD, BAD, TestData(FEATURES, label, slices))
    assert {(s.value, s.rows, s.judged) for s in verdict.slices} == {("left", 1000, False), ("right", 5000, True)}
    assert all(s.challenger is not None for s in verdict.slices)


def test_a_stored_verdict_is_sealed_over_what_is_stored_whatever_code_reads_it():
    stored = json.loads(bound().model_dump_json())
    later = stored | {"budget": {"spent": 0.2}, "schema_version": 9}
    later["checks"] = [*stored["checks"], {"name": "of_a_later_version", "passed": True, "detail": "", "power": 0.8}]
    later["policy"] = stored["policy"] | {"alpha": 0.05}
    later["digest"] = digest({k: v for k, v in later.items() if k not in ("measured", "digest")})
    read = Verdict.model_validate_json(json.dumps(later))
    read.verify()
    assert read.document() == later
    earlier = {k: v for k, v in stored.items() if k != "schema_version"}
    earlier["checks"] = [{k: v for k, v in c.items() if k != "inconclusive"} for c in stored["checks"][:5]]
    earlier["policy"] = {"metric": "auc", "tolerance": 0.01}
    earlier["digest"] = digest({k: v for k, v in earlier.items() if k not in ("measured", "digest")})
    Verdict.model_validate(earlier).verify()
    with pytest.raises(VerdictError, match="changed after"):
        Verdict.model_validate(earlier).model_copy(update={"rows": 1}).verify()
    without = {**earlier, "checks": []}
    without["digest"] = digest({k: v for k, v in without.items() if k not in ("measured", "digest")})
    with pytest.raises(VerdictError, match="does not follow"):
        Verdict.model_validate(without).verify()


def test_a_first_model_of_noise_rarely_beats_the_baseline_that_is_asked_for():
    random, passed = np.random.default_rng(11), 0
    for _ in range(60):
        label = pd.Series(random.integers(0, 2, 1000))
        noise = Scores(pd.Series(random.random(1000)))
        of = TestData(pd.DataFrame({"x": np.zeros(1000)}), label)
        passed += validate_new_model(noise, None, of, GatePolicy(beat_baseline=True), baseline=Prior(0.5)).passed
    assert passed <= 8, "of 60, 3 by chance; without what chance may add it would be 30"


def test_a_reference_with_one_positive_says_nothing_of_what_was_forgotten():
    label = pd.Series([1] + [0] * 599)
    old = TestData(FEATURES.head(600), label)
    verdict = validate_new_model(GOOD, BAD, data(), reference=old)
    (check,) = (c for c in verdict.checks if c.name == "remembers")
    assert (check.passed, check.inconclusive) == (False, True)
    assert "only 1 of 600 rows are of the rarer class" in check.detail
