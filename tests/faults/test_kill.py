"""`kill -9` at any moment: the end is the one that an undisturbed process reaches."""

import dagster as dg
import pytest
from worlds import Driven

from ct_assets.lib.driver import Driver
from ct_assets.lib.instance import open_instance
from ct_assets.lib.liveness import _lock, dead_runs, fail, is_marked

PARTS = [
    *("decisions", "manifests", "versions", "aliases", "verdicts", "releases", "reports", "files", "training sets"),
    "online",
]


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_process_comes_to_the_same_end(stormy: Driven, calm: Driven, part: str) -> None:
    assert calm.state[part]
    assert stormy.state[part] == calm.state[part]


def test_both_have_the_champion_of_the_last_retraining(calm: Driven, stormy: Driven) -> None:
    assert [driven.state["aliases"] for driven in (calm, stormy)] == [{"challenger": "2", "champion": "2"}] * 2
    kinds = [record["kind"] for record in calm.state["decisions"]]
    assert kinds.count("promotion") == 2
    assert kinds.count("quarantined") == 1


def test_no_run_of_a_dead_process_stays_started(stormy: Driven) -> None:
    with open_instance(stormy.home) as instance:
        runs = instance.get_runs()
    assert {run.status for run in runs} <= {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}


def test_the_run_of_a_living_process_is_left_alone() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(_nothing, status=dg.DagsterRunStatus.STARTED)
        process = _lock(instance, run.run_id)
        assert dead_runs(instance) == []
        process.close()  # as the system does for a dead process
        assert [dead.run_id for dead in dead_runs(instance)] == [run.run_id]
        fail(instance, run)
        assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
        assert dead_runs(instance) == []
        assert not is_marked(instance, run.run_id)


def test_what_a_dead_process_was_making_is_made_first(tmp_path) -> None:
    """A run can die between an asset and its check, and no condition asks for the check of an asset that is there."""

    @dg.asset(check_specs=[dg.AssetCheckSpec("good", asset="lonely")])
    def lonely() -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="good", passed=True)])

    sensor = dg.AutomationConditionSensorDefinition("automation", target=dg.AssetSelection.all())
    location = dg.Definitions(assets=[lonely], sensors=[sensor])
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(
            location.resolve_implicit_global_asset_job_def(),
            tags={"dagster/sensor_name": "automation"},
            asset_selection=frozenset({lonely.key}),
            status=dg.DagsterRunStatus.STARTED,
        )
        _lock(instance, run.run_id).close()
        Driver(location, instance, tmp_path)  # dies before it has made anything
        driver = Driver(location, instance, tmp_path)
        assert [run.assets for run in driver.settle()] == [(lonely.key,)]
        assert driver.settle() == []


@dg.job
def _nothing() -> None:
    """A job to make runs of."""
