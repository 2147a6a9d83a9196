"""The sensor that lets the alias follow the ledger."""

from pathlib import Path

import dagster as dg
from judged_world import JudgedWorld, spec_of

from ct_assets.lib.reconciliation import reconciliation_sensor
from ct_assets.resources.registry import CHAMPION


def test_an_alias_that_does_not_follow_the_ledger_is_put_back_at_the_next_look(tmp_path: Path) -> None:
    world = JudgedWorld(tmp_path, spec_of("reconciled"))
    sensor = reconciliation_sensor(world.spec)

    def look() -> str:
        resources = {"lake": world.lake, "registry": world.registry}
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(instance, resources=resources) as context,
        ):
            return sensor.evaluate_tick(context).skip_message or ""

    assert look() == "every alias agrees with the ledger"
    assert not (tmp_path / "mlflow").exists()
    world.promoted(10)
    world.promoted(14)
    world.registry.client().set_registered_model_alias(world.line.registered, CHAMPION, "1")
    assert "names version 1, and the ledger version 2" in look()
    assert world.alias() == "2"
    assert look() == "every alias agrees with the ledger"
