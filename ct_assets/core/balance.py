"""Rare classes: trained on as if they were frequent, predicted as rare as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ct_assets.core.strategies import Positions, StrategySpec

Floats = npt.NDArray[np.float64]

_MATCHING_STEPS = 100
_BY_CHANCE = 1.96
"""Standard errors within which 95 of 100 counts of a class fall that are predicted well."""


class PriorCorrected:
    """A classifier trained on other class shares than the true ones, with its probabilities corrected.

    Training with class k counted w_k times multiplies the odds that it learns; dividing each probability by w_k, and by
    their sum, gives back those of the true shares (Elkan 2001; Saerens, Latinne and Decaestecker 2002). Keeping a share
    of the negatives is the same with that share as their w (Dal Pozzolo et al. 2015).

    Args:
        estimator: Fitted classifier with `predict_proba`.
        trained: w_k of each class, in the order of the estimator's `classes_`.
        weights: What the probabilities are divided by; `trained` unless it was matched to examples.
    """

    def __init__(self, estimator: Any, trained: Floats, weights: Floats | None = None) -> None:
        self.estimator = estimator
        self.trained = trained
        self.weights = trained if weights is None else weights

    def agrees(self, raw: Floats, shares: Floats, row_weights: Floats) -> bool:
        """Whether its probabilities are off from the shares of the classes by no more than chance explains.

        Args:
            raw: As `matched` takes them.
            shares: Likewise.
            row_weights: Likewise.
        """
        expected = _divided(raw, self.weights)
        off = np.abs(np.average(expected, axis=0, weights=row_weights) - shares) * row_weights.sum()
        return bool((off <= _BY_CHANCE * np.sqrt(row_weights**2 @ (expected * (1 - expected)))).all())

    def matched(self, raw: Floats, shares: Floats, row_weights: Floats) -> "PriorCorrected":
        """The same with `weights` such that the mean corrected probability of each class is its share.

        A learner that is regularized, or stopped early, among classes of equal weight predicts too few rare ones once
        corrected; a logistic regression with a free intercept would not, as this is its score equation. So the
        intercept is fitted, by iterative proportional fitting.

        Args:
            raw: Uncorrected probabilities of examples under their true shares, by models that did not learn from them:
                on what it knows by heart, a model looks sharper than it is. Shape (n, k).
            shares: Of the classes among these examples, shape (k,).
            row_weights: How much each of them counts, shape (n,).
        """
        weights = self.trained
        for _ in range(_MATCHING_STEPS):
            weights = weights * np.average(_divided(raw, weights), axis=0, weights=row_weights) / shares
        return PriorCorrected(self.estimator, self.trained, weights / weights.sum() * self.trained.sum())

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """The classes, in the order of the columns of `predict_proba`."""
        return np.asarray(self.estimator.classes_)

    def predict_proba(self, features: Any, /) -> Floats:
        """Probabilities of the classes under their true shares, shape (n, k)."""
        return _divided(np.asarray(self.estimator.predict_proba(features), dtype=np.float64), self.weights)

    def predict(self, features: Any, /) -> npt.NDArray[Any]:
        """The most probable class of each row, shape (n,)."""
        return np.asarray(self.classes_[np.argmax(self.predict_proba(features), axis=1)])


def _divided(probabilities: Floats, weights: Floats) -> Floats:
    divided = probabilities / weights
    return np.asarray(divided / divided.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Balanced:
    """What to fit so that rare classes are learned.

    Attributes:
        rows: Positions of the examples to fit, ascending.
        class_weights: How many times each class counts among them beyond the example's own weight.
        correction: By how much each class is over-represented in total: what `PriorCorrected` divides by.
    """

    rows: Positions
    class_weights: Mapping[Any, float]
    correction: Mapping[Any, float]


def balanced(
    strategy: StrategySpec,
    labels: pd.Series,
    weights: Floats | None,
    seed: int,
    correction: Mapping[Any, float] | None = None,
) -> Balanced | None:
    """Find weights or rows that balance the classes; None when the strategy asks for none.

    Args:
        strategy: Says how.
        labels: Classes, shape (n,); for `undersample` 0 and 1.
        weights: What each example counts, shape (n,); None when all count the same.
        seed: For the negatives that are drawn.
        correction: That of the model which the training goes on from: its probabilities stay on the same scale.
    """
    rows = np.arange(len(labels))
    values = labels.to_numpy()
    if strategy.balance == "weights":
        found = correction or _equal_totals(values, weights)
        return Balanced(rows, found, found)
    if strategy.balance == "undersample":
        negatives = np.flatnonzero(values == 0)
        kept = _kept(strategy.negatives, int((values == 1).sum()), len(negatives))
        share = kept / len(negatives) if correction is None and len(negatives) else (correction or {}).get(0, 1.0)
        drawn = np.random.default_rng(seed).choice(negatives, round(share * len(negatives)), replace=False)
        return Balanced(np.union1d(np.flatnonzero(values == 1), drawn), {}, {0: share, 1: 1.0})
    return None


def _kept(per_positive: float, positives: int, negatives: int) -> int:
    return min(negatives, max(1, round(per_positive * positives)))


def _equal_totals(values: npt.NDArray[Any], weights: Floats | None) -> dict[Any, float]:
    """Weights of the classes with which each has the same total, and all together the one they had."""
    totals = pd.Series(np.ones(len(values)) if weights is None else weights).groupby(values).sum()
    return {name: float(totals.sum() / (len(totals) * total)) for name, total in totals.items()}
