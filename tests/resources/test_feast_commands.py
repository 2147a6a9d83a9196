"""Feast's own commands see every model's views, with and without `CT_HOME`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ct_assets.defs.models import load_specs
from ct_assets.resources.feast import CHECKOUT

FEAST = Path(sys.executable).with_name("feast")
WITHOUT_VARIABLE = """
import pathlib, sys
import ct_assets.stores.home as home
home.default_home = lambda: pathlib.Path(sys.argv[1])
from feast import FeatureStore
store = FeatureStore("feature_repo")
print(*sorted(service.name for service in store.list_feature_services()))
print(store.get_online_features(["weather:temperature"], [{"origin": "JFK"}]).to_dict()["temperature"])
"""


def call(*command: object, cwd: Path = CHECKOUT, home: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "CT_HOME"}
    environment |= {"PYTHONWARNINGS": "ignore"} | ({"CT_HOME": str(home)} if home else {})
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home into which `feast apply` has registered what is there."""
    home = tmp_path_factory.mktemp("home")
    said = call(FEAST, "apply", cwd=CHECKOUT / "feature_repo", home=home)
    assert "weather" in said
    return home


def test_apply_registers_every_model_and_takes_none_away_again(home: Path) -> None:
    services = {spec.feature_service for spec in load_specs().values()}
    listed = call(FEAST, "-c", "feature_repo", "feature-services", "list", home=home)
    assert all(service in listed for service in services)
    again = call(FEAST, "-c", "feature_repo", "apply", home=home)
    assert "Deleted" not in again
    planned = call(FEAST, "-c", "feature_repo", "plan", home=home)
    assert "Deleted" not in planned
    assert all(
        service in call(FEAST, "-c", "feature_repo", "feature-services", "list", home=home) for service in services
    )


def test_without_a_variable_it_is_the_default_home(home: Path) -> None:
    services, values = call(sys.executable, "-c", WITHOUT_VARIABLE, home).splitlines()[-2:]
    assert set(services.split()) == {spec.feature_service for spec in load_specs().values()}
    assert values == "[None]"
