"""As many iterations as newer rows ask for."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.utils import _safe_indexing, get_tags

from ct_assets.core.inner_split import TimeOrderedSplit


class EarlyStopped(BaseEstimator):
    """Boosting with the number of iterations that is best on the newest rows, then fitted on all of them.

    The iterations are counted on rows that were mature at the first prediction of the newest ones. The model that
    predicts learns from all rows, the newest and those under the embargo too.

    Args:
        estimator: A histogram gradient boosting estimator of scikit-learn, or one of LightGBM.
        share: Of the rows, the newest, that say when to stop.
        rounds: Iterations without an improvement after which the search ends.

    Attributes:
        estimator_: What was fitted.
        iterations_: With how many iterations.
    """

    def __init__(self, estimator: Any, share: float = 0.1, rounds: int = 10) -> None:
        self.estimator = estimator
        self.share = share
        self.rounds = rounds

    def fit(self, X: Any, y: Any, sample_weight: npt.NDArray[np.float64] | None = None) -> Self:
        """Find the number of iterations, and fit.

        Raises:
            ValueError: The estimator takes no rows to stop by, or the rows cannot be split.
        """
        ((earlier, newest),) = TimeOrderedSplit(share=self.share).split(X)
        (fitted, tested), (labels, newer) = (
            [_safe_indexing(part, rows) for rows in (earlier, newest)] for part in (X, y)
        )
        if is_classifier(self.estimator) and len(missing := np.setdiff1d(newer, labels)):
            raise ValueError(
                f"class {missing[0]!r} is among the newest {self.share:.0%} of the rows and not among those before; "
                "expected a longer history, or a fixed number of iterations"
            )
        weights = None if sample_weight is None else (sample_weight[earlier], sample_weight[newest])
        if type(self.estimator).__name__.startswith("HistGradientBoosting"):
            self.iterations_ = self._of_histograms((fitted, labels), (tested, newer), weights)
            fixed = {"max_iter": self.iterations_, "early_stopping": False}
        elif hasattr(self.estimator, "booster_") or type(self.estimator).__module__.startswith("lightgbm."):
            self.iterations_ = self._of_lightgbm((fitted, labels), (tested, newer), weights)
            fixed = {"n_estimators": self.iterations_}
        else:
            raise ValueError(
                f"{type(self.estimator).__name__} takes no rows to stop by; expected HistGradientBoostingClassifier or "
                "-Regressor, LGBMClassifier or LGBMRegressor: use one of them, or a fixed number of iterations"
            )
        arguments = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.estimator_ = clone(self.estimator).set_params(**fixed).fit(X, y, **arguments)
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Classes or values, shape (n,)."""
        return np.asarray(self.estimator_.predict(X))

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Probabilities of the classes, shape (n, k)."""
        return np.asarray(self.estimator_.predict_proba(X))

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """The classes, in the order of the columns of `predict_proba`."""
        return np.asarray(self.estimator_.classes_)

    def __sklearn_tags__(self) -> Any:
        """Those of the estimator."""
        return get_tags(self.estimator)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a fitted estimator."""
        return hasattr(self, "estimator_")

    def _of_histograms(self, fitted: Any, tested: Any, weights: Any) -> int:
        searched = clone(self.estimator).set_params(early_stopping=True, n_iter_no_change=self.rounds)
        arguments = {} if weights is None else {"sample_weight": weights[0], "sample_weight_val": weights[1]}
        searched.fit(*fitted, X_val=tested[0], y_val=tested[1], **arguments)
        # The first score is that of no tree at all.
        return max(1, int(np.argmax(searched.validation_score_)))

    def _of_lightgbm(self, fitted: Any, tested: Any, weights: Any) -> int:
        import lightgbm

        arguments = {} if weights is None else {"sample_weight": weights[0], "eval_sample_weight": [weights[1]]}
        stop = lightgbm.early_stopping(self.rounds, verbose=False)
        searched = clone(self.estimator).fit(*fitted, eval_set=[tested], callbacks=[stop], **arguments)
        return max(1, int(searched.best_iteration_))
