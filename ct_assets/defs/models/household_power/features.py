"""How the features of the load are computed: a row at the end of each hour, from the 28 days that end there."""

from ct_assets.defs.models.household_power.sources import METER
from ct_assets.lib.features import FeatureSet, FeatureSql

OF_HOUSEHOLD = "PARTITION BY household ORDER BY ends RANGE BETWEEN INTERVAL"


def _over(hours: int) -> str:
    return f"OVER ({OF_HOUSEHOLD} {hours - 1} HOURS PRECEDING AND CURRENT ROW)"


def _before(*days: int) -> str:
    """The load so many days before the hour to predict, which begins in a day: at least two. Of several, their mean."""
    frames = [f"{OF_HOUSEHOLD} {24 * n - 25} HOURS PRECEDING AND INTERVAL {24 * n - 25} HOURS PRECEDING" for n in days]
    return f"list_avg([{', '.join(f'max(load) OVER ({frame})' for frame in frames)}])"


LOAD_HISTORY = f"""
WITH hours AS (
  -- A meter that hangs repeats one reading; too few minutes say little of an hour.
  SELECT household, ends, CASE WHEN count(active_power) >= 45 AND min(voltage) < max(voltage) THEN avg(active_power) END
    AS load, avg(voltage) AS volts, sum(active_power) * 1000 / 60 AS energy, sum(heater_wh) AS heater,
    sum(kitchen_wh + laundry_wh) AS machines
  FROM (SELECT *, date_trunc('hour', known_at - INTERVAL 1 MINUTE) + INTERVAL 1 HOUR AS ends FROM meter)
  GROUP BY household, ends HAVING max(known_at) = ends
)
SELECT household, ends AS event_timestamp, ends AS created,
  avg(load) {_over(6)} AS load_6h, avg(load) {_over(24)} AS load_24h,
  avg(load) {_over(168)} AS load_7d, avg(load) {_over(672)} AS load_28d,
  {_before(2)} AS load_2_days_before, {_before(7)} AS load_week_before,
  {_before(2, 3, 4, 5, 6, 7)} AS load_same_hour_7d, {_before(7, 14, 21, 28)} AS load_same_hour_28d,
  sum(heater) {_over(168)} / sum(energy) {_over(168)} AS heater_share_7d,
  sum(machines) {_over(168)} / sum(energy) {_over(168)} AS machines_share_7d,
  avg(volts) {_over(24)} AS voltage_24h
FROM hours QUALIFY ends >= $start AND ends < $end ORDER BY ends, household
"""
VIEWS = {"load_history": FeatureSql(LOAD_HISTORY, tuple(METER.schema.columns))}
FEATURES = FeatureSet(source=METER, views=VIEWS, owner=METER.owner, lookback_days=28)
