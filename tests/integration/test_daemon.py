"""The daemon itself, with a process for each run: from files that land to a champion, and on from there."""

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_spec import AssetCheckKey
from real_daemon import MODEL, Daemon, alias_of, made_by, running
from small_days import day_of, files_of, resent, with_another_climate, without_column

from ct_assets.core.ledger import Record
from ct_assets.feeds import feed_wave
from ct_assets.feeds.nycflights import NycFlights

OUTCOMES = ("training", "verdict", "promotion")
SOURCES = ("flights", "flight_outcomes", "weather")
FOURTH = day_of(3)


@dataclass
class Story:
    """What was seen at each stage; `at_rest` after the broken file, `retrained` at the end."""

    daemon: Daemon
    first_champion: str | None = None
    first_decisions: list[Record] = field(default_factory=list)
    broken: list[dg.DagsterRun] = field(default_factory=list)
    quarantined: list[Path] = field(default_factory=list)
    resent_at: float = 0.0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("home")
    feed = NycFlights()
    for number in range(3):
        feed_wave(files_of(feed, number), str(home))
    with running(home) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def story(daemon: Daemon) -> Story:
    """Three landed days; a fourth whose weather is broken; and its resent weather, unlike any before."""
    story = Story(daemon)
    daemon.wait("a first champion", lambda: daemon.champion() and daemon.rests())
    story.first_champion, story.first_decisions = daemon.champion(), daemon.ledger.records(model=MODEL)

    fourth = files_of(NycFlights(), 3)
    feed_wave(without_column(fourth, "weather", "temp"), str(daemon.home))
    daemon.wait("a failed run of the weather", lambda: _failed_on_weather(daemon.runs(dagster__partition=FOURTH)))
    seen = daemon.ticks("flight_delay_automation")
    daemon.wait("two more looks", lambda: daemon.ticks("flight_delay_automation") >= seen + 2 and daemon.rests())
    story.broken = daemon.runs(dagster__partition=FOURTH)
    story.quarantined = sorted((daemon.home / "quarantine" / "weather" / FOURTH).iterdir())

    story.resent_at = time.time()
    feed_wave(resent(with_another_climate(fourth), "weather"), str(daemon.home))
    daemon.wait("a second verdict", lambda: len(daemon.ledger.records("verdict", MODEL)) > 1 and daemon.rests())
    return story


def _failed_on_weather(runs: list[dg.DagsterRun]) -> list[dg.DagsterRun]:
    return [run for run in runs if run.status is dg.DagsterRunStatus.FAILURE and "weather" in made_by(run)]


def test_a_landed_backlog_leads_to_a_champion(story: Story) -> None:
    assert story.first_champion == "1"
    by_kind = {kind: [r for r in story.first_decisions if r.kind == kind] for kind in ("retrain", *OUTCOMES)}
    decisions = [r for r in story.first_decisions if r.kind not in OUTCOMES]
    # A tick that falls on the end of a run may let one day overtake another. The newest is then decided once more, at
    # any moment: a record of that may come between the training and its promotion.
    assert len({decision.as_of for decision in decisions}) == 3
    assert {kind: len(by_kind[kind]) for kind in OUTCOMES} == dict.fromkeys(OUTCOMES, 1)
    (training,), (verdict,), (promotion,) = (by_kind[kind] for kind in OUTCOMES)
    assert training.seq < verdict.seq < promotion.seq
    (retrain,) = by_kind["retrain"]
    assert retrain.as_of == max(decision.as_of for decision in decisions) == training.as_of
    assert retrain.evidence["decision"]["triggers"] == ["bootstrap"]
    release = json.loads((story.daemon.home / "releases" / MODEL / "1.json").read_text())
    assert release["verdict"] == verdict.evidence["verdict"]


def test_the_chain_of_decisions_holds(story: Story) -> None:
    assert story.daemon.ledger.verify() == len(story.daemon.ledger.records()) > 8


def test_every_run_was_launched_by_a_sensor(story: Story) -> None:
    sensors = {run.tags.get("dagster/sensor_name") for run in story.daemon.runs()}
    assert sensors == {"flights_ingestion", "flight_delay_automation"}


def test_runs_of_one_lane_go_one_after_the_other(story: Story) -> None:
    for lane in ("flights_ingestion", "flight_delay_automation"):
        ids = [run.run_id for run in story.daemon.runs(ct__lane=lane)]
        found = [story.daemon.instance.get_run_record_by_id(run_id) for run_id in ids]
        # The daemon goes on: what it has begun since the end of the story has no end yet.
        records = sorted((record for record in found if record.end_time), key=lambda record: record.start_time)
        assert all(a.end_time <= b.start_time for a, b in itertools.pairwise(records))


def test_the_contracts_of_all_sources_are_green_in_the_end(story: Story) -> None:
    keys = [AssetCheckKey(dg.AssetKey(source), "contract") for source in SOURCES]
    found = story.daemon.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    assert {key.asset_key.to_user_string(): found[key].status.value for key in keys} == dict.fromkeys(
        SOURCES, "SUCCEEDED"
    )


def test_a_broken_file_fails_its_run_and_lies_in_quarantine(story: Story) -> None:
    # The files of a day may be seen by two ticks, and then the first run takes in those that are not broken.
    assert len(_failed_on_weather(story.broken)) == 1
    note = json.loads(next(p for p in story.quarantined if p.suffix == ".json").read_text())
    assert len(story.quarantined) == 2
    assert "column(s) temp missing" in note["reasons"][0]


def test_nothing_downstream_is_requested_until_the_file_is_sent_again(story: Story) -> None:
    assert not any(key.startswith(f"{MODEL}/") for run in story.broken for key in made_by(run))
    made = dg.AssetRecordsFilter(asset_key=dg.AssetKey(["features", "weather"]), asset_partitions=[FOURTH])
    events = story.daemon.instance.fetch_materializations(made, limit=10).records
    # A tick that falls on the end of a run may see neither the run nor its result, and ask once more: at least one.
    assert events
    assert all(event.timestamp > story.resent_at for event in events)
    scored = [run for run in story.daemon.runs(dagster__partition=FOURTH) if f"{MODEL}/scored" in made_by(run)]
    assert scored
    created = [story.daemon.instance.get_run_record_by_id(run.run_id).create_timestamp for run in scored]
    assert all(moment.timestamp() > story.resent_at for moment in created)


def test_weather_as_never_seen_makes_a_retraining(story: Story) -> None:
    decision = story.daemon.ledger.records("retrain", MODEL)[-1]
    assert decision.evidence["decision"]["triggers"] == ["drift"]
    shifted = {"temperature", "wind_direction", "wind_speed", "precipitation", "visibility"}
    assert shifted <= set(decision.evidence["evidence"]["drifted_columns"])
    training, verdict = (story.daemon.ledger.records(kind, MODEL)[-1] for kind in ("training", "verdict"))
    assert training.as_of == verdict.as_of == decision.as_of
    assert training.evidence["version"] == verdict.evidence["version"] == "2"
    assert alias_of(story.daemon.home, "challenger") == "2"


def test_all_daemons_are_well(story: Story) -> None:
    beats = story.daemon.instance.get_daemon_heartbeats()
    assert {"SENSOR", "ASSET", "QUEUED_RUN_COORDINATOR", "MONITORING", "FRESHNESS_DAEMON"} <= set(beats)
    assert {name: beat.errors for name, beat in beats.items() if beat.errors} == {}


def test_a_source_that_arrived_is_fresh(story: Story) -> None:
    keys = [dg.AssetKey(source) for source in SOURCES]
    story.daemon.wait("a look at freshness", lambda: len(story.daemon.instance.get_freshness_state_records(keys)) == 3)
    states = story.daemon.instance.get_freshness_state_records(keys)
    assert {record.freshness_state.value for record in states.values()} == {"PASS"}
