"""What is known of a pump: a row for each of its readings."""

from ct_assets.lib.features import FeatureSet, FeatureSql

from .sources import OWNER, READINGS

PUMP_DAY = """
SELECT pump, known_at AS event_timestamp, known_at AS created,
  avg(heat) OVER day AS mean_heat, count(*) OVER day AS readings
FROM readings
WINDOW day AS (PARTITION BY pump ORDER BY known_at RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW)
QUALIFY known_at >= $start AND known_at < $end
"""
FEATURES = (
    FeatureSet(
        source=READINGS,
        owner=OWNER,
        lookback_days=1,
        views={"pump_day": FeatureSql(PUMP_DAY, uses=("pump", "heat", "known_at"))},
    ),
)
