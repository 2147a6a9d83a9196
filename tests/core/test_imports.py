"""Import paths name estimators and the project's own objects; nothing else is imported or called."""

import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.naive_bayes import GaussianNB

from ct_assets.core.imports import estimator_factory, imported
from ct_assets.core.spec import EstimatorSpec
from ct_assets.lake.contract import Source

MODEL = {"path": "sklearn.naive_bayes.GaussianNB"}
CALLED: list[str] = []


def bayes() -> GaussianNB:
    """The project's own way to make one."""
    return GaussianNB()


def note(text: str = "called") -> str:
    """No estimator."""
    CALLED.append(text)
    return text


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("os.system", {"command": "true"}),
        ("os.popen", {"cmd": "true"}),
        ("os.makedirs", {"name": "made"}),
        ("posixpath.join", {"a": "a"}),
        ("runpy.run_path", {"path_name": "model.py"}),
        ("codecs.open", {"filename": "pyproject.toml"}),
        (".a.b", {}),
        ("builtins.eval", {"source": "1"}),
        ("subprocess.Popen", {"args": ["true"]}),
        ("pickle.loads", {"data": b"."}),
        ("functools.partial", {"func": "os.system"}),
        ("sklearn.utils.os.system", {"command": "true"}),
        ("sklearn.utils._testing.os", {}),
        ("sklearn.base.clone", {"estimator": MODEL}),
        ("sklearn.datasets.fetch_openml", {"name": "iris"}),
        ("sklearn.utils.Bunch", {}),
        ("lightgbm.train", {}),
        ("lightgbm.Booster", {"model_file": "model.txt"}),
        ("ct_assets.lake.paths.write_atomically", {"path": "written", "payload": b"x"}),
        ("ct_assets.cli.main", {}),
        ("joblib.load", {"filename": "model.pkl"}),
        ("", {}),
        ("system", {}),
    ],
)
@pytest.mark.parametrize("nested", [False, True], ids=["alone", "within"])
def test_what_is_no_estimator_is_refused(path: str, params: dict[str, Any], nested: bool) -> None:
    planted = {"path": path, "params": params}
    described = {"path": "sklearn.pipeline.Pipeline", "params": {"steps": [["a", planted]]}} if nested else planted
    with pytest.raises(ValueError, match=r"path .* (is in another package|names a|cannot be imported)"):
        EstimatorSpec.model_validate(described).build()


def test_a_module_of_another_package_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "planted_module.py").write_text(
        f"from pathlib import Path\nfrom sklearn.naive_bayes import GaussianNB\nPath({str(ran)!r}).touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="is in another package"):
        EstimatorSpec(path="planted_module.GaussianNB").build()
    with pytest.raises(ValueError, match="not in a module of this project"):
        imported("own_sources", ["planted_module.SOURCES"], Source)
    for path in ("builtins.eval", "sys.argv", "os.environ"):
        with pytest.raises(ValueError, match="not in a module of this project"):
            imported("own_sources", [path], Source)
    assert not ran.exists()
    assert "planted_module" not in sys.modules


def test_the_project_s_own_functions_are_called_and_have_to_return_an_estimator() -> None:
    assert isinstance(EstimatorSpec(path=f"{__name__}.bayes").build(), GaussianNB)
    with pytest.raises(ValueError, match=r"note returned a str; expected an estimator"):
        EstimatorSpec(path=f"{__name__}.note").build()
    with pytest.raises(ValueError, match="names a function that is no estimator"):
        # A function of another module by the name that it has in this one.
        EstimatorSpec(path=f"{__name__}.imported").build()


@pytest.mark.parametrize(
    ("defined_in", "accepted"), [("__main__", True), ("subprocess", False), ("another_module_of_the_project", False)]
)
def test_a_function_that_was_put_into_a_module_counts_if_the_running_program_defines_it(
    defined_in: str, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put() -> GaussianNB:
        return GaussianNB()

    put.__module__ = defined_in
    monkeypatch.setattr(sys.modules[__name__], "put", put, raising=False)
    if accepted:
        assert isinstance(EstimatorSpec(path=f"{__name__}.put").build(), GaussianNB)
        return
    with pytest.raises(ValueError, match="names a function that is no estimator"):
        EstimatorSpec(path=f"{__name__}.put").build()


def test_a_package_that_pyproject_lists_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "boosters.py").write_text(
        "from sklearn.base import BaseEstimator\n\n\nclass Booster(BaseEstimator): ...\n\n\nclass Other: ...\n"
    )
    (project / "pyproject.toml").write_text('[tool.ct_assets]\nestimator_packages = ["boosters"]\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(project)
    assert estimator_factory("boosters.Booster", "estimator").__name__ == "Booster"
    with pytest.raises(ValueError, match="names a type that is no estimator"):
        estimator_factory("boosters.Other", "estimator")


def test_a_project_s_modules_are_those_of_its_folder_and_of_its_root_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
    (tmp_path / "shop_models.py").write_text("class Homemade:\n    def fit(self, x, y): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert estimator_factory("shop_models.Homemade", "estimator").__name__ == "Homemade"
