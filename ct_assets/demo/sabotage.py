"""A model that learned nothing, to see it rejected."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ct_assets.core.spec import EstimatorSpec
from ct_assets.core.tasks import Quantile


class ShuffledLabels:
    """Fits another estimator on labels in random order.

    Args:
        path: Import path of the estimator.
        params: Its keyword arguments.
        seed: Of the shuffling and the estimator.
        quantiles: Levels to predict, of a quantile task.
    """

    def __init__(self, path: str, params: dict[str, Any], seed: int = 0, quantiles: Sequence[float] = ()) -> None:
        estimator = EstimatorSpec(path=path, params=params).build(seed)
        self.estimator = Quantile(tuple(quantiles)).prepare(estimator) if quantiles else estimator
        self.seed = seed

    def fit(self, features: pd.DataFrame, labels: Any) -> Any:
        """Fit the inner estimator and hand it back, so that nothing of this class is stored."""
        shuffled = np.random.default_rng(self.seed).permutation(np.asarray(labels))
        return self.estimator.fit(features, shuffled)
