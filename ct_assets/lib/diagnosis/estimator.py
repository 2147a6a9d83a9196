"""Checks of the estimator: that it is there, takes its parameters, fits the task, and can be stored without pickle."""

import ast
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from ct_assets.core.artifact import ArtifactError
from ct_assets.core.division import MATURES
from ct_assets.core.inner_split import FOLDED, split_problem, splits_at_random, stacked_at_random
from ct_assets.core.inputs import MISSING_CATEGORY
from ct_assets.core.spec import ModelSpec
from ct_assets.core.strict import unknown
from ct_assets.core.tasks import task_of
from ct_assets.core.training import predict, train
from ct_assets.lib.diagnosis.finding import CannotTellError, Finding
from ct_assets.lib.diagnosis.model import Examined
from ct_assets.lib.diagnosis.tables import FIRST

PATH, TRIAL, SPLITS = "estimator path", "estimator", "splits in time order"
ROWS = 400
"""Made-up rows of a trial: enough for cross-validation within an estimator, few enough to take no time."""


def path_is_there(model: Examined) -> Iterator[Finding]:
    """The estimator's import path names something.

    That is read from the files alone: importing them may take seconds.
    """
    estimator = model.spec.estimator
    for field, path in _paths("estimator", {"path": estimator.path, "params": estimator.params}):
        if told := _missing(path):
            remedy = "name a class or a function that returns an estimator, as package.module.Name"
            yield Finding("error", PATH, model.at(field), told, remedy=remedy)


def declared_splits_are_in_time_order(model: Examined) -> Iterator[Finding]:
    """The written parameters ask for no split within a training that is not in time order."""
    estimator = model.spec.estimator
    for field, path, params in _described("estimator", {"path": estimator.path, "params": estimator.params}):
        name = path.rpartition(".")[2]
        # Of what is left out, only estimators that are made to split do so.
        known = {"cv": None} | params if name in FOLDED else params
        if problem := split_problem(name, known):
            yield Finding("error", SPLITS, model.at(field), problem)


def splits_are_in_time_order(model: Examined) -> Iterator[Finding]:
    """Early stopping, calibration and searches within a training go by newer rows than those that are fitted."""
    spec = model.spec
    try:
        built = spec.estimator.build(spec.seed)
    except Exception:
        raise CannotTellError("the estimator cannot be built") from None
    for problem in splits_at_random(built):
        yield Finding("error", SPLITS, model.at("estimator"), problem)
    for part in stacked_at_random(built):
        yield Finding(
            "warning",
            SPLITS,
            model.at("estimator"),
            f"{part} learns from folds of the rows that are not in time order",
            "what it learns from to be newer than what made it",
            "it trusts what remembers too much: a VotingClassifier or -Regressor, or "
            "ct_assets.core.estimators.numbered for categories, has no folds",
        )


def _described(field: str, value: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The estimators that are written somewhere in a value: field, path and parameters of each."""
    if isinstance(value, Mapping):
        if set(value) <= {"path", "params"} and isinstance(value.get("path"), str):
            yield field, value["path"], dict(value.get("params") or {})
        for name, part in value.items():
            yield from _described(f"{field}.{name}", part)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _described(f"{field}.{index}", part)


def _paths(field: str, value: Any) -> Iterator[tuple[str, str]]:
    """The import paths of an estimator and of those within it, each with its field."""
    for where, path, _ in _described(field, value):
        yield f"{where}.path", path


def _missing(path: str) -> str:
    """Why nothing can be imported by this path; empty when it can be, or may."""
    *modules, name = path.split(".")
    if not all(modules) or not modules:
        return f"{path!r} has no module"
    found: ModuleSpec | None = None
    where: list[str] | None = None
    for depth, module in enumerate(modules):
        full = ".".join(modules[: depth + 1])
        # A package may be installed in a way that only its own finder knows, as editable ones are; its parts are files.
        found = find_spec(module) if where is None else PathFinder.find_spec(full, where)
        if found is None:
            return f"there is no module {full!r}{_near(module, where)}"
        where = list(found.submodule_search_locations or [])
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return ""
    names = _names(Path(found.origin).read_text())
    if name in names or "*" in names or "__getattr__" in names:
        return ""
    return unknown(f"name in {'.'.join(modules)}", name, (n for n in names if not n.startswith("_")))


def _near(module: str, folders: list[str] | None) -> str:
    names = {p.stem for folder in folders or [] for p in Path(folder).glob("[!_]*") if p.suffix in ("", ".py")}
    return f": {unknown('module', module, names)}" if names else "; install it, or mend the path"


def _names(source: str) -> set[str]:
    """Names that a module defines or imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def it_can_be_trained(model: Examined) -> Iterator[Finding]:
    """The estimator takes its parameters, learns made-up rows of the task twice alike, and is stored without pickle."""
    spec = model.spec
    if _missing(spec.estimator.path):
        raise CannotTellError("its path names nothing")
    rows = trial_rows(spec)
    try:
        built = spec.estimator.build(spec.seed)
    except Exception as error:
        yield _error(model, "estimator", _told(error), "an estimator", "mend what it raises when it is built")
        return
    wanted = "predict_proba" if spec.task in ("binary", "multiclass") else "predict"
    for method in ("fit", wanted):
        if not hasattr(built, method):
            told = f"{type(built).__name__} has no {method}"
            yield _error(model, "estimator.path", told, f"fit and {wanted}, as the task is {spec.task}", "use another")
            return
    yield from _ignored_parameters(model, built)
    try:
        first = train(spec, rows, rows.head(20))
        second = train(spec, rows, rows.head(20))
    except ArtifactError as error:
        yield _error(model, "trusted_types", str(error), "", "")
        return
    except Exception as error:
        remedy = "encode text and fill in what is missing within the estimator, such as a Pipeline"
        yield _error(model, "estimator", f"training on made-up rows failed: {_told(error)}", "", remedy)
        return
    if first.digest != second.digest:
        told = "two trainings on the same rows differ"
        remedy = "give `random_state` to all of its parts, or let the platform by leaving it None"
        yield _error(model, "estimator", told, "the same bytes", remedy)
    yield from _missing_values(model, rows)


def _ignored_parameters(model: Examined, built: Any) -> Iterator[Finding]:
    """LightGBM takes any parameter, and only warns, if it may, of one that it does not know."""
    library = sys.modules.get("lightgbm")
    if library is None:
        return
    said: list[str] = []
    library.register_logger(SimpleNamespace(info=said.append, warning=said.append))
    parts = [built, *(built.get_params(deep=True).values() if hasattr(built, "get_params") else ())]
    for part in parts:
        if isinstance(part, library.LGBMModel):
            talkative = type(part)(**part.get_params() | {"verbose": 0, "n_estimators": 1})
            # These rows may not suit its objective; what it cannot do, its trial tells.
            with suppress(Exception):
                talkative.fit(np.arange(40.0).reshape(20, 2), np.arange(20) % 2)
    for name in sorted({line.rpartition(": ")[2].strip() for line in said if "Unknown parameter" in line}):
        told = f"LightGBM knows no parameter {name!r}, and ignores it"
        yield _error(model, "estimator.params", told, "a parameter of LightGBM's", "mend its name, or leave it out")


def _missing_values(model: Examined, rows: pd.DataFrame) -> Iterator[Finding]:
    """What a feature that is not found, or a new category, does to it."""
    spec = model.spec
    gone: dict[str, Any] = {
        name: np.nan if kind == "numeric" else MISSING_CATEGORY for name, kind in spec.inputs.items()
    }
    holes, task = rows.assign(**gone), task_of(spec)
    try:
        with_holes = pd.concat([rows, holes.tail(ROWS // 10)], ignore_index=True)
        built = task.prepare(spec.estimator.build(spec.seed))
        fitted = built.fit(with_holes[spec.columns], task.targets(with_holes["label"]))
        predict(spec, fitted, holes.head(5).assign(**{name: "never seen" for name in spec.categorical}))
    except Exception as error:
        told = f"it cannot do without a value or with a category that it never saw: {_told(error)}"
        remedy = "a feature that is not found is NaN, a category '(missing)': impute them and ignore unknown ones"
        yield Finding("warning", TRIAL, model.at("estimator"), told, "an estimator that can", remedy)


def trial_rows(spec: ModelSpec) -> pd.DataFrame:
    """Made-up examples of the model's inputs, with labels of its task and all that a strategy chooses by.

    They are the same every time, and so near in time that any window holds them all.
    """
    random = np.random.default_rng(0)
    columns = {
        name: random.normal(size=ROWS) if kind == "numeric" else np.array(["a", "b", "c"])[random.integers(0, 3, ROWS)]
        for name, kind in spec.inputs.items()
    }
    frame = pd.DataFrame(columns).astype(dict.fromkeys(spec.categorical, object))
    turns = np.arange(ROWS)
    frame["event_timestamp"] = FIRST + pd.to_timedelta(turns, unit="ms")
    frame[MATURES] = frame["event_timestamp"]
    if spec.weight is not None:
        frame[spec.weight] = 1.0 + turns % 2
    if spec.task == "binary":
        return frame.assign(label=(turns % 2).astype("int8"))
    if spec.task == "multiclass":
        return frame.assign(label=np.array(spec.classes, dtype=object)[turns % len(spec.classes)])
    return frame.assign(label=random.normal(size=ROWS))


def _error(model: Examined, field: str, found: str, expected: str, remedy: str) -> Finding:
    return Finding("error", TRIAL, model.at(field), found, expected, remedy)


def _told(error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
