"""One model for each airport of departure that has enough labels, through the real automation."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from dagster._core.definitions.asset_checks.asset_check_spec import AssetCheckKey
from small_days import day_of, files_of
from small_location import SMALL, location

from ct_assets.core.ledger import Ledger
from ct_assets.core.segments import SERVED_BY, Line
from ct_assets.core.spec import SegmentRules
from ct_assets.core.training import predict
from ct_assets.feeds import feed_wave
from ct_assets.feeds.nycflights import NycFlights
from ct_assets.lake.releases import Releases
from ct_assets.lake.summary import summarize
from ct_assets.lake.training_set import load_training_set, read_examples
from ct_assets.lib.driver import Driver
from ct_assets.lib.instance import open_instance
from ct_assets.lib.label_counts import labels_of_lines
from ct_assets.lib.monitoring import _within_limit, lines_at
from ct_assets.lib.partitions import end_of, start_of
from ct_assets.resources.lake import LakeResource

SPEC = SMALL.model_copy(update={"segment_by": "origin", "segments": SegmentRules(min_labels=900)})
POOLED, EWR, JFK, LGA = (Line(SPEC.name, segment) for segment in (None, "EWR", "JFK", "LGA"))
LAST = day_of(5)


@dataclass
class Flown:
    """Six days of flights, worked off."""

    home: Path
    ledger: Ledger
    instance: dg.DagsterInstance
    lake: LakeResource

    def releases(self, line: Line) -> Releases:
        return Releases(self.home, line, self.ledger)

    def scored(self, day: str) -> pd.DataFrame:
        dataset = self.lake.lake().dataset(f"{SPEC.name}/scored")
        (path,) = dataset.paths(dataset.partition(day))
        return pq.read_table(path).to_pandas()


@pytest.fixture(scope="module")
def flown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flown]:
    home = tmp_path_factory.mktemp("segments")
    with pytest.MonkeyPatch.context() as patch, open_instance(home) as instance:
        patch.setenv("CT_HOME", str(home))
        failed = []
        driver = Driver(location(SPEC), instance, home / "driver", lambda run: failed.extend(run.errors))
        feed = NycFlights()
        for number in range(6):
            feed_wave(files_of(feed, number), str(home))
            driver.settle()
        assert failed == []
        lake = LakeResource(home=str(home))
        yield Flown(home, lake.ledger(), instance, lake)


def kinds(flown: Flown, line: Line) -> list[str]:
    return [record.kind for record in flown.ledger.records(model=line.name)]


def test_a_segment_begins_with_enough_labels_and_after_the_pooled_model(flown: Flown) -> None:
    begun = {line: flown.ledger.records("retrain", line.name)[0] for line in (POOLED, EWR, JFK, LGA)}
    moments = {line: record.as_of[:10] for line, record in begun.items()}
    assert moments == {POOLED: day_of(3), EWR: day_of(4), JFK: day_of(4), LGA: day_of(5)}
    assert all(record.evidence["decision"]["triggers"] == ["bootstrap"] for record in begun.values())
    assert all(begun[line].evidence["evidence"]["known_labels"] >= 900 for line in (EWR, JFK, LGA))
    assert kinds(flown, EWR)[:4] == ["retrain", "training", "verdict", "promotion"]


def test_a_segment_learns_from_its_own_examples_and_the_pooled_model_from_all(flown: Flown) -> None:
    for line, origins in ((POOLED, {"EWR", "JFK", "LGA"}), (EWR, {"EWR"}), (LGA, {"LGA"})):
        training = flown.ledger.records("training", line.name)[0]
        snapshot = load_training_set(flown.lake.lake(), training.evidence["training_set"])
        rows = pd.concat([read_examples(flown.lake.lake(), snapshot, part) for part in ("train", "holdout")])
        assert (set(rows["origin"]), snapshot.model) == (origins, line.name)


def test_a_segment_s_first_challenger_is_measured_by_the_pooled_champion(flown: Flown) -> None:
    pooled = flown.releases(POOLED).get("1")
    for line in (EWR, JFK):
        releases = flown.releases(line)
        verdict = releases.verdict(releases.get("1").verdict)
        assert verdict.bindings.champion_digest == pooled.artifact_digest
        assert set(verdict.metrics) == {"challenger", "champion", "baseline"}


def test_each_event_is_scored_by_the_champion_of_its_segment_or_by_the_pooled_one(flown: Flown) -> None:
    rows = flown.scored(LAST)
    serving = rows.groupby("origin")[SERVED_BY].unique().map(list).to_dict()
    assert serving == {"EWR": ["EWR"], "JFK": ["JFK"], "LGA": ["(pooled)"]}
    for line, origin in ((EWR, "EWR"), (JFK, "JFK"), (POOLED, "LGA")):
        mine, releases = rows[rows["origin"] == origin], flown.releases(line)
        by_hand = predict(SPEC, releases.load(releases.get("1"), SPEC), mine)
        np.testing.assert_array_equal(mine["prediction"], by_hand)
    assert set(flown.scored(day_of(3))[SERVED_BY]) == {"(pooled)"}


def test_a_segment_with_an_inconclusive_verdict_stays_with_the_pooled_model_until_more_days_are_judged(
    flown: Flown,
) -> None:
    verdicts = flown.ledger.records("verdict", LGA.name)
    assert [record.evidence["outcome"] for record in verdicts] == ["inconclusive", "passed"]
    trainings = [record.evidence["training_set"] for record in flown.ledger.records("training", LGA.name)]
    sets = [load_training_set(flown.lake.lake(), digest) for digest in trainings]
    short, long = (pd.Timestamp(found.as_of) - pd.Timestamp(found.split_at) for found in sets)
    assert short < long
    releases = flown.releases(LGA)
    assert releases.champion_at(start_of(LAST)) is None
    assert releases.pooled is not None
    assert releases.pooled.champion_at(start_of(LAST)) == flown.releases(POOLED).get("1")


def test_dagster_knows_a_partition_of_each_line_and_the_gate_of_each(flown: Flown) -> None:
    lines = {"(pooled)", "EWR", "JFK", "LGA"}
    assert set(flown.instance.get_dynamic_partitions(f"{SPEC.name}_lines")) == lines
    champion = dg.AssetKey([SPEC.name, "champion"])
    assert flown.instance.get_materialized_partitions(champion) == lines
    check = AssetCheckKey(dg.AssetKey([SPEC.name, "evaluation"]), "enough_rows")
    found = flown.instance.event_log_storage.get_asset_check_partition_info([check])
    statuses = {info.partition_key: info.latest_execution_status.value for info in found}
    assert statuses == {"(pooled)": "SUCCEEDED", "EWR": "SUCCEEDED", "JFK": "SUCCEEDED", "LGA": "SUCCEEDED"}


def test_every_line_has_its_figures_in_the_reports_of_the_day(flown: Flown) -> None:
    for kind in ("performance", "drift"):
        report = json.loads((flown.home / "monitoring" / SPEC.name / kind / f"{LAST}.json").read_text())
        assert set(report) == {"(pooled)", "EWR", "JFK", "LGA"}
    drift = json.loads((flown.home / "monitoring" / SPEC.name / "drift" / f"{LAST}.json").read_text())
    columns = {line: {column["column"] for column in report.get("columns", ())} for line, report in drift.items()}
    assert "prediction" in columns["EWR"]
    # What the pooled model predicts for the rows that are left to it is no sample of what it predicted for all.
    assert "prediction" not in columns["(pooled)"]
    assert columns["LGA"] == set()


def test_the_summary_tells_the_segments(flown: Flown) -> None:
    told = summarize(flown.home, flown.ledger, ["flights"], SPEC.name)["segments"]
    assert {segment: decided["champion"] for segment, decided in told.items()} == {"EWR": "1", "JFK": "1", "LGA": "2"}
    assert [verdict["version"] for verdict in told["LGA"]["inconclusive"]] == ["1"]


def test_a_column_with_too_many_segments_is_told_and_the_largest_are_kept(flown: Flown) -> None:
    few = SPEC.model_copy(update={"segments": SegmentRules(min_labels=900, most=2)})
    labels = labels_of_lines(flown.lake.lake(), SPEC, end_of(LAST))
    assert len(lines_at(flown.lake, SPEC, end_of(LAST), labels)) == 4
    kept = [releases.line for releases in lines_at(flown.lake, few, end_of(LAST), labels)]
    assert kept == [POOLED, EWR, JFK]
    # What serves is watched, however large others have become.
    one = SPEC.model_copy(update={"segments": SegmentRules(min_labels=900, most=1)})
    assert [releases.line for releases in lines_at(flown.lake, one, end_of(LAST), labels)] == [POOLED, EWR, JFK]
    check = _within_limit(few, dg.AssetKey("decision"), labels)
    assert not check.passed
    assert "3 values of origin have 900 labels or more, 2 are allowed" in (check.description or "")
    assert _within_limit(SPEC, dg.AssetKey("decision"), labels).passed
