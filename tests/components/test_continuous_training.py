"""A model in YAML: the same as in Python, and every mistake told in words."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from pydantic import TypeAdapter

from ct_assets.components import ContinuousTraining
from ct_assets.components.continuous_training import ModelFile
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import TASKS
from ct_assets.definitions import defs
from ct_assets.defs.models import BESIDES_THE_SPEC, load_specs
from ct_assets.defs.models.flight_delay.spec import SPEC
from ct_assets.lib.diagnosis import DefinitionError

CHECKOUT = Path(__file__).parents[2]
FEATURE_SETS = "ct_assets.defs.features.flights.FEATURE_SETS"


def attributes(**changes: Any) -> dict[str, Any]:
    """The flights model as a person would write it in YAML."""
    content = SPEC.model_dump(mode="json", exclude_defaults=True)
    content["label"]["delay"] = "36 hours"
    return content | {"feature_sets": [FEATURE_SETS]} | changes


def without(path: str) -> dict[str, Any]:
    content = attributes()
    *outer, last = path.split(".")
    inner = content
    for name in outer:
        inner = inner[name]
    del inner[last]
    return content


def test_the_flights_in_yaml_are_the_flights_in_python() -> None:
    written = yaml.safe_load(yaml.safe_dump(attributes(), sort_keys=False))
    assert ModelFile.model_validate(written).spec == SPEC
    assert list(ModelFile.model_validate(written).inputs) == SPEC.columns
    component = ContinuousTraining.from_attributes_dict(attributes=written)
    assert component.spec == SPEC
    alone = component.build_defs(dg.ComponentTree.for_test().load_context)
    deployed = defs()
    found = dg.Definitions.merge(alone, dg.Definitions(resources=deployed.resources)).resolve_asset_graph()
    whole = deployed.resolve_asset_graph()
    mine = {key for key in whole.get_all_asset_keys() if key.path[0] == SPEC.name}
    assert mine == {key for key in found.get_all_asset_keys() if key.path[0] == SPEC.name}
    assert not [key for key in found.materializable_asset_keys if key.path[0] == "features"]
    own = ContinuousTraining.from_attributes_dict(
        attributes=attributes(feature_sets=[], own_feature_sets=[FEATURE_SETS])
    ).build_defs(dg.ComponentTree.for_test().load_context)
    views = dg.Definitions.merge(own, dg.Definitions(resources=deployed.resources)).resolve_asset_graph()
    assert len([key for key in views.materializable_asset_keys if key.path[0] == "features"]) == 10
    for key in mine:
        assert found.get(key).parent_keys == whole.get(key).parent_keys
        assert found.get(key).automation_condition == whole.get(key).automation_condition


@pytest.mark.parametrize(
    ("written", "delay"),
    [("36 hours", 36), ("2 days", 48), ("PT36H", 36), ("1 days 12:00:00", 36)],
)
def test_a_duration_is_written_as_people_say_it(written: str, delay: int) -> None:
    label = attributes()["label"] | {"delay": written}
    assert ModelFile.model_validate(attributes(label=label)).label.delay == timedelta(hours=delay)


@pytest.mark.parametrize(
    ("task", "fields", "metric"),
    [
        ("multiclass", {"classes": ["on time", "late", "cancelled"]}, "logloss"),
        ("regression", {"baseline": {"kind": "input", "column": "route_mean_7d"}}, "mae"),
        ("quantile", {"quantiles": [0.1, 0.5, 0.9], "metrics": ["pinball", "coverage"]}, "pinball"),
    ],
)
def test_every_kind_of_task_is_written_in_yaml(task: str, fields: dict[str, Any], metric: str) -> None:
    content = attributes(task=task, **fields)
    if task == "multiclass":
        sql = "SELECT flight_id, if(delay > 15, 'late', 'on time') AS label, known_at FROM flight_outcomes"
        content["label"] = content["label"] | {"sql": sql}
    written = yaml.safe_load(yaml.safe_dump({n: v for n, v in content.items() if n in fields or n != "metrics"}))
    component = ContinuousTraining.from_attributes_dict(attributes=written)
    assert component.spec.task == task
    assert (component.spec.gate.metric, component.spec.policy.performance_metric) == (metric, metric)
    assert component.spec.metrics == tuple(fields.get("metrics", TASKS[task].shown))
    assert component.spec.gate.floor == SPEC.gate.floor
    names = [key.path[1] for key in _keys(component) if key.path[0] == SPEC.name]
    assert {"scored", "performance", "challenger", "evaluation", "champion"} <= set(names)


def _keys(component: ContinuousTraining) -> list[dg.AssetKey]:
    made = component.build_defs(dg.ComponentTree.for_test().load_context)
    return [key for asset in made.assets or () if isinstance(asset, dg.AssetsDefinition) for key in asset.keys]


MISTAKES: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "a misspelt field": (
        lambda: {**without("entities"), "entites": ["origin"]},
        "unknown field 'entites', did you mean 'entities'?",
    ),
    "a misspelt field of the policy": (
        lambda: attributes(policy={"schedule_day": 3}),
        "policy.*unknown field 'schedule_day', did you mean 'schedule_days'?",
    ),
    "a missing field": (lambda: without("label.sql"), "label.sql.*Field required"),
    "an unknown metric": (lambda: attributes(metrics=["acu"]), "unknown metric 'acu', did you mean 'auc'?"),
    "a gate on an unknown metric": (
        lambda: attributes(gate={"metric": "loglos"}),
        "unknown metric 'loglos', did you mean 'logloss'?|has no direction|loglos",
    ),
    "a metric of another task": (
        lambda: attributes(task="regression", gate={"metric": "auc"}, metrics=[]),
        "gate.*unknown metric of a regression task 'auc'.*expected one of mae, r2",
    ),
    "classes that are missing": (
        lambda: attributes(task="multiclass", metrics=[]),
        "classes.*expected at least two names of classes",
    ),
    "a slice that is no input": (lambda: attributes(slices=["carier"]), "slices: unknown input 'carier', did you mean"),
    "an entity that is sent twice": (
        lambda: attributes(request={"origin": "string"}),
        "request: 'origin' is an entity already",
    ),
    "a delay in no unit": (
        lambda: attributes(label=attributes()["label"] | {"delay": "soon"}),
        "'soon' is no duration; expected such as '36 hours'",
    ),
    "two ways to mature": (
        lambda: attributes(label=attributes()["label"] | {"horizon": "30 days"}),
        "delay and horizon given; expected exactly one of delay, horizon and matures_at",
    ),
    "no way to mature": (lambda: without("label.delay"), "none of delay, horizon and matures_at given"),
    "a label of another task for want of one": (
        lambda: attributes(label=attributes()["label"] | {"absent": 2}),
        "absent is 2: 1 of 1 are neither 0 nor 1",
    ),
    "no features": (lambda: without("feature_sets"), "neither feature_sets nor own_feature_sets names any"),
    "no inputs": (lambda: attributes(inputs={}), "inputs.*at least 1"),
    "a name with blanks": (lambda: attributes(name="My Model"), "name.*pattern"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_field_and_the_nearest_name(mistake: str) -> None:
    written, told = MISTAKES[mistake]
    with pytest.raises(ValueError, match=f"(?s){told}"):
        TypeAdapter(ModelFile).validate_python(written())


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("ct_assets.defs.features.flights.FEATURES", "cannot be imported"),
        ("nowhere.FEATURES", "cannot be imported"),
        ("ct_assets.defs.features.flights.LATE_MINUTES", "is a int; expected the import path of a FeatureSet"),
    ],
)
def test_feature_sets_that_are_none_are_told(path: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ContinuousTraining.from_attributes_dict(attributes=attributes(feature_sets=[path]))


def test_specs_in_yaml_are_found_without_dagster(tmp_path: Path) -> None:
    folder = tmp_path / "late"
    folder.mkdir()
    content = {"type": "ct_assets.components.ContinuousTraining", "attributes": attributes(name="late")}
    (folder / "defs.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert load_specs(tmp_path) == {"late": SPEC.model_copy(update={"name": "late"})}
    shutil.copytree(folder, tmp_path / "again")
    assert set(BESIDES_THE_SPEC) == ModelFile.model_fields.keys() - ModelSpec.model_fields.keys()
    with pytest.raises(ValueError, match="two models are called 'late'"):
        load_specs(tmp_path)
    script = "import sys; from ct_assets.defs.models import load_specs; load_specs(); print('dagster' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout.strip() == "False"


def test_a_model_that_can_never_run_is_refused_with_all_of_its_mistakes() -> None:
    label = attributes()["label"] | {"sql": "SELECT flight_id, dealy > 15 AS label, known_at FROM flight_outcomes"}
    inputs = attributes()["inputs"] | {"route_means_7d": "numeric"}
    component = ContinuousTraining.from_attributes_dict(attributes=attributes(label=label, inputs=inputs))
    with pytest.raises(DefinitionError) as error:
        component.build_defs(dg.ComponentTree.for_test().load_context)
    assert str(error.value).splitlines()[0] == "model 'flight_delay' has 2 mistake(s):"
    assert "label.sql: unknown column 'dealy', did you mean 'delay'?" in str(error.value)
    assert "inputs.route_means_7d: unknown input 'route_means_7d', did you mean 'route_mean_7d'?" in str(error.value)


def typed_in(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "CT_HOME": str(folder / ".ct"), "COLUMNS": "200"}
    command = [str(Path(sys.executable).parent / program), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def dg_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return typed_in(folder, "dg", *arguments)


@pytest.mark.parametrize("place", ["models/My-Model", "elsewhere"])
def test_a_model_is_scaffolded_among_the_models_under_a_name_that_python_imports(copy: Path, place: str) -> None:
    done = dg_in(copy, "scaffold", "defs", "ct_assets.components.ContinuousTraining", place)
    assert done.returncode != 0
    assert f"{place.rpartition('/')[2]} is no place for a model; expected models/<name>" in done.stdout + done.stderr
    (copy / "ct_assets" / "defs" / place).rmdir()


def test_a_scaffolded_model_loads_as_it_is_and_dg_checks_what_becomes_of_it(copy: Path) -> None:
    scaffold = ["scaffold", "defs", "ct_assets.components.ContinuousTraining", "models/second"]
    done = dg_in(copy, *scaffold)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = copy / "ct_assets" / "defs" / "models" / "second"
    files = ["__init__.py", "defs.yaml", "feature_views.py", "features.py", "sources.py"]
    assert sorted(path.name for path in folder.iterdir()) == files
    assert ModelFile.model_validate(yaml.safe_load((folder / "defs.yaml").read_text())["attributes"]).name == "second"
    examined = typed_in(copy, "ct", "doctor", "second")
    assert examined.returncode == 0, examined.stdout + examined.stderr
    assert "0 error, 0 warning" in examined.stdout
    for command in (
        ("dg", "check", "defs"),
        ("ruff", "check", str(folder)),
        ("ruff", "format", "--check", str(folder)),
    ):
        done = typed_in(copy, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    for file in files[2:]:
        (folder / file).unlink()
    content = {"type": "ct_assets.components.ContinuousTraining", "attributes": attributes(name="second")}
    (folder / "defs.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    for command in ("yaml", "defs"):
        done = dg_in(copy, "check", command)
        assert done.returncode == 0, done.stdout + done.stderr
    listed = dg_in(copy, "list", "defs", "--json").stdout
    assert "second/champion" in listed
    assert "second_automation" in listed
    (folder / "defs.yaml").write_text(
        yaml.safe_dump(content | {"attributes": attributes(name="second", metric=["auc"])})
    )
    done = dg_in(copy, "check", "defs")
    assert done.returncode != 0
    assert "'metric' was unexpected" in done.stdout + done.stderr
    events = attributes()["events"] | {"source": "flihgts"}
    (folder / "defs.yaml").write_text(
        yaml.safe_dump(content | {"attributes": attributes(name="second", events=events)})
    )
    done = dg_in(copy, "check", "defs")
    assert done.returncode != 0
    assert "unknown source 'flihgts', did you mean 'flights'?" in done.stdout + done.stderr
