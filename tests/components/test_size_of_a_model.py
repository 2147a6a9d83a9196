"""How much a person writes for a model: non-blank lines of YAML and Python, as they stand."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
WITH_FEATURES, WITHOUT = 150, 60
"""Most lines of a model with two views of its own, and of one whose features exist."""


def lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.splitlines())


@pytest.mark.parametrize("model", ["repurchase", "household_power"])
def test_a_model_with_its_own_features_is_short(model: str) -> None:
    files = [path for path in (CHECKOUT / "ct_assets/defs/models" / model).iterdir() if path.is_file()]
    assert {path.name for path in files} >= {"defs.yaml", "sources.py", "features.py", "feature_views.py"}
    assert sum(lines(path.read_text()) for path in files) <= WITH_FEATURES


def test_the_model_of_the_tutorial_is_short() -> None:
    page = (CHECKOUT / "docs/add-your-model.md").read_text()
    written = re.findall(r"^```\w+ file=\S+\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(written) == 4
    assert sum(map(lines, written)) <= WITH_FEATURES


def test_a_model_whose_features_exist_is_shorter_and_loads(copy: Path) -> None:
    files = list((HERE / "arrival_delay").glob("*.*"))
    assert {path.name for path in files} == {"defs.yaml", "feature_views.py"}
    assert sum(lines(path.read_text()) for path in files) <= WITHOUT
    shutil.copytree(HERE / "arrival_delay", copy / "ct_assets/defs/models/arrival_delay")
    environment = {**os.environ, "PYTHONPATH": str(copy), "CT_HOME": str(copy / ".ct")}
    for command in (["ct", "doctor", "arrival_delay"], ["dg", "check", "defs"]):
        program = [str(Path(sys.executable).parent / command[0]), *command[1:]]
        done = subprocess.run(program, cwd=copy, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stdout.replace("0 warning", "")
