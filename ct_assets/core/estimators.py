"""Estimators from what people write: import paths and parameters, nested as deep as a pipeline or an ensemble goes."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ct_assets.core.imports import estimator_factory
from ct_assets.core.inner_split import TimeOrderedSplit
from ct_assets.core.strict import unknown

NAMED = ("steps", "estimators", "transformers", "transformer_list")
"""Parameters that hold estimators with names, such as a pipeline's steps."""


def build_estimator(path: str, params: Mapping[str, Any], seed: int | None = None, threads: int | None = None) -> Any:
    """Make an unfitted estimator and all that it is made of.

    A parameter that is a mapping with `path`, wherever it is, becomes an estimator; so does one within a list. The
    items of `NAMED` parameters become tuples.

    Args:
        path: Import path of an estimator's class, or of a function of the project that returns one.
        params: Its keyword arguments.
        seed: For every `random_state` that the parameters leave open, at any depth.
        threads: For every LightGBM estimator that leaves `n_jobs` open.

    Raises:
        ValueError: A path names no estimator, or its parameters are not those that it takes; says where.
    """
    estimator = _made({"path": path, "params": params}, "estimator")
    for part in _parts(estimator):
        if type(part).__module__.startswith("lightgbm."):
            _pin(part, threads)
        if type(part).__name__.startswith("HistGradientBoosting") and part.get_params()["early_stopping"] == "auto":
            # Beyond 10,000 rows it would stop by a random part of them.
            part.set_params(early_stopping=False)
    named = estimator.get_params() if hasattr(estimator, "get_params") else {}
    unset = [n for n, value in named.items() if n.rpartition("__")[2] == "random_state" and value is None]
    return estimator.set_params(**dict.fromkeys(unset, seed)) if unset and seed is not None else estimator


def numbered(estimator: Any, categories: Sequence[str]) -> Any:
    """A pipeline that numbers categories before an estimator that reads numbers only, such as LightGBM.

    A category that training never saw becomes a missing value. The columns reach the estimator as numbers, categories
    first.

    Args:
        estimator: What comes after.
        categories: Input columns that hold text.
    """
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan)
    columns = ColumnTransformer([("categories", encoder, list(categories))], remainder="passthrough")
    return Pipeline([("columns", columns), ("model", estimator)])


def early_stopped(estimator: Any, share: float = 0.1, rounds: int = 10) -> Any:
    """Boosting that stops by the newest rows, and by none that is of the label time of those that it fits.

    Args:
        estimator: A histogram gradient boosting estimator of scikit-learn, or one of LightGBM; the largest number of
            iterations is its own.
        share: Of the rows, the newest, that say when to stop.
        rounds: Iterations without an improvement after which no more are tried.
    """
    from ct_assets.core.early_stopping import EarlyStopped

    return EarlyStopped(estimator, share, rounds)


def time_ordered(folds: int = 1, share: float = 0.2) -> TimeOrderedSplit:
    """A `cv` in time order, with an embargo of the label's reach, such as for `CalibratedClassifierCV`.

    Args:
        folds: How many.
        share: Of the rows, in each fold; the newest `folds * share` are tested on.
    """
    return TimeOrderedSplit(folds, share)


def import_path(estimator: Any) -> str:
    """Where an estimator's class is, for messages."""
    return f"{type(estimator).__module__}.{type(estimator).__qualname__}"


def _made(value: Any, where: str) -> Any:
    """`value` with every mapping that describes an estimator replaced by that estimator."""
    if isinstance(value, Mapping):
        return _instance(value, where) if "path" in value else {k: _made(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_made(item, f"{where}[{i}]") for i, item in enumerate(value))
    return value


def _instance(described: Mapping[str, Any], where: str) -> Any:
    for key in described:
        if key not in ("path", "params"):
            raise ValueError(f"{where}: {unknown('field', str(key), ('path', 'params'))}")
    path, params = described["path"], described.get("params") or {}
    factory = estimator_factory(str(path), where)
    if not isinstance(params, Mapping):
        raise ValueError(f"{where}.params is a {type(params).__name__}; expected keyword arguments of {path}")
    made = {name: _made(value, f"{where}.params.{name}") for name, value in params.items()}
    for name in set(made) & set(NAMED):
        made[name] = _with_names(made[name], f"{where}.params.{name}")
    _refuse_unknown_parameters(factory, made, f"{where} ({path})")
    try:
        estimator = factory(**made)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {path} cannot be made of params {sorted(made)}: {error}") from error
    if not callable(getattr(estimator, "fit", None)) and not isinstance(estimator, TimeOrderedSplit):
        raise ValueError(f"{where}: {path} returned a {type(estimator).__name__}; expected an estimator, with a `fit`")
    return estimator


def _with_names(items: Any, where: str) -> list[tuple[Any, ...]]:
    expected = "expected a list of [name, {path: ..., params: ...}], for transformers with the columns as a third item"
    if not isinstance(items, list | tuple):
        raise ValueError(f"{where} is a {type(items).__name__}; {expected}")
    for i, item in enumerate(items):
        if not isinstance(item, list | tuple) or len(item) not in (2, 3) or not isinstance(item[0], str):
            raise ValueError(f"{where}[{i}] is {item!r}; {expected}")
        if isinstance(item[1], str) and item[1] not in ("passthrough", "drop"):
            raise ValueError(f"{where}[{i}] ({item[0]}) has {item[1]!r} in place of an estimator; {expected}")
    return [tuple(item) for item in items]


def _refuse_unknown_parameters(factory: Any, params: Mapping[str, Any], where: str) -> None:
    try:
        taken = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return  # built in C, without a signature to look at
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return
    for name in params:
        if name not in taken:
            raise ValueError(f"{where}: {unknown('parameter', name, taken)}")


def _parts(estimator: Any) -> Iterator[Any]:
    """An estimator and those that it is made of."""
    yield estimator
    if hasattr(estimator, "get_params") and not isinstance(estimator, type):
        yield from (part for part in estimator.get_params().values() if hasattr(part, "get_params"))


def _pin(estimator: Any, threads: int | None) -> None:
    """Let LightGBM give the same trees every time: by default it picks its ways of summing by how fast they ran."""
    given = estimator.get_params()
    fixed = {"deterministic": True, "force_row_wise": True, "verbose": -1}
    open_ = {name: value for name, value in fixed.items() if name not in given}
    if threads is not None and given.get("n_jobs") is None:
        open_["n_jobs"] = threads
    estimator.set_params(**open_)
