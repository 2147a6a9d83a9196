"""Fitting estimators with weights, and letting fitted ones learn more."""

import copy
import inspect
from typing import Any

import numpy as np
import numpy.typing as npt

from ct_assets.core.estimators import import_path
from ct_assets.core.inner_split import RowTimes, fitting_rows_of, splits_at_random
from ct_assets.core.strategies import StrategySpec

Floats = npt.NDArray[np.float64]

#: Warm-started on other rows, it would mistake these rows' bins for those that its trees were grown with; its
#: documentation asks for the same data.
_SAME_DATA_ONLY = "sklearn.ensemble._hist_gradient_boosting"


def fit(model: Any, inputs: Any, labels: Any, weights: Floats | None = None, times: RowTimes | None = None) -> Any:
    """Fit an estimator, with a weight for each row if given, and return what its `fit` returns.

    Args:
        model: Unfitted estimator.
        inputs: The rows.
        labels: Their labels.
        weights: How much each counts.
        times: Theirs, for an estimator that splits them.

    Raises:
        ValueError: There are weights and the estimator cannot take any, or it would split the rows at random.
    """
    refuse_random_splits(model)
    with fitting_rows_of(times):
        return model.fit(inputs, labels, **_weight_arguments(model, weights))


def resume(strategy: StrategySpec, model: Any, inputs: Any, labels: Any, weights: Floats | None = None) -> Any:
    """Let a fitted estimator learn more from rows that are new to it; it is changed in place where it can be.

    The earlier steps of a pipeline stay as they were fitted first: what the last step has learned holds for numbers
    that they made.

    Args:
        strategy: `warm_start`, with how many iterations, or `incremental`.
        model: Fitted estimator; nobody else may hold it.
        inputs: The new rows.
        labels: Their labels.
        weights: How much each counts.

    Raises:
        ValueError: The estimator can learn no more in this way or from these classes, or cannot take weights.
    """
    refuse_unable(strategy, model, weights is not None)
    if _is_pipeline(model):
        for _, step in model.steps[:-1]:
            inputs = step.transform(inputs) if step not in (None, "passthrough") else inputs
        name, last = model.steps[-1]
        model.steps[-1] = (name, resume(strategy, last, inputs, labels, weights))
        return model
    _refuse_other_classes(strategy, model, labels)
    arguments = _weight_arguments(model, weights)
    if strategy.kind == "incremental":
        return model.partial_fit(inputs, labels, **arguments)
    add = strategy.add or 0
    if _takes(model.fit, "init_model"):
        model = model.set_params(n_estimators=add).fit(inputs, labels, init_model=model.booster_, **arguments)
        # It holds on to the model that it started from, whose trees are among its own by now; a copy does not.
        model._Booster = copy.deepcopy(model.booster_)
        return model
    return model.set_params(warm_start=True, **_iterations(model, add)).fit(inputs, labels, **arguments)


def refuse_unable(strategy: StrategySpec, model: Any, weighted: bool) -> None:
    """Say before a long training what an estimator cannot do.

    Raises:
        ValueError: It cannot go on as the strategy asks, or cannot take weights.
    """
    last = _last(model)
    if weighted:
        _weight_arguments(model, np.empty(0))
    if strategy.kind == "incremental" and not hasattr(last, "partial_fit"):
        raise ValueError(
            f"strategy incremental needs an estimator with partial_fit, and {import_path(last)} has none; expected "
            "such as sklearn.linear_model.SGDClassifier, or another strategy"
        )
    if strategy.kind != "warm_start":
        return
    expected = "expected LightGBM or an estimator with warm_start such as a random forest, or another strategy"
    if type(last).__module__.startswith(_SAME_DATA_ONLY):
        raise ValueError(
            f"{import_path(last)} can be warm-started on the rows that it was first fitted on only; {expected}"
        )
    if not (_takes(last.fit, "init_model") or "warm_start" in last.get_params(deep=False)):
        raise ValueError(f"strategy warm_start needs an estimator with warm_start, not {import_path(last)}; {expected}")


def refuse_random_splits(model: Any) -> None:
    """Refuse an estimator that would decide by rows of the label time of those that it fits.

    Raises:
        ValueError: Names each part, and what to use instead.
    """
    if found := splits_at_random(model):
        raise ValueError(f"estimator: {'; '.join(found)}")


def _refuse_other_classes(strategy: StrategySpec, model: Any, labels: Any) -> None:
    """A class that it never saw has no place in it; one that the new rows lack would be dropped by a new `fit`."""
    known, found = set(getattr(model, "classes_", ())), set(labels)
    if known and (found - known or (strategy.kind == "warm_start" and known - found)):
        raise ValueError(
            f"the examples that are new have the classes {sorted(map(str, found))}, and the champion knows "
            f"{sorted(map(str, known))}; expected the same to go on from it by {strategy.kind}: wait for more labels, "
            "or train in full"
        )


def _weight_arguments(model: Any, weights: Floats | None) -> dict[str, Floats]:
    """The argument of `fit` that brings the weights to the last step of a pipeline, or of one within it."""
    if weights is None:
        return {}
    if _is_pipeline(model):
        name, last = model.steps[-1]
        return {f"{name}__{argument}": values for argument, values in _weight_arguments(last, weights).items()}
    from ct_assets.core.quantiles import QuantileModels

    if isinstance(model, QuantileModels):
        return _weight_arguments(model.estimator, weights)
    for part in _voters(model) or [model]:
        if not _takes(part.fit, "sample_weight"):
            within = "" if part is model else f" within {import_path(model)}"
            raise ValueError(
                f"{import_path(part)}{within} cannot take a weight for each row; choose an estimator whose fit takes "
                "sample_weight, or train without weight, time_decay, importance and balance weights"
            )
    return {"sample_weight": weights}


def _voters(model: Any) -> list[Any]:
    """The members of an ensemble whose `fit` hands all its arguments to theirs."""
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(model.fit).parameters.values())
    members = getattr(model, "estimators", None) if takes_any and not _takes(model.fit, "sample_weight") else None
    return [member for _, member in members if member != "drop"] if isinstance(members, list) else []


def _iterations(model: Any, add: int) -> dict[str, int]:
    """Trees are counted in all; iterations of a solver begin anew."""
    if "n_estimators" in model.get_params(deep=False):
        return {"n_estimators": len(model.estimators_) + add}
    return {"max_iter": add}


def _takes(function: Any, parameter: str) -> bool:
    return parameter in inspect.signature(function).parameters


def _is_pipeline(model: Any) -> bool:
    from sklearn.pipeline import Pipeline

    return isinstance(model, Pipeline)


def _last(model: Any) -> Any:
    return _last(model.steps[-1][1]) if _is_pipeline(model) else model
