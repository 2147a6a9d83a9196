"""The kinds of task: what a model of each predicts, and how that is asked for, checked, measured and stored.

The rest of the platform knows a model's task only through its object here. Predictions are passed around as arrays:
shape (n,) where a row has one number, (n, k) where it has one for each class or quantile.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, TypeVar

from pydantic import BaseModel

from ct_assets.core.metrics import HIGHER_IS_BETTER
from ct_assets.core.strict import unknown
from ct_assets.core.tasks.base import LABEL, PREDICTION, PredictionError, Task
from ct_assets.core.tasks.classes import Binary, Multiclass
from ct_assets.core.tasks.values import Quantile, Regression

__all__ = [
    "BINARY",
    "LABEL",
    "PREDICTION",
    "TASKS",
    "Binary",
    "Multiclass",
    "PredictionError",
    "Quantile",
    "Regression",
    "Task",
    "task_of",
    "with_metric_of",
]

TASKS: Mapping[str, type[Task]] = MappingProxyType(
    {kind.name: kind for kind in (Binary, Multiclass, Regression, Quantile)}
)
BINARY = Binary()

Rules = TypeVar("Rules", bound=BaseModel)


class HasTask(Protocol):
    """Whatever says its task, as a `ModelSpec` does."""

    @property
    def task(self) -> str:
        """Name of the task."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of a multiclass task."""

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Levels of a quantile task."""


def task_of(spec: HasTask) -> Task:
    """The task of a model."""
    match spec.task:
        case "multiclass":
            return Multiclass(spec.classes)
        case "quantile":
            return Quantile(spec.quantiles)
        case "regression":
            return Regression()
    return BINARY


def with_metric_of(task: type[Task], rules: Rules, field: str) -> Rules:
    """Rules that look at a metric of the task: at its own where they name none.

    Args:
        task: The kind of task.
        rules: Such as a gate's policy.
        field: Which of their fields names the metric.

    Raises:
        ValueError: They name a metric that the task has not, or that has no direction.
    """
    if field not in rules.model_fields_set:
        return rules.model_copy(update={field: task.gate_metric})
    name, known = getattr(rules, field), [metric for metric in task.metrics if metric in HIGHER_IS_BETTER]
    if name not in known:
        raise ValueError(unknown(f"metric of a {task.name} task", name, known))
    return rules
