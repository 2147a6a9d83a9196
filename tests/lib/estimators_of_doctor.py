"""Estimators of a team: a sound one, one that nobody has reviewed, and one that is never the same."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


def logistic(**params: Any) -> Any:
    """Numbers and categories, missing ones too."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(keep_empty_features=True), ["orders_2d", "pages"]),
            ("countries", OneHotEncoder(handle_unknown="ignore"), ["country"]),
        ]
    )
    return Pipeline([("columns", columns), ("model", LogisticRegression(**params))])


class Homemade(ClassifierMixin, BaseEstimator):
    """Half for everyone."""

    def fit(self, x: Any, y: Any) -> "Homemade":
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x: Any) -> Any:
        return np.full((len(x), 2), 0.5)


class Moody(Homemade):
    """Something new at every fit."""

    def fit(self, x: Any, y: Any) -> "Moody":
        self.mood_ = float(np.random.default_rng().random())
        return super().fit(x, y)  # type: ignore[return-value]
