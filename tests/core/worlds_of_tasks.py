"""A small model of each kind of task, and its examples."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression, QuantileRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from worlds_of_core import spec_with

from ct_assets.core.spec import EstimatorSpec, ModelSpec
from ct_assets.core.tasks import BINARY, Multiclass, Quantile, Regression, Task

CLASSES = ("low", "middle", "high")
QUANTILES = (0.1, 0.5, 0.9)
TASKS: dict[str, Task] = {
    "binary": BINARY,
    "multiclass": Multiclass(CLASSES),
    "regression": Regression(),
    "quantile": Quantile(QUANTILES),
}
INPUTS = {"hour": "numeric", "last": "numeric", "noise": "numeric", "side": "categorical"}
PATHS = {
    "binary": "worlds_of_tasks.logistic",
    "multiclass": "worlds_of_tasks.logistic",
    "regression": "worlds_of_tasks.line",
    "quantile": "worlds_of_tasks.quantile_line",
}
FIELDS: dict[str, dict[str, Any]] = {"multiclass": {"classes": CLASSES}, "quantile": {"quantiles": QUANTILES}}


def logistic(**params: Any) -> Pipeline:
    return _of_numbers(LogisticRegression(**params))


def line(**params: Any) -> Pipeline:
    return _of_numbers(LinearRegression(**params))


def quantile_line(**params: Any) -> Pipeline:
    return _of_numbers(QuantileRegressor(alpha=0.0, **params))


def _of_numbers(estimator: Any) -> Pipeline:
    """Reads the numeric inputs only."""
    return make_pipeline(make_column_transformer(("passthrough", ["hour", "last", "noise"])), estimator)


def spec_of(task: str, **changes: Any) -> ModelSpec:
    estimator = EstimatorSpec(path=PATHS.get(task, ""))
    given = {"task": task, "entities": ("side",), "estimator": estimator, "inputs": INPUTS}
    return spec_with(**given | FIELDS.get(task, {}) | changes)


def examples_of(task: str, rows: int = 600, seed: int = 1) -> pd.DataFrame:
    """Labels that grow with the hour; `last` is a noisy look at them, `side` a category."""
    random = np.random.default_rng(seed)
    hour = random.uniform(0, 24, rows)
    value = hour + random.normal(0, 1 + hour / 12)
    frame = pd.DataFrame(
        {
            "hour": hour,
            "last": value + random.normal(0, 4, rows),
            "noise": random.normal(size=rows),
            "side": random.choice(["left", "right"], rows),
        }
    )
    labels: dict[str, Any] = {
        "binary": (value > 12).astype("int8"),
        "multiclass": np.array(CLASSES, dtype=object)[np.digitize(value, [8, 16])],
        "regression": value,
        "quantile": value,
    }
    return frame.assign(label=labels[task])
