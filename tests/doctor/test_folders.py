"""A folder that does not load is told with file, line and field, and the others are examined all the same."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from ct_assets import cli, doctor
from ct_assets.defs.models.flight_delay.spec import SPEC
from ct_assets.doctor.folders import Folder, folders_in, read_folder
from ct_assets.lib.diagnosis import Finding

FLIGHTS = "ct_assets.defs.sources.contracts.FLIGHTS"
FEATURE_SETS = "ct_assets.defs.features.flights.FEATURE_SETS"


def content(**changes: Any) -> dict[str, Any]:
    """The flights model as a `defs.yaml`."""
    attributes = SPEC.model_dump(mode="json", exclude_defaults=True) | {"feature_sets": [FEATURE_SETS]}
    return {"type": "ct_assets.components.ContinuousTraining", "attributes": attributes | changes}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package for models' folders, named for its test, in a project of its own."""
    folder = tmp_path / f"models_{tmp_path.name}"
    folder.mkdir()
    (tmp_path / "pyproject.toml").write_text(f'[tool.dg.project]\nroot_module = "{folder.name}"\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return folder


def write(models: Path, name: str, **files: str) -> Path:
    folder = models / name
    folder.mkdir()
    for file, text in files.items():
        path = folder / file.replace("_yaml", ".yaml").replace("_py", ".py")
        path.write_text(textwrap.dedent(text))
    return folder


def read(folder: Path) -> Folder:
    (only,) = read_folder(folder, folder.parent.name)
    return only


def lines(folder: Path) -> list[str]:
    return [str(finding) for finding in read(folder).findings]


def test_a_folder_that_is_whole_has_no_mistake(models: Path) -> None:
    text = yaml.safe_dump(content(name="late", own_sources=[FLIGHTS]), sort_keys=False)
    folder = read(write(models, "late", defs_yaml=text))
    assert (folder.name, folder.file, list(folder.findings)) == ("late", "late/defs.yaml", [])
    assert folder.spec == SPEC.model_copy(update={"name": "late"})
    assert len(folder.feature_sets) == 4
    assert [source.name for source in folder.sources] == ["flights"]


def test_the_flights_are_read_from_python() -> None:
    (folder,) = read_folder(doctor.MODELS / "flight_delay", doctor.PACKAGE)
    assert folder.spec == SPEC
    assert len(folder.feature_sets) == 4
    assert list(folder.findings) == []


YAML: dict[str, tuple[str | Callable[[], str], str]] = {
    "a tab": ("type: a\nattributes:\n\tname: late\n", "late/defs.yaml:3: not YAML: found character '\\t' that cannot"),
    "a missing quote": ("type: 'a\nattributes: {}\n", "late/defs.yaml:3: not YAML: found unexpected end of stream"),
    "no attributes": ("type: ct_assets.components.ContinuousTraining\n", "late/defs.yaml: keys type; expected `type:"),
    "a text": ("hello\n", "late/defs.yaml: 'hello'; expected `type:"),
    "a key that stands there twice": (
        lambda: yaml.safe_dump(content(), sort_keys=False) + "  name: again\n",
        "'name' stands there twice; expected each key once",
    ),
    "a misspelt field": (
        lambda: yaml.safe_dump(content(metric=["auc"]), sort_keys=False),
        "unknown field 'metric', did you mean 'metrics'?",
    ),
    "a missing field": (
        lambda: yaml.safe_dump(content(estimator={"params": {}}), sort_keys=False),
        "estimator.path: nothing; expected Import path of a scikit-learn compatible class, of scikit-learn, LightGBM",
    ),
    "a value that is none of the allowed": (
        lambda: yaml.safe_dump(content(tier="standart"), sort_keys=False),
        "tier: unknown value 'standart', did you mean 'standard'?",
    ),
    "a number out of bounds": (
        lambda: yaml.safe_dump(content(evaluation_days=0), sort_keys=False),
        "evaluation_days: 0; expected greater than or equal to 1 (Days of newest matured labels",
    ),
    "a duration in no unit": (
        lambda: yaml.safe_dump(content(label=content()["attributes"]["label"] | {"delay": "soon"}), sort_keys=False),
        "label.delay: 'soon' is no duration; expected such as '36 hours' or '30 days'",
    ),
    "feature sets in no module": (
        lambda: yaml.safe_dump(content(feature_sets=["nowhere.FEATURES"]), sort_keys=False),
        "feature_sets: 'nowhere.FEATURES' cannot be imported (No module named 'nowhere')",
    ),
}


@pytest.mark.parametrize("mistake", YAML)
def test_a_mistake_in_yaml_is_told_in_words(models: Path, mistake: str) -> None:
    text, words = YAML[mistake]
    found = lines(write(models, "late", defs_yaml=text if isinstance(text, str) else text()))
    assert any(words in line for line in found), "\n".join(found)
    assert not any("pydantic" in line or "http" in line or "Input should" in line for line in found)


def test_a_mistake_in_yaml_is_told_with_its_line(models: Path) -> None:
    text = yaml.safe_dump(content(policy={"schedule_days": -1}), sort_keys=False)
    line = 1 + text.splitlines().index("    schedule_days: -1")
    (found,) = lines(write(models, "late", defs_yaml=text))
    assert found.startswith(f"late/defs.yaml:{line}: policy.schedule_days: -1; expected greater than 0")


PYTHON: dict[str, tuple[dict[str, str], str]] = {
    "a name that is none": ({"spec_py": "import os\nSPEC = Spec()\n"}, "late/spec.py:2: NameError: name 'Spec'"),
    "no SPEC": ({"spec_py": "SPECS = 1\n"}, "late/spec.py: AttributeError: module"),
    "a SPEC of another kind": ({"spec_py": "SPEC = 1\n"}, "late/spec.py: SPEC is a int; expected a ModelSpec"),
    "no Python": ({"spec_py": "SPEC = (\n"}, "late/spec.py:1: SyntaxError: '(' was never closed"),
    "an import of nothing": (
        {"spec_py": "\n\nfrom nowhere import SPEC\n"},
        "late/spec.py:3: ModuleNotFoundError: No module named 'nowhere'",
    ),
    "a spec with a mistake": (
        {"spec_py": "from ct_assets.core.gate import GatePolicy\nGatePolicy(flor=0.5)\n"},
        "late/spec.py:2: GatePolicy.the whole: unknown field 'flor', did you mean 'floor'?",
    ),
    "definitions that do not load": (
        {
            "spec_py": "from ct_assets.defs.models.flight_delay.spec import SPEC\n",
            "defs_py": "from ct_assets.defs.features.flights import FEATURES\n",
        },
        "late/defs.py:1: ImportError: cannot import name 'FEATURES'",
    ),
    "nothing": ({"notes_py": ""}, "late: neither defs.yaml nor spec.py; found notes.py; start one: dg scaffold"),
}


@pytest.mark.parametrize("mistake", PYTHON)
def test_a_mistake_in_python_is_told_with_its_line(models: Path, mistake: str) -> None:
    files, words = PYTHON[mistake]
    (found,) = lines(write(models, "late", **files))
    assert words in found


def test_features_that_do_not_load_are_told_with_their_line(models: Path) -> None:
    text = yaml.safe_dump(content(feature_sets=[f"{models.name}.late.features.SETS"]), sort_keys=False)
    folder = write(models, "late", defs_yaml=text, features_py="from ct_assets.lake.contract import Source\nSorce\n")
    assert lines(folder) == [
        "late/features.py:2: NameError: name 'Sorce' is not defined; expected a module that loads; mend that line"
    ]


@pytest.fixture
def examined(models: Path, tmp_path: Path) -> list[Finding]:
    write(models, "broken", defs_yaml="type: [\n")
    write(models, "late", defs_yaml=yaml.safe_dump(content(name="late", seed=8), sort_keys=False))
    write(models, "twin", defs_yaml=yaml.safe_dump(content(name="late"), sort_keys=False))
    write(models, "_draft", defs_yaml="type: [\n")
    assert [path.name for path in folders_in(models)] == ["broken", "late", "twin"]
    return doctor.diagnose(tmp_path / "home", "", models, models.name)


def test_a_broken_folder_does_not_hide_the_others(examined: list[Finding]) -> None:
    errors = [(finding.model, finding.where) for finding in examined if finding.level == "error"]
    assert errors == [("", "late/defs.yaml, twin/defs.yaml"), ("broken", "broken/defs.yaml:2")]
    assert {finding.model for finding in examined if finding.check == "time travel"} == {"late"}
    console = Console(record=True, width=160, file=None, quiet=False)
    with console.capture() as captured:
        doctor.tell(examined, console)
    text = captured.get()
    assert "error broken/defs.yaml:2" in text
    assert "2 models are called 'late'" in text
    assert "2 error, 0 warning" in text


def test_a_name_that_is_no_model_is_told(models: Path, tmp_path: Path) -> None:
    write(models, "late", defs_yaml="type: [\n")
    with pytest.raises(LookupError, match="unknown model 'lat', did you mean 'late'?"):
        doctor.diagnose(tmp_path, "lat", models, models.name)


def test_the_command_ends_red_only_with_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path))
    done = CliRunner().invoke(cli.app, ["doctor", "flight_delay", "--json"])
    assert done.exit_code == 0
    assert {finding["model"] for finding in json.loads(done.stdout)} == {"flight_delay"}
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "decisions.jsonl").write_text("no record\n")
    done = CliRunner().invoke(cli.app, ["doctor"])
    assert done.exit_code == 1
    assert "ledger/decisions.jsonl" in done.stdout
