"""What the pooled storages remember is what Dagster computes from all history."""

import random
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.asset_check_state import AssetCheckState, bulk_update_asset_check_state
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.utils import make_new_run_id

from ct_assets.lib.instance import open_instance
from ct_assets.stores.dagster_sqlite import (
    KEPT_EVALUATIONS,
    OF_NO_USE_AFTER_SUCCESS,
    PooledSqliteEventLogStorage,
)

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-01-07")
OUTCOMES = ("passed", "failed", "raised", "unchecked")


class Outcome(dg.Config):
    """How a run is to end."""

    outcome: str


def checked(name: str, partitions: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
    @dg.asset(name=name, partitions_def=partitions, check_specs=[dg.AssetCheckSpec("holds", asset=name)])
    def asset(config: Outcome) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        if config.outcome == "raised":
            raise ValueError("on purpose")
        yield dg.MaterializeResult(asset_key=name)
        if config.outcome != "unchecked":
            yield dg.AssetCheckResult(asset_key=name, check_name="holds", passed=config.outcome == "passed")

    return asset


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(tmp_path) as instance:
        assert isinstance(instance.event_log_storage, PooledSqliteEventLogStorage)
        yield instance


def statuses(states: dict[dg.AssetCheckKey, AssetCheckState]) -> dict[tuple[str, str], object]:
    return {
        (key.to_user_string(), status.value): subset.value
        for key, state in states.items()
        for status, subset in state.subsets.items()
        if not subset.is_empty
    }


@pytest.mark.parametrize("seed", range(4))
def test_states_of_checks_are_those_computed_from_all_history(instance: dg.DagsterInstance, seed: int) -> None:
    chance = random.Random(seed)
    jobs = {"daily": DAYS, "single": None}
    defs = dg.Definitions(
        [checked(name, partitions) for name, partitions in jobs.items()],
        jobs=[dg.define_asset_job(f"{name}_job", [name]) for name in jobs],
    )
    keys = [
        (dg.AssetCheckKey(dg.AssetKey(name), "holds"), DAYS if partitions else None)
        for name, partitions in jobs.items()
    ]
    waiting: list[dg.DagsterRun] = []
    seen = set()
    for _ in range(25):
        name = chance.choice(list(jobs))
        day = chance.choice(DAYS.get_partition_keys()) if jobs[name] else None
        action = chance.choice([*OUTCOMES, "planned", "canceled", "reported"])
        job = defs.resolve_job_def(f"{name}_job")
        config = {"ops": {name: {"config": {"outcome": action}}}}
        if action in OUTCOMES:
            job.execute_in_process(config, instance, partition_key=day, raise_on_error=False)
        elif action == "planned":
            tags = {"dagster/partition": day} if day else {}
            waiting.append(instance.create_run_for_job(job, run_config=config, tags=tags, asset_selection=None))
        elif action == "canceled" and waiting:
            instance.report_run_canceled(waiting.pop())
        elif action == "reported":
            instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=day))
        if chance.random() < 0.3:  # as between two ticks, more than one thing happens
            continue
        remembered = statuses(instance.event_log_storage.get_asset_check_state(keys))
        from_nothing = bulk_update_asset_check_state(instance, keys, {key: AssetCheckState.empty() for key, _ in keys})
        assert remembered == statuses(from_nothing)
        seen |= {status for _, status in remembered}
    assert len(seen) >= 3


def test_tables_and_columns_are_asked_for_once(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, asked = instance.event_log_storage, []
    column = "_has_asset_key_col_on_connection"
    for name in ("has_table", column):
        dagster = getattr(ConsolidatedSqliteEventLogStorage, name)
        monkeypatch.setattr(
            ConsolidatedSqliteEventLogStorage,
            name,
            lambda *given, ask=dagster: (asked.append(given[-1]), ask(*given))[1],
        )
    storage._known_to_exist.clear()
    for _ in range(2):
        assert storage.has_table("asset_keys")
        assert storage.has_asset_key_col("cached_status_data")
        # What is not there may yet come, with a migration.
        assert not storage.has_table("no_such_table")
    assert asked == ["asset_keys", "cached_status_data", "no_such_table", "no_such_table"]


def kinds_of(instance: dg.DagsterInstance, run_id: str) -> set[str]:
    return {entry.dagster_event.event_type_value for entry in instance.all_logs(run_id) if entry.dagster_event}


def test_a_run_that_succeeded_keeps_its_results_and_times_only(instance: dg.DagsterInstance) -> None:
    job = dg.Definitions([checked("a", DAYS)]).resolve_implicit_global_asset_job_def()
    config = {"ops": {"a": {"config": {"outcome": "passed"}}}}
    run = job.execute_in_process(run_config=config, instance=instance, partition_key="2013-01-02")
    found = kinds_of(instance, run.run_id)
    assert {"ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION", "STEP_START", "STEP_SUCCESS"} <= found
    assert {"PIPELINE_START", "PIPELINE_SUCCESS"} <= found
    assert found.isdisjoint(OF_NO_USE_AFTER_SUCCESS)
    assert instance.get_materialized_partitions(dg.AssetKey("a")) == {"2013-01-02"}
    assert not instance.event_log_storage.get_latest_asset_partition_materialization_attempts_without_materializations(
        dg.AssetKey("a")
    )


def test_a_run_that_failed_keeps_what_another_attempt_needs(instance: dg.DagsterInstance) -> None:
    job = dg.Definitions([checked("a", DAYS)]).resolve_implicit_global_asset_job_def()
    config = {"ops": {"a": {"config": {"outcome": "raised"}}}}
    run = job.execute_in_process(run_config=config, instance=instance, partition_key="2013-01-02", raise_on_error=False)
    assert {"ASSET_MATERIALIZATION_PLANNED", "STEP_FAILURE", "ENGINE_EVENT"} <= kinds_of(instance, run.run_id)
    attempts = instance.event_log_storage.get_latest_asset_partition_materialization_attempts_without_materializations(
        dg.AssetKey("a")
    )
    assert attempts["2013-01-02"][0] == run.run_id


def test_a_log_that_holds_back_keeps_the_same(instance: dg.DagsterInstance) -> None:
    job = dg.Definitions([checked("a", DAYS)]).resolve_implicit_global_asset_job_def()
    log = instance.event_log_storage
    assert isinstance(log, PooledSqliteEventLogStorage)
    for day, outcome in (("2013-01-02", "passed"), ("2013-01-03", "raised")):
        found = []
        for held in (nullcontext, log.holding_back):
            run_id = make_new_run_id()
            with held(run_id):
                job.execute_in_process(
                    run_config={"ops": {"a": {"config": {"outcome": outcome}}}},
                    instance=instance,
                    partition_key=day,
                    raise_on_error=False,
                    run_id=run_id,
                )
            found.append([e.dagster_event.event_type_value for e in instance.all_logs(run_id) if e.dagster_event])
        assert sorted(found[0]) == sorted(found[1])
    # What is stored late comes before the failure that it led to.
    assert found[1].index("ENGINE_EVENT") < found[1].index("STEP_FAILURE")
    assert found[1][-1] == "PIPELINE_FAILURE"


def test_the_newest_evaluations_of_each_condition_are_kept(instance: dg.DagsterInstance) -> None:
    first, second = (
        dg.asset(name=name, automation_condition=dg.AutomationCondition.eager())(lambda: None) for name in "ab"
    )
    storage = instance.schedule_storage
    for number in range(2 * KEPT_EVALUATIONS):
        result = dg.evaluate_automation_conditions(dg.Definitions([first, second]), instance)
        storage.add_auto_materialize_asset_evaluations(
            number, [r.serializable_evaluation.with_run_ids(set()) for r in result.results]
        )
    for name in "ab":
        kept = storage.get_auto_materialize_asset_evaluations(dg.AssetKey(name), limit=100)
        assert sorted(record.evaluation_id for record in kept) == [*range(KEPT_EVALUATIONS, 2 * KEPT_EVALUATIONS)]


def test_the_newest_materialization_alone_says_what_all_have_in_common(instance: dg.DagsterInstance) -> None:
    schema = dg.TableSchema([dg.TableColumn("fare", "double")])

    @dg.asset(partitions_def=DAYS)
    def rows(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"dagster/column_schema": schema, "rows": int(context.partition_key[-1])})

    days = DAYS.get_partition_keys()
    for day in days:
        dg.materialize([rows], instance=instance, partition_key=day)
    records = instance.fetch_materializations(rows.key, limit=100).records
    found = {r.partition_key: dict(r.asset_materialization.metadata) for r in records if r.asset_materialization}
    assert [found[day]["rows"].value for day in days] == [1, 2, 3, 4, 5, 6]
    assert {day for day in days if "dagster/column_schema" in found[day]} == {days[-1]}
    assert found[days[-1]]["dagster/column_schema"].value == schema
