"""Work that was asked for and not done, for other reasons than bad data, is asked for again.

Conditions count a request as done, whatever became of its run. A process that was killed, a full disk or a database
that did not answer would otherwise leave a day unfinished for good. Dagster's own run retries know no waiting time, do
not retry what failed in a step, and drop a retry for which the code server does not answer at that moment.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES, RunRecord
from dagster._utils.error import SerializableErrorInfo

from ct_assets.lib.automation import DAEMON_ONLY, LANE, SENSOR_TAG
from ct_assets.lib.liveness import dead_runs, fail, in_process_alive, is_marked

RECOVERY = "recovery"
"""Name of the sensor."""
REQUESTED_BY = "ct/requested_by"
"""Tag of a run that is another attempt: the sensor that asked for the first one."""
ATTEMPT = "ct/attempt"
"""Tag of a run that is another attempt: its number; the first one has none."""
LAUNCH = "ct/launch"
"""Tag of a run whose attempt was launched before and never started: how often it has been launched by now."""
RUNS = dg.AssetKey(["platform", "runs"])
"""External asset that stands for the runs that automation asks for."""
NOTHING_GIVEN_UP = "nothing_given_up"

FAILS_OFTEN = 5
"""Number of failures from which on the check warns of a run that is asked for again."""
UNMARKED_SECONDS = 300.0
"""Age at which a started run has to be marked by its process."""

_PARTITION = "dagster/partition"
_AUTOMATED = (SENSOR_TAG, "dagster/schedule_name")
_OF_CONTENT = {"ArrowInvalid", "JSONDecodeError", "UnicodeDecodeError"}
"""Names of `ValueError`s that a torn file or the answer of a broken service raises as well: they are tried again."""
_FIRST_LOOK = timedelta(days=7)
_OVERLAP = timedelta(minutes=1)
"""Runs are written by other processes: one that ended earlier may be seen later."""


@dataclass(frozen=True)
class Retries:
    """How often, and after which time, failed work is asked for again.

    Attributes:
        attempts: Attempts in total, the first one included. By default they last for half a day: an outage at night
            is over by then, and what fails of itself has cost little.
        seconds: Wait after the first failure; it doubles with each further one.
        longest: The longest wait, in seconds.
    """

    attempts: int = 20
    seconds: float = 30.0
    longest: float = 3600.0

    def wait(self, attempt: int) -> float:
        """Seconds between the failure of an attempt, counted from 1, and the next one."""
        return min(self.seconds * 2 ** (attempt - 1), self.longest)


def are_about_data(failures: Sequence[dg.DagsterEvent]) -> bool:
    """Whether a run failed because of the values at hand, so that another attempt would fail of them again.

    Args:
        failures: The failures of the run's steps; a run whose process died failed in none.
    """
    return bool(failures) and all(_is_about_data(event.step_failure_data.error) for event in failures)


def _is_about_data(error: SerializableErrorInfo | None) -> bool:
    """A blocking check that failed, or a `ValueError`, which this project raises for bad input.

    Of an error, Dagster stores the name of its class.
    """
    while error is not None:
        if error.cls_name == "DagsterAssetCheckFailedError" or error.cls_name in _names(ValueError) - _OF_CONTENT:
            return True
        error = error.cause
    return False


def build_recovery(owner: str, retries: Retries | None = None, minimum_interval_seconds: int = 10) -> dg.Definitions:
    """The sensor that asks again for unfinished work, and the check that shows what was given up.

    Args:
        owner: Who looks after what was given up.
        retries: How often and when; the defaults of `Retries` when None.
        minimum_interval_seconds: Time between two looks.
    """
    chosen = retries or Retries()

    @dg.sensor(
        name=RECOVERY,
        # Not `target`: that would make one job of all assets, whose partitions differ.
        asset_selection=dg.AssetSelection.all(),
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks again for what failed for other reasons than bad data, or whose process died.",
        tags=DAEMON_ONLY,
    )
    def recovery(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        for run in [*dead_runs(context.instance), *_unmarked(context)]:
            context.log.warning(f"the process of run {run.run_id} died")
            fail(context.instance, run)
        look = _Look(context.instance, chosen, context.cursor)
        for run_id in sorted(look.given_up - look.given_up_before):
            context.log.error(f"run {run_id} has failed {chosen.attempts} times and is not asked for again")
        return dg.SensorResult(run_requests=look.requests, cursor=look.cursor, asset_events=look.news)

    runs = dg.AssetSpec(
        RUNS,
        description="The runs that automation asks for.",
        group_name=RUNS.path[0],
        owners=[owner],
        kinds={"dagster"},
    )

    @dg.asset_check(asset=RUNS, name=NOTHING_GIVEN_UP, description="No requested work has failed too often.")
    def nothing_given_up(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(**_Look(context.instance, chosen, None, first_look=None).outcome)

    return dg.Definitions(assets=[runs], asset_checks=[nothing_given_up], sensors=[recovery])


def _unmarked(context: dg.SensorEvaluationContext) -> list[dg.DagsterRun]:
    """Automated runs that died in the moment between their start and their mark, together with their code server."""
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    repository, late = context.repository_def, datetime.now(UTC).timestamp() - UNMARKED_SECONDS
    found = []
    for record in context.instance.get_run_records(started):
        run = record.dagster_run
        if not _is_automated(run) or is_marked(context.instance, run.run_id) or (record.start_time or late) >= late:
            continue
        job = repository.get_implicit_job_def_for_assets(run.asset_selection or ()) if repository else None
        if job is not None and job.executor_def is in_process_alive:
            found.append(run)
    return found


class _Look:
    """What has failed by now and is still not done.

    Args:
        instance: Dagster's instance.
        retries: How often and when to ask again.
        cursor: What the look before knew; None for the first one.
        first_look: How far back the first one looks; None for all that is on record.

    Attributes:
        requests: What to ask for now.
        given_up: Runs that were the last attempt.
        given_up_before: The same at the look before.
        often: Runs of work that has failed often and is asked for again.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        retries: Retries,
        cursor: str | None,
        first_look: timedelta | None = _FIRST_LOOK,
    ) -> None:
        known: dict[str, Any] = json.loads(cursor or "{}")
        now = datetime.now(UTC)
        self.instance = instance
        self.retries = retries
        self.given_up_before = set(known.get("given_up", ()))
        self.given_up: set[str] = set()
        self._often_before = set(known.get("often", ()))
        self.often: set[str] = set()
        self.requests: list[dg.RunRequest] = []
        self._waiting: list[str] = []
        first = datetime.fromtimestamp(0, UTC) + _OVERLAP if first_look is None else now - first_look
        after = datetime.fromisoformat(known["after"]) if "after" in known else first
        failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=after - _OVERLAP)
        records = {record.dagster_run.run_id: record for record in instance.get_run_records(failed)}
        if missing := list({*known.get("waiting", ()), *self.given_up_before} - records.keys()):
            records |= {r.dagster_run.run_id: r for r in instance.get_run_records(dg.RunsFilter(run_ids=missing))}
        # The newest first: an older one may have to wait for what is asked for again of a newer one.
        for record in sorted(records.values(), key=lambda record: record.storage_id, reverse=True):
            self._look_at(record, now)
        # While the next attempt is under way, it is no better.
        under_way = instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES))
        self.often |= {run.run_id for run in under_way if _tries(run) > FAILS_OFTEN}
        self._after = max([after, *(record.update_timestamp for record in records.values())])

    def _look_at(self, record: RunRecord, now: datetime) -> None:
        run = record.dagster_run
        if not _is_automated(run):
            return
        later = [other for other in self._later(record) if not _is_in_vain(other)]
        undone = set(run.asset_selection or ()).difference(*(other.asset_selection or () for other in later))
        if not undone or _failed_on_data(self.instance, run):
            return
        attempt, launches = int(run.tags.get(ATTEMPT, "1")), int(run.tags.get(LAUNCH, "1"))
        # A launcher that does not answer is asked until it does: what never started is no attempt at the work.
        started = record.start_time is not None
        if attempt >= self.retries.attempts and started:
            self.given_up.add(run.run_id)
            return
        self._waiting.append(run.run_id)
        if _tries(run) >= FAILS_OFTEN:
            self.often.add(run.run_id)
        if any(self._makes(other, set(run.asset_selection or ()) - undone) for other in later):
            return  # what is left may depend on what that run makes
        if now.timestamp() >= (record.end_time or now.timestamp()) + self.retries.wait(
            attempt if started else launches
        ):
            self.requests.append(
                dg.RunRequest(
                    run_key=run.run_id,
                    asset_selection=sorted(undone),
                    partition_key=run.tags.get(_PARTITION),
                    run_config=run.run_config,
                    tags={
                        ATTEMPT: str(attempt + 1 if started else attempt),
                        LAUNCH: str(1 if started else launches + 1),
                        REQUESTED_BY: requested_by(run) or "",
                        **({LANE: run.tags[LANE]} if LANE in run.tags else {}),
                    },
                )
            )

    def _later(self, record: RunRecord) -> list[dg.DagsterRun]:
        """The later runs of the same partition."""
        partition = record.dagster_run.tags.get(_PARTITION)
        tags = {} if partition is None else {_PARTITION: partition}
        found = self.instance.get_run_records(
            dg.RunsFilter(tags=tags, created_after=record.create_timestamp - _OVERLAP)
        )
        runs = [other.dagster_run for other in found if other.storage_id > record.storage_id]
        return [run for run in runs if run.tags.get(_PARTITION) == partition]

    def _makes(self, run: dg.DagsterRun, assets: set[dg.AssetKey]) -> bool:
        """Whether a run is to make some of these assets, now or at another attempt."""
        return (not run.is_finished or run.run_id in self._waiting) and bool(assets & set(run.asset_selection or ()))

    @property
    def cursor(self) -> str:
        """What the next look has to know."""
        runs = {"waiting": self._waiting, "given_up": sorted(self.given_up), "often": sorted(self.often)}
        return json.dumps({"after": self._after.isoformat(), **runs})

    @property
    def news(self) -> list[dg.AssetCheckEvaluation]:
        """The outcome of the check, where it has changed."""
        if (self.given_up, self.often) == (self.given_up_before, self._often_before):
            return []
        return [dg.AssetCheckEvaluation(RUNS, NOTHING_GIVEN_UP, **self.outcome)]

    @property
    def outcome(self) -> dict[str, Any]:
        """What the check says: it fails for what was given up, and warns of what has failed often."""
        next_attempt = ", and execute them again." if self.given_up else "; they are asked for again by themselves."
        passed = not self.given_up and not self.often
        return {
            "passed": passed,
            "severity": dg.AssetCheckSeverity.ERROR if self.given_up or passed else dg.AssetCheckSeverity.WARN,
            "description": None if passed else f"Find out why these runs fail{next_attempt}",
            "metadata": {"given_up": _listed(self.given_up), "failed_often": _listed(self.often)},
        }


def requested_by(run: dg.DagsterRun) -> str | None:
    """The sensor that asked for a run, or for the first attempt of it; None for a run by hand or of a schedule."""
    return run.tags.get(REQUESTED_BY) or run.tags.get(SENSOR_TAG)


def _tries(run: dg.DagsterRun) -> int:
    """The number of the attempt, or of the launch within it, whichever is larger."""
    return max(int(run.tags.get(tag, "1")) for tag in (ATTEMPT, LAUNCH))


def _is_automated(run: dg.DagsterRun) -> bool:
    return bool(run.asset_selection) and any(tag in run.tags for tag in _AUTOMATED)


def _is_in_vain(run: dg.DagsterRun) -> bool:
    """Whether a run by hand failed: nobody asks for that one again."""
    return not _is_automated(run) and run.is_failure_or_canceled


def _failed_on_data(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return are_about_data([entry.dagster_event for entry in entries if entry.dagster_event])


def _listed(run_ids: Collection[str]) -> dg.MetadataValue:
    return dg.MetadataValue.md("\n".join(f"- run `{run_id}`" for run_id in sorted(run_ids)))


def _names(kind: type[Exception]) -> set[str]:
    """The names of a class and of all classes of it that are loaded."""
    return {kind.__name__}.union(*map(_names, kind.__subclasses__()))
