"""Quantiles from estimators that predict one of them."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin, clone

#: Parameters that say that an estimator minimises the pinball loss, where it has several losses.
_LOSSES = ("loss", "objective")


class QuantileModels(RegressorMixin, BaseEstimator):
    """One copy of an estimator for each quantile.

    Args:
        estimator: Any scikit-learn compatible regressor or pipeline with a parameter `quantile`, or with a parameter
            `alpha` and the loss "quantile".
        quantiles: Levels in (0, 1), ascending.

    Attributes:
        models_: The fitted copies, in the order of `quantiles`.
    """

    def __init__(self, estimator: Any, quantiles: Sequence[float]) -> None:
        self.estimator = estimator
        self.quantiles = quantiles

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Fit a copy for each quantile.

        Raises:
            ValueError: The estimator has no parameter for the quantile.
        """
        names = quantile_parameters(self.estimator)
        if not names:
            raise ValueError(
                f"{type(self.estimator).__name__} has no parameter `quantile`, nor `alpha` with the loss 'quantile'; "
                "expected an estimator of one quantile"
            )
        copies = [clone(self.estimator).set_params(**dict.fromkeys(names, level)) for level in self.quantiles]
        self.models_ = [copy.fit(X, y, **fit_params) for copy in copies]
        return self

    def predict(self, X: Any) -> npt.NDArray[np.float64]:
        """One column a quantile, shape (n, k); they may cross."""
        return np.column_stack([model.predict(X) for model in self.models_])


def quantile_parameters(estimator: Any) -> list[str]:
    """Names of the parameters, also of a pipeline's steps, that say which quantile an estimator predicts.

    A parameter `quantile` of an estimator with several losses counts only with the loss that reads it.
    """
    parameters = estimator.get_params() if hasattr(estimator, "get_params") else {}
    found = []
    for name in sorted(parameters):
        step, separator, last = name.rpartition("__")
        losses = [value for loss in _LOSSES if (value := parameters.get(f"{step}{separator}{loss}")) is not None]
        if ("quantile" in losses and last in ("quantile", "alpha")) or (last == "quantile" and not losses):
            found.append(name)
    return found
