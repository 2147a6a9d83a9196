"""The same views for Feast, and what is computed at the moment of a prediction."""

from datetime import timedelta
from functools import partial
from typing import Any

from feast import FeatureService, Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, UnixTimestamp

from feature_repo.lake_views import lake_view, text_entity

MOMENTS = dict.fromkeys(("last_order_at", "first_order_at"), UnixTimestamp)
COUNTS = dict.fromkeys(("orders_30d", "orders_182d", "weeks_182d", "cancelled_182d"), Int64)
DAYS = [Field(name=name, dtype=Float64) for name in ("days_since_last", "days_since_first")]
view = partial(lake_view, ttl=timedelta(days=182), upstream="orders", owner="team:shop")
customer, country = text_entity("customer", "Account with the shop"), text_entity("country", "Where its orders go")
customer_orders = view(
    "customer_orders",
    customer,
    features=MOMENTS | COUNTS | {"spent_182d": Float64},
    description="What the customer bought in the half-year up to the latest order or cancellation, in pounds",
)
country_orders = view(
    "country_orders",
    country,
    features={"country_month_share": Float64},
    description="Orders to the country in 28 days as a share of those in 91, up to the latest one",
)
asked = RequestSource(name="repurchase_request", schema=[Field(name="asked_at", dtype=UnixTimestamp)])


@on_demand_feature_view(sources=[customer_orders, asked], schema=DAYS, mode="python")
def customer_clock(inputs: dict[str, Any]) -> dict[str, Any]:
    """Days since the last and the first order of the half-year; online, a moment comes in whole seconds."""
    from pandas import isna

    def days(*moments: Any) -> float | None:
        seconds = [m.timestamp() if hasattr(m, "timestamp") else m for m in moments if not isna(m)]
        return (seconds[0] - seconds[1]) / 86_400 if len(seconds) == 2 else None

    return {f"days_since_{n}": list(map(days, inputs["asked_at"], inputs[f"{n}_order_at"])) for n in ("last", "first")}


repurchase_v1 = FeatureService(name="repurchase_v1", features=[customer_orders, country_orders, customer_clock])
OBJECTS = [customer, country, customer_orders, country_orders, customer_clock, repurchase_v1]
