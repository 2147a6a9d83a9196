"""Feast's own commands see every model's views, with and without `CT_HOME`."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from ct_assets.defs.models import load_specs
from ct_assets.lib.publishing import publish
from ct_assets.resources.feast import CHECKOUT, feature_store
from ct_assets.resources.lake import LakeResource

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
    listed = call(FEAST, "-c", "feature_repo", "feature-services", "list", home=home)
    assert all(service in listed for service in services)


def test_without_a_variable_it_is_the_default_home(home: Path) -> None:
    services, values = call(sys.executable, "-c", WITHOUT_VARIABLE, home).splitlines()[-2:]
    assert set(services.split()) == {spec.feature_service for spec in load_specs().values()}
    assert values == "[None]"


def test_the_five_lines_of_the_docs_read_features(home: Path) -> None:
    lake, store = LakeResource(home=str(home)).lake(), feature_store(home)
    view = store.get_feature_view("weather")
    rows: dict[str, pa.Array] = {"origin": pa.array(["JFK", "JFK"])}
    times = (
        pa.array([f"2013-01-0{day}T11:00:00" for day in (5, 6)])
        .cast(pa.timestamp("us"))
        .cast(pa.timestamp("us", "UTC"))
    )
    rows |= {"event_timestamp": times, "created": times}
    rows |= {field.name: pa.array([31.5, 40.25]) for field in view.features}
    publish(lake, store, "weather", "2013-01-06", pa.table(rows), "docs")
    page = (CHECKOUT / "docs" / "how-it-works.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    told = call(sys.executable, "-c", f"{code}\nprint(then['temperature'].tolist(), now['temperature'])", home=home)
    assert told.splitlines()[-1] == "[31.5] [40.25]"


def test_the_ui_answers(home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(FEAST), "-c", "feature_repo", "ui", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "CT_HOME": str(home), "PYTHONWARNINGS": "ignore"}
    with (home / "ui.log").open("w") as log:
        server = subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 300
        while True:
            assert server.poll() is None, (home / "ui.log").read_text()
            assert time.monotonic() < deadline, (home / "ui.log").read_text()
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/feature_views?project=ct_assets", timeout=60)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        assert answer.status_code == 200
        assert {"weather", "plane"} <= {each["spec"]["name"] for each in answer.json()["featureViews"]}
        assert "<html" in httpx.get(f"http://127.0.0.1:{port}/", timeout=60).text
    finally:
        server.terminate()
        server.wait(60)
