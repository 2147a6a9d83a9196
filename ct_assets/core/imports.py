"""Objects by import path, as files and people name them: of the project itself or of a listed package, nothing else.

A path comes from a spec or from the launchpad, so neither importing it nor calling what it names may run just any code.
"""

import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

T = TypeVar("T")

ESTIMATOR_PACKAGES = ("sklearn", "lightgbm")
"""Packages whose estimators may be named; `estimator_packages` of `[tool.ct_assets]` in pyproject.toml adds to them."""
PLATFORM = __name__.partition(".")[0]
FACTORIES = (f"{PLATFORM}.core.estimators",)
"""Modules of the platform whose functions return estimators."""
DEPLOYED = f"{PLATFORM}.defs."
"""Beginning of the modules that lie in the platform's package and belong to the deployment."""


def imported(field: str, paths: Iterable[str], kind: type[T]) -> list[T]:
    """What import paths name, each one object or a sequence of them.

    Args:
        field: Where they are written.
        paths: The import paths.
        kind: What each has to name.

    Raises:
        ValueError: One names nothing that can be imported, a module that is not the project's, or something else.
    """
    found: list[T] = []
    expected = f"expected the import path of a {kind.__name__} or of a sequence of them"
    for path in paths:
        if is_installed(path) and not is_own(path):
            raise ValueError(f"{field}: {path!r} is not in a module of this project; {expected}")
        module, _, name = path.rpartition(".")
        try:
            named: Any = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise ValueError(f"{field}: {path!r} cannot be imported ({error}); {expected}") from error
        several = [named] if isinstance(named, kind) else named
        if not isinstance(several, Sequence) or not all(isinstance(each, kind) for each in several):
            raise ValueError(f"{field}: {path!r} is a {type(named).__name__}; {expected}")
        found += several
    return found


def estimator_factory(path: str, where: str) -> Callable[..., Any]:
    """The class of an estimator, or the project's own function that returns one, by its import path.

    Args:
        path: Such as `sklearn.linear_model.LogisticRegression`.
        where: Where it is written, for messages.

    Raises:
        ValueError: It cannot be imported, or names anything else; nothing of another package was imported then.
    """
    expected = (
        f"expected 'package.module.Class' of an estimator in {', '.join(estimator_packages())} or this project, or a "
        "function of this project that returns one"
    )
    listed = path.partition(".")[0] in estimator_packages()
    if is_installed(path) and not listed and not is_own(path):
        raise ValueError(f"{where} path {path!r} is in another package; {expected}")
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError, OSError) as error:
        raise ValueError(f"{where} path {path!r} cannot be imported ({error}); {expected}") from error
    if not (_is_estimator(found, listed) if isinstance(found, type) else _makes_estimators(found, module)):
        raise ValueError(f"{where} path {path!r} names a {type(found).__name__} that is no estimator; {expected}")
    made: Callable[..., Any] = found
    return made


def _is_estimator(found: type, listed: bool) -> bool:
    from sklearn.base import BaseEstimator

    return issubclass(found, BaseEstimator) or (not listed and callable(getattr(found, "fit", None)))


def _makes_estimators(found: Any, module: str) -> bool:
    """Whether it is a function that the project defines there, or that the running program has put there; of the
    platform's modules, one of `FACTORIES`."""
    if not isinstance(found, FunctionType) or found.__module__ not in (module, "__main__") or not is_own(module):
        return False
    return module in FACTORIES or module.startswith(DEPLOYED) or module.partition(".")[0] != PLATFORM


def estimator_packages() -> tuple[str, ...]:
    """Packages whose estimators may be named."""
    return (*ESTIMATOR_PACKAGES, *(name for settings in _settings(Path.cwd()) for name in settings.estimators))


def is_installed(path: str) -> bool:
    """Whether there is a package or module of this path's first name."""
    return _origin(path.partition(".")[0]) is not None


def is_own(path: str) -> bool:
    """Whether a module or what it holds is of this project: of its root module, or a file within its folder."""
    name = path.partition(".")[0]
    if name in sys.stdlib_module_names:
        return False  # whose modules may be in no file: built in, or frozen
    if name == PLATFORM or any(name == settings.root_module for settings in _settings(Path.cwd())):
        return True
    origin = _origin(name)
    return origin is not None and any(_within(origin, settings.folder) for settings in _settings(Path.cwd()))


class _Settings:
    """What the pyproject.toml of a folder says of the project."""

    def __init__(self, file: Path) -> None:
        tool = tomllib.loads(file.read_text()).get("tool", {})
        self.folder = file.parent
        self.root_module: str | None = tool.get("dg", {}).get("project", {}).get("root_module")
        self.estimators: tuple[str, ...] = tuple(tool.get(PLATFORM, {}).get("estimator_packages", ()))


@lru_cache(maxsize=8)
def _settings(folder: Path) -> tuple[_Settings, ...]:
    """Those of the project that a folder belongs to, and of the platform's own checkout, if it is run from one."""
    near = next((f / "pyproject.toml" for f in (folder, *folder.parents) if (f / "pyproject.toml").exists()), None)
    checkout = Path(__file__).parents[2] / "pyproject.toml"
    found = dict.fromkeys(file.resolve() for file in (near, checkout) if file is not None and file.exists())
    return tuple(map(_Settings, found))


def _origin(name: str) -> Path | None:
    """File or folder of a top-level module; finding it runs none of it. None when there is none, or it has no file."""
    module = sys.modules.get(name)
    try:
        spec = module.__spec__ if module is not None else find_spec(name) if name else None
    except (ImportError, ValueError):
        return None
    if spec is None:
        return Path(module.__file__) if module is not None and module.__file__ else None
    places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else [])]
    return Path(places[0]) if places else Path(name)


def _within(origin: Path, folder: Path) -> bool:
    """Whether it lies in a folder, other than among the packages that are installed there."""
    resolved = origin.resolve()
    return resolved.is_relative_to(folder) and "site-packages" not in resolved.relative_to(folder).parts
