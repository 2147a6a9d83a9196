"""The definitions as a whole: they load, they are complete, and the platform knows nothing of flights."""

import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from ct_assets.definitions import defs
from ct_assets.defs.models import load_sources, load_specs
from ct_assets.lib.liveness import in_process_alive
from ct_assets.resources.feast import definitions as feast_objects

ROOT = Path(__file__).parents[1]
PLATFORM = ("core", "lake", "lib", "stores", "resources", "serving", "components")


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return defs()


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> list[dg.AssetSpec]:
    return list(definitions.resolve_all_asset_specs())


def test_the_entry_point_is_short() -> None:
    assert len((ROOT / "ct_assets" / "definitions.py").read_text().splitlines()) < 40


def test_everything_is_defined(specs: list[dg.AssetSpec]) -> None:
    names = {spec.key.to_user_string() for spec in specs}
    sources = {source.name for source in load_sources()}
    assert {"flights", "flight_outcomes", "weather", "planes", "airports", "orders", "meter"} <= sources
    assert sources | {f"landing/{source}" for source in sources} <= names
    assert {"flight_delay", "repurchase", "household_power"} <= load_specs().keys()
    made = ("scored", "performance", "drift_report", "retrain_decision", "training_set", "challenger", "evaluation")
    assert {f"{model}/{name}" for model in load_specs() for name in (*made, "champion")} <= names


def test_every_view_that_feast_reads_from_the_lake_is_an_asset(specs: list[dg.AssetSpec]) -> None:
    views = {f"features/{each.name}" for each in feast_objects() if type(each).__name__ == "FeatureView"}
    assert len(views) >= 13
    assert {name for spec in specs if (name := spec.key.to_user_string()).startswith("features/")} == views


def test_every_asset_says_what_it_is_whose_it_is_and_where_it_belongs(specs: list[dg.AssetSpec]) -> None:
    lacking = {
        spec.key.to_user_string(): [f for f in ("group_name", "owners", "kinds", "description") if not getattr(spec, f)]
        for spec in specs
    }
    assert {name: fields for name, fields in lacking.items() if fields} == {}
    domains = {source.domain.name for source in load_sources()}
    assert {"flights", "shop", "power"} <= domains
    assert {spec.group_name for spec in specs} == domains | load_specs().keys() | {"platform"}


def test_every_condition_can_be_evaluated_by_the_daemon(specs: list[dg.AssetSpec]) -> None:
    conditions = {s.key.to_user_string(): s.automation_condition for s in specs if s.automation_condition}
    assert len(conditions) >= 10
    assert [name for name, condition in conditions.items() if not condition.is_serializable] == []


def test_each_conditioned_asset_has_exactly_one_running_sensor(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    sensors = [s for s in repository.sensor_defs if isinstance(s, dg.AutomationConditionSensorDefinition)]
    assert {s.default_status for s in repository.sensor_defs} == {dg.DefaultSensorStatus.RUNNING}
    for key in graph.get_all_asset_keys():
        if graph.get(key).automation_condition:
            assert sum(key in s.asset_selection.resolve(graph) for s in sensors) == 1, key


def test_checks_have_the_partitions_of_their_asset(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    blocking = [k for k in graph.asset_check_keys if graph.get_check_spec(k).blocking]
    assert {k.asset_key.to_user_string() for k in blocking} == {source.name for source in load_sources()}
    for key in blocking:
        assert graph.get_check_spec(key).partitions_def == graph.get(key.asset_key).partitions_def


def test_steps_run_in_the_process_of_their_run(definitions: dg.Definitions) -> None:
    assert definitions.executor is in_process_alive

    assert definitions.resolve_implicit_global_asset_job_def().executor_def is in_process_alive


def test_every_resource_finds_the_home_of_the_environment(
    definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path))
    resources = definitions.resources or {}
    assert set(resources) == {"duckdb", "lake", "feast", "registry"}
    assert resources["lake"].path == tmp_path
    assert resources["feast"].path == tmp_path
    assert str(tmp_path) in resources["registry"].uri


@pytest.mark.parametrize(
    "command", [("dg", "check", "defs"), ("dagster", "definitions", "validate")], ids=lambda command: command[0]
)
def test_dagster_s_own_check_passes(command: tuple[str, ...], tmp_path: Path) -> None:
    environment = {
        "CT_HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_loading_imports_no_library_that_only_steps_use(tmp_path: Path) -> None:
    code = (
        "import sys; from ct_assets.definitions import defs; defs().get_repository_def(); "
        "print(*{'feast', 'mlflow', 'sklearn', 'scipy', 'matplotlib', 'fastapi', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"CT_HOME": str(tmp_path), "HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    assert done.stdout.split() == []


def test_the_platform_knows_nothing_of_flights() -> None:
    told = []
    for folder in PLATFORM:
        for path in sorted((ROOT / "ct_assets" / folder).rglob("*.*")):
            if path.suffix in (".py", ".html", ".j2", ".sql", ".yaml"):
                lines = enumerate(path.read_text().splitlines(), 1)
                told += [f"{path.relative_to(ROOT)}:{n}: {line.strip()}" for n, line in lines if _about_flights(line)]
    assert told == []


def _about_flights(line: str) -> bool:
    return re.search(r"flight|airport|airline|aircraft|nycflights", line, re.IGNORECASE) is not None
