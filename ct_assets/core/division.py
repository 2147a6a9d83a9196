"""Which examples a model learns from and which it is judged on, so that no label of the first is of the second's time.

A label is made of what happens after its prediction, up to its maturity. An example that matured after the first
prediction of the holdout says something about the days that the holdout is about: a model that remembers it looks
better there than it will be. So such examples are left out: an embargo (Lopez de Prado, Advances in Financial Machine
Learning, chapter 7).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Mask = npt.NDArray[np.bool_]

MATURES = "matures_at"
"""Column of examples with their moment of maturity."""

STRAGGLERS = 0.05
"""Share of a holdout chosen by maturity that is left out: those predicted longest ago, which would decide alone how
far the embargo reaches back."""


@dataclass(frozen=True)
class Division:
    """Examples divided; those in neither part are under the embargo.

    Attributes:
        train: Which are to learn from, shape (n,).
        holdout: Which are kept to judge on, shape (n,).
        starts: First prediction of the holdout; the last maturity when it has none.
    """

    train: Mask
    holdout: Mask
    starts: pd.Timestamp

    @property
    def embargoed(self) -> int:
        """How many are in neither part."""
        return int((~(self.train | self.holdout)).sum())


def divide(predicted: pd.Series, matures: pd.Series, split_at: pd.Timestamp, by_maturity: bool = False) -> Division:
    """Keep the newest examples, and of the others those that were mature when the first of these was predicted.

    Args:
        predicted: Moment of prediction of each example.
        matures: Its moment of maturity.
        split_at: The newest ones are those predicted from here on.
        by_maturity: They are those that matured from there on: where each event matures by itself, only the fast ones
            of the newest predictions are mature.
    """
    newest = (matures if by_maturity else predicted) >= split_at
    starts = matures.max()
    if newest.any():
        moments = predicted[newest].sort_values()
        starts = moments.iloc[int(STRAGGLERS * len(moments)) if by_maturity else 0]
    holdout = (newest & (predicted >= starts)).to_numpy(dtype=bool)
    return Division((matures <= starts).to_numpy(dtype=bool) & ~holdout, holdout, starts)


def keep_back(
    predicted: pd.Series, matures: pd.Series, first: pd.Timestamp, end: pd.Timestamp, by_maturity: bool = False
) -> Division:
    """Keep the examples that matured in a span of time, and of the others those whose label is of no time of theirs.

    The others may be newer: those predicted once all that is kept was mature.

    Args:
        predicted: Moment of prediction of each example.
        matures: Its moment of maturity.
        first: Begin of the span.
        end: Its end, excluded.
        by_maturity: Whether each event matures by itself: then those kept that were predicted longest ago are left out.
    """
    kept = (matures >= first) & (matures < end)
    if not kept.any():
        return Division(np.ones(len(kept), dtype=bool), kept.to_numpy(dtype=bool), end)
    moments = predicted[kept].sort_values()
    starts = moments.iloc[int(STRAGGLERS * len(moments)) if by_maturity else 0]
    apart = (matures <= starts) | (predicted >= matures[kept].max())
    holdout = kept & (predicted >= starts)
    return Division((apart & ~kept).to_numpy(dtype=bool), holdout.to_numpy(dtype=bool), starts)
