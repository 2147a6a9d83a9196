"""How the feature rows of the flights are computed.

A delay feature has a row for every moment at which its key's history grew; the value covers the window that ends at
that moment, both ends included. Looking it up as of a prediction therefore gives the state after the latest message
known by then.
"""

import pandas as pd

from ct_assets.defs.sources.contracts import FLIGHT_OUTCOMES, FLIGHTS, OWNER, PLANES, WEATHER
from ct_assets.lib.features import FeatureSet, FeatureSql

LATE_MINUTES = 15
DURATIONS = {"3h": "3 HOURS", "6h": "6 HOURS", "24h": "24 HOURS", "3d": "3 DAYS", "7d": "7 DAYS"}
STATISTICS = {
    "mean": "sum(total) OVER w{w} / sum(n) OVER w{w}",
    "late": "sum(late) OVER w{w} / sum(n) OVER w{w}",
    "count": "CAST(sum(n) OVER w{w} AS BIGINT)",
    "last": "latest",
}


def delays(
    prefix: str, key: str, kind: str, windows: dict[str, tuple[str, ...]], expression: str | None = None
) -> FeatureSql:
    """SQL of one delay view.

    Args:
        prefix: What the features' names begin with.
        key: Join key.
        kind: `departure` or `arrival`.
        windows: Window name to the statistics wanted.
        expression: SQL of the key when it is not a column of the messages.
    """
    features = ",\n  ".join(
        f"{STATISTICS[s].format(w=w)} AS {prefix}_{s}_{w}" for w, statistics in windows.items() for s in statistics
    )
    frames = ",\n  ".join(
        f"w{w} AS (PARTITION BY {key} ORDER BY known_at "
        f"RANGE BETWEEN INTERVAL {DURATIONS[w]} PRECEDING AND CURRENT ROW)"
        for w in windows
    )
    longest = max(windows, key=lambda w: pd.Timedelta(DURATIONS[w]))
    sql = f"""
WITH moments AS (
  SELECT {expression or key} AS {key}, known_at, count(*) AS n, sum(delay) AS total,
    count(*) FILTER (delay > {LATE_MINUTES}) AS late, max_by(delay, flight_id) AS latest
  FROM flight_outcomes
  WHERE kind = '{kind}' AND {expression or key} IS NOT NULL AND known_at >= $start - INTERVAL {DURATIONS[longest]}
  GROUP BY ALL
)
SELECT {key}, known_at AS event_timestamp, known_at AS created,
  {features}
FROM moments
WINDOW {frames}
QUALIFY known_at >= $start AND known_at < $end
ORDER BY known_at, {key}
"""
    return FeatureSql(sql, ("known_at", "delay", "kind", *(() if expression else (key,))))


OUTCOME_FEATURES = FeatureSet(
    source=FLIGHT_OUTCOMES,
    lookback_days=7,
    owner=OWNER,
    views={
        "origin_delays": delays(
            "origin", "origin", "departure", {"3h": ("mean", "late", "count"), "24h": ("mean", "count")}
        ),
        "carrier_delays": delays("carrier", "carrier", "arrival", {"6h": ("mean", "count"), "7d": ("mean", "late")}),
        "destination_delays": delays("dest", "dest", "arrival", {"24h": ("mean", "count")}),
        "route_delays": delays("route", "route", "arrival", {"7d": ("mean", "late", "count")}),
        "tail_delays": delays("tail", "tailnum", "arrival", {"3d": ("mean", "last", "count")}),
        "network_delays": delays("network", "network", "departure", {"3h": ("mean", "late", "count")}, "'all'"),
    },
)

SCHEDULE_FEATURES = FeatureSet(
    source=FLIGHTS,
    owner=OWNER,
    views={
        "route_info": FeatureSql(
            """
SELECT route, known_at AS event_timestamp, known_at AS created, max(distance) AS distance
FROM flights WHERE known_at >= $start AND known_at < $end GROUP BY ALL ORDER BY route
""",
            ("route", "distance", "known_at"),
        ),
        "origin_load": FeatureSql(
            """
SELECT origin || '|' || strftime(date_trunc('hour', sched_dep), '%Y-%m-%dT%H') AS origin_hour,
  known_at AS event_timestamp, known_at AS created, count(*) AS scheduled_departures
FROM flights WHERE known_at >= $start AND known_at < $end GROUP BY ALL ORDER BY origin_hour
""",
            ("origin", "sched_dep", "known_at"),
        ),
    },
)

WEATHER_FEATURES = FeatureSet(
    source=WEATHER,
    owner=OWNER,
    views={
        "weather": FeatureSql(
            """
SELECT origin, observed_at AS event_timestamp, known_at AS created, temp AS temperature, dewp AS dew_point,
  humid AS humidity, wind_dir AS wind_direction,
  -- No gust on record tops 260 mph: more is a broken gauge.
  CASE WHEN wind_speed <= 260 THEN wind_speed END AS wind_speed,
  precip AS precipitation, pressure, visib AS visibility
FROM weather WHERE known_at >= $start AND known_at < $end ORDER BY known_at, origin
""",
            (
                "origin",
                "observed_at",
                "known_at",
                "temp",
                "dewp",
                "humid",
                "wind_dir",
                "wind_speed",
                "precip",
                "pressure",
                "visib",
            ),
        )
    },
)

PLANE_FEATURES = FeatureSet(
    source=PLANES,
    owner=OWNER,
    views={
        "plane": FeatureSql(
            """
SELECT tailnum, known_at AS event_timestamp, known_at AS created, year_built, seats, engines
FROM planes WHERE known_at >= $start AND known_at < $end ORDER BY tailnum
""",
            ("tailnum", "year_built", "seats", "engines", "known_at"),
        )
    },
)

FEATURE_SETS = (OUTCOME_FEATURES, SCHEDULE_FEATURES, WEATHER_FEATURES, PLANE_FEATURES)
