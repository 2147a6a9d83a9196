"""Features of customers and countries: a row whenever a key's history grew, with windows that end there."""

from ct_assets.defs.models.repurchase.sources import ORDERS
from ct_assets.lib.features import FeatureSet, FeatureSql

CUSTOMER_ORDERS = """
SELECT customer, known_at AS event_timestamp, known_at AS created,
  max(known_at) FILTER (orders > 0) OVER w182 AS last_order_at,
  min(known_at) FILTER (orders > 0) OVER w182 AS first_order_at,
  CAST(sum(orders) OVER w30 AS BIGINT) AS orders_30d, CAST(sum(orders) OVER w182 AS BIGINT) AS orders_182d,
  count(DISTINCT date_trunc('week', known_at)) FILTER (orders > 0) OVER w182 AS weeks_182d,
  CAST(sum(cancelled) OVER w182 AS BIGINT) AS cancelled_182d, sum(spent) OVER w182 AS spent_182d
FROM (
  SELECT customer, known_at, count(DISTINCT invoice) FILTER (quantity > 0) AS orders,
    count(DISTINCT invoice) FILTER (quantity < 0) AS cancelled, sum(greatest(quantity, 0) * price) AS spent
  FROM orders SEMI JOIN (FROM orders WHERE known_at >= $start) AS new USING (customer)
  WHERE customer IS NOT NULL AND price > 0 AND stock_code ~ '[0-9]{5}.*' GROUP BY ALL)
WINDOW w30 AS (PARTITION BY customer ORDER BY known_at RANGE BETWEEN INTERVAL 30 DAYS PRECEDING AND CURRENT ROW),
  w182 AS (PARTITION BY customer ORDER BY known_at RANGE BETWEEN INTERVAL 182 DAYS PRECEDING AND CURRENT ROW)
QUALIFY known_at >= $start AND known_at < $end ORDER BY known_at, customer
"""
COUNTRY_ORDERS = """
SELECT country, known_at AS event_timestamp, known_at AS created,
  sum(orders) OVER w28 / sum(orders) OVER w91 AS country_month_share
FROM (
  SELECT country, known_at, count(DISTINCT invoice) AS orders
  FROM orders SEMI JOIN (FROM orders WHERE known_at >= $start) AS new USING (country)
  WHERE known_at >= $start - INTERVAL 91 DAYS AND customer IS NOT NULL AND quantity > 0 AND price > 0
    AND stock_code ~ '[0-9]{5}.*' GROUP BY ALL)
WINDOW w28 AS (PARTITION BY country ORDER BY known_at RANGE BETWEEN INTERVAL 28 DAYS PRECEDING AND CURRENT ROW),
  w91 AS (PARTITION BY country ORDER BY known_at RANGE BETWEEN INTERVAL 91 DAYS PRECEDING AND CURRENT ROW)
QUALIFY known_at >= $start AND known_at < $end ORDER BY known_at, country
"""
READ = ("customer", "country", "invoice", "stock_code", "quantity", "price", "known_at")
FEATURES = FeatureSet(
    source=ORDERS,
    owner="team:shop",
    lookback_days=182,
    views={"customer_orders": FeatureSql(CUSTOMER_ORDERS, READ), "country_orders": FeatureSql(COUNTRY_ORDERS, READ)},
)
