"""The estimator of late arrivals."""

from typing import Any

import numpy as np

CATEGORIES = ["carrier", "origin"]


def boosted_trees(**params: Any) -> Any:
    """Histogram gradient boosting over numbers and the numbered categories of `CATEGORIES`.

    The trees split the numbers of a category as an order; telling them which columns are categories would put
    `functools.partial` into the stored model, a type that nobody should have to trust.

    Args:
        params: Keyword arguments of scikit-learn's `HistGradientBoostingClassifier`.

    Returns:
        An unfitted pipeline that reads a DataFrame.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan)
    columns = ColumnTransformer([("categories", encoder, CATEGORIES)], remainder="passthrough")
    trees = HistGradientBoostingClassifier(early_stopping=False, **params)
    return Pipeline([("columns", columns), ("trees", trees)])
