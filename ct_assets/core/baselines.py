"""What a model has to beat to be worth its keep."""

import numpy as np
import numpy.typing as npt
import pandas as pd


class Prior:
    """Predicts the same for every row: the share of positives among the examples that the challenger learned from.

    Args:
        rate: That share, from 0 to 1.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def predict_proba(self, features: pd.DataFrame, /) -> npt.NDArray[np.float64]:
        """The probability of class 1, shape (n,)."""
        return np.full(len(features), self.rate)
