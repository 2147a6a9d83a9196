"""What the shop's order system promises."""

from datetime import date

import pandera.pandas as pa

from ct_assets.lake.contract import Domain, Source

# Bank charges and corrections have any price; half of what is sold costs a few pounds.
IN_POUNDS = pa.Check(lambda prices: prices.empty or prices.median() <= 20, error="half of the prices up to 20 pounds")
ORDERS = Source(
    name="orders",
    schema=pa.DataFrameSchema(
        {
            **dict.fromkeys(("line_id", "stock_code", "country"), pa.Column(object)),
            "invoice": pa.Column(object, pa.Check.str_matches(r"^[AC]?\d{6}$")),
            "description": pa.Column(object, nullable=True),
            "quantity": pa.Column(int, pa.Check.ne(0)),
            "price": pa.Column(float, [pa.Check.in_range(-100_000, 100_000), IN_POUNDS]),
            "customer": pa.Column(object, pa.Check.str_matches(r"^\d{5}$"), nullable=True),
            "known_at": pa.Column("datetime64[us, UTC]"),
        }
    ),
    key=("line_id",),
    description="Order lines of the online shop as they are booked, with cancellations and corrections.",
    owner="team:shop",
    domain=Domain("shop", date(2009, 12, 1), date(2011, 12, 9)),
    min_rows=0,  # on a holiday
)
