"""How much more frequent each row's inputs are in one window than overall."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


def density_ratio(inputs: pd.DataFrame, current: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Density of each row's inputs within the current window over that among all rows.

    A logistic regression tells the window's rows from all others (Bickel, Brückner and Scheffer 2009). By Bayes' rule
    its probability over the window's share is the ratio that weights a loss towards the window (Shimodaira 2000;
    Sugiyama et al. 2007). As the window's rows are among all rows, the ratio is bounded by one over that share.

    Args:
        inputs: Numbers and text, shape (n, k); missing numbers are allowed.
        current: Which rows are the window's, shape (n,).

    Returns:
        One ratio per row; 1 for all when all rows, or none, are the window's.
    """
    share = float(current.mean()) if len(current) else 0.0
    if share in (0.0, 1.0):
        return np.ones(len(inputs))
    told = _domain_classifier(inputs).fit(inputs, current)
    return np.asarray(told.predict_proba(inputs)[:, 1] / share, dtype=np.float64)


def _domain_classifier(inputs: pd.DataFrame) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = list(inputs.select_dtypes("number").columns)
    texts = [name for name in inputs.columns if name not in numbers]
    imputed = SimpleImputer(add_indicator=True, keep_empty_features=True)
    # Categories with little evidence stand together: each alone would tell its window by chance.
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(imputed, StandardScaler()), numbers),
            ("texts", OneHotEncoder(min_frequency=20, handle_unknown="infrequent_if_exist"), texts),
        ]
    )
    return make_pipeline(columns, LogisticRegression(max_iter=1000))
