"""The daemon itself, with a process for each run: from files that land to a champion, and on from there."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.asset_checks.asset_check_spec import AssetCheckKey
from mlflow import MlflowClient
from small_days import day_of, files_of, resent, with_another_climate, without_column

from ct_assets.core.ledger import Ledger, Record
from ct_assets.feeds import feed_wave
from ct_assets.feeds.nycflights import NycFlights
from ct_assets.lib.instance import write_dagster_home

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
MODEL = "flight_delay"
SOURCES = ("flights", "flight_outcomes", "weather")
FOURTH = day_of(3)
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


@dataclass
class Daemon:
    """A home, its Dagster instance, and the daemon that works on them."""

    home: Path
    instance: dg.DagsterInstance
    process: subprocess.Popen
    log: Path
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.home / "ledger" / "decisions.jsonl")

    def wait(self, what: str, happened: Callable[[], Any], within: float = 300) -> None:
        """Look until something has happened."""
        deadline = time.monotonic() + within
        while not happened():
            if self.process.poll() is not None or time.monotonic() > deadline:
                runs = [(r.status.value, r.tags.get("dagster/partition"), _made(r)) for r in self.runs()]
                pytest.fail(f"{what} did not happen within {within} s; runs: {runs}\n{self.log.read_text()[-4000:]}")
            time.sleep(0.25)

    def runs(self, **tags: str) -> list[dg.DagsterRun]:
        """Runs with these tags, oldest first."""
        return self.instance.get_runs(dg.RunsFilter(tags={k.replace("__", "/"): v for k, v in tags.items()}))[::-1]

    def rests(self) -> bool:
        """No run is waiting or under way."""
        return not self.instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))

    def ticks(self, sensor: str) -> int:
        """How often a sensor was looked at."""
        (state,) = (s for s in self.instance.all_instigator_state() if s.instigator_name == sensor)
        return len(self.instance.get_ticks(state.instigator_origin_id, state.selector_id))

    def champion(self) -> str | None:
        """The version that the alias points to."""
        return _alias(self.home, "champion")


@dataclass
class Story:
    """What was seen at each stage; `at_rest` after the broken file, `retrained` at the end."""

    daemon: Daemon
    first_champion: str | None = None
    first_decisions: list[Record] = field(default_factory=list)
    broken: list[dg.DagsterRun] = field(default_factory=list)
    quarantined: list[Path] = field(default_factory=list)
    resent_at: float = 0.0


def _alias(home: Path, alias: str) -> str | None:
    if not (home / "mlflow" / "mlflow.db").exists():
        return None
    model = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db").search_registered_models(f"name='{MODEL}'")
    return str(model[0].aliases[alias]) if model and alias in model[0].aliases else None


def _made(run: dg.DagsterRun) -> list[str]:
    return sorted(key.to_user_string() for key in run.asset_selection or ())


def _dagster_home(home: Path) -> Path:
    """The DAGSTER_HOME that `ct dev` makes, with a queue that does not wait."""
    folder = write_dagster_home(home)
    settings = yaml.safe_load((folder / "dagster.yaml").read_text()) | {"run_queue": {"dequeue_interval_seconds": 1}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("home")
    dagster_home, log = _dagster_home(home), home / "daemon.log"
    feed = NycFlights()
    for number in range(3):
        feed_wave(files_of(feed, number), str(home))
    environment = {
        **os.environ,
        "CT_HOME": str(home),
        "DAGSTER_HOME": str(dagster_home),
        "FRESHNESS_DAEMON_INTERVAL_SECONDS": "5",
        "PYTHONWARNINGS": "ignore",
    }
    arguments = [str(HERE / "impatient_daemon.py"), "run", "-f", str(HERE / "small_location.py"), "-d", str(CHECKOUT)]
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=CHECKOUT,
        start_new_session=True,
    )
    try:
        with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
            yield Daemon(home, instance, process, log)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def story(daemon: Daemon) -> Story:
    """Three landed days; a fourth whose weather is broken; and its resent weather, unlike any before."""
    story = Story(daemon)
    daemon.wait("a first champion", lambda: daemon.champion() and daemon.rests())
    story.first_champion, story.first_decisions = daemon.champion(), daemon.ledger.records(model=MODEL)

    fourth = files_of(NycFlights(), 3)
    feed_wave(without_column(fourth, "weather", "temp"), str(daemon.home))
    daemon.wait("a failed run", lambda: [r for r in daemon.runs() if r.is_failure_or_canceled])
    seen = daemon.ticks("flight_delay_automation")
    daemon.wait("two more looks", lambda: daemon.ticks("flight_delay_automation") >= seen + 2 and daemon.rests())
    story.broken = daemon.runs(dagster__partition=FOURTH)
    story.quarantined = sorted((daemon.home / "quarantine" / "weather" / FOURTH).iterdir())

    story.resent_at = time.time()
    feed_wave(resent(with_another_climate(fourth), "weather"), str(daemon.home))
    daemon.wait("a second verdict", lambda: len(daemon.ledger.records("verdict", MODEL)) > 1 and daemon.rests())
    return story


def test_a_landed_backlog_leads_to_a_champion(story: Story) -> None:
    *decisions, training, verdict, promotion = story.first_decisions
    assert story.first_champion == "1"
    assert [training.kind, verdict.kind, promotion.kind] == ["training", "verdict", "promotion"]
    # A tick that falls on the end of a run may let one day overtake another; the newest is then decided once more.
    assert len({decision.as_of for decision in decisions}) == 3
    newest = max(decisions, key=lambda decision: (decision.as_of, decision.seq))
    assert [d for d in decisions if d.kind == "retrain"] == [newest]
    assert newest.evidence["decision"]["triggers"] == ["bootstrap"]
    assert training.as_of == newest.as_of
    release = json.loads((story.daemon.home / "releases" / MODEL / "1.json").read_text())
    assert release["verdict"] == verdict.evidence["verdict"]


def test_the_chain_of_decisions_holds(story: Story) -> None:
    assert story.daemon.ledger.verify() == len(story.daemon.ledger.records()) > 8


def test_every_run_was_launched_by_a_sensor(story: Story) -> None:
    sensors = {run.tags.get("dagster/sensor_name") for run in story.daemon.runs()}
    assert sensors == {"flights_automation", "flight_delay_automation"}


def test_runs_of_one_lane_go_one_after_the_other(story: Story) -> None:
    for lane in ("flights_automation", "flight_delay_automation"):
        ids = [run.run_id for run in story.daemon.runs(ct__lane=lane)]
        records = sorted((story.daemon.instance.get_run_record_by_id(i) for i in ids), key=lambda r: r.start_time)
        assert all(a.end_time <= b.start_time for a, b in itertools.pairwise(records))


def test_the_contracts_of_all_sources_are_green_in_the_end(story: Story) -> None:
    keys = [AssetCheckKey(dg.AssetKey(source), "contract") for source in SOURCES]
    found = story.daemon.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    assert {key.asset_key.to_user_string(): found[key].status.value for key in keys} == dict.fromkeys(
        SOURCES, "SUCCEEDED"
    )


def test_a_broken_file_fails_its_run_and_lies_in_quarantine(story: Story) -> None:
    assert story.broken[0].status is dg.DagsterRunStatus.FAILURE
    note = json.loads(next(p for p in story.quarantined if p.suffix == ".json").read_text())
    assert len(story.quarantined) == 2
    assert "column(s) temp missing" in note["reasons"][0]


def test_nothing_downstream_is_requested_until_the_file_is_sent_again(story: Story) -> None:
    assert not any(key.startswith(f"{MODEL}/") for run in story.broken for key in _made(run))
    made = dg.AssetRecordsFilter(asset_key=dg.AssetKey(["features", "weather"]), asset_partitions=[FOURTH])
    events = story.daemon.instance.fetch_materializations(made, limit=10).records
    # A tick that falls on the end of a run may see neither the run nor its result, and ask once more: at least one.
    assert events
    assert all(event.timestamp > story.resent_at for event in events)
    scored = [run for run in story.daemon.runs(dagster__partition=FOURTH) if f"{MODEL}/scored" in _made(run)]
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
    assert _alias(story.daemon.home, "challenger") == "2"


def test_all_daemons_are_well(story: Story) -> None:
    beats = story.daemon.instance.get_daemon_heartbeats()
    assert {"SENSOR", "ASSET", "QUEUED_RUN_COORDINATOR", "MONITORING", "FRESHNESS_DAEMON"} <= set(beats)
    assert {name: beat.errors for name, beat in beats.items() if beat.errors} == {}


def test_a_source_that_arrived_is_fresh(story: Story) -> None:
    keys = [dg.AssetKey(source) for source in SOURCES]
    story.daemon.wait(
        "a look at freshness", lambda: len(story.daemon.instance.get_freshness_state_records(keys)) == 3, 30
    )
    states = story.daemon.instance.get_freshness_state_records(keys)
    assert {record.freshness_state.value for record in states.values()} == {"PASS"}
