"""A recorded table, cut into the days on which its rows became known."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa

__all__ = ["Days"]


class Days:
    """A table sorted by a UTC moment, cut into days without a copy.

    Parameters
    ----------
    table : the rows, at least one
    by : column with the moment that tells a row's day
    order : columns that order the rows of one moment

    Attributes
    ----------
    first, last : the UTC days of the first and the last row
    """

    first: date
    last: date

    def __init__(self, table: pa.Table, *, by: str, order: list[str]) -> None:
        self._table = table.sort_by([(column, "ascending") for column in (by, *order)])
        moments = self._table[by].to_numpy()
        self._days = moments.astype("datetime64[D]")
        self.first = self._days[0].item()
        self.last = self._days[-1].item()

    def rows(self, day: date) -> pa.Table:
        """Return the rows whose moment lies in [day 00:00, next day 00:00) UTC."""
        start, stop = np.searchsorted(self._days, [np.datetime64(day), np.datetime64(day + timedelta(days=1))])
        return self._table.slice(start, stop - start)
