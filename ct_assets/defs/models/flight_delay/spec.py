"""Will a flight arrive more than 15 minutes late, two hours before it is due to leave?"""

from datetime import timedelta

from ct_assets.core.gate import GatePolicy
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.spec import EstimatorSpec, EventSpec, LabelSpec, ModelSpec

SPEC = ModelSpec(
    name="flight_delay",
    owner="ml@ct-assets.example",
    description="Will the flight arrive more than 15 minutes late?",
    tier="standard",
    events=EventSpec(
        source="flights",
        id_column="flight_id",
        lookback_days=2,
        sql="""
SELECT flight_id, sched_dep - INTERVAL 2 HOURS AS event_timestamp, carrier, origin, dest, route, tailnum,
  origin || '|' || strftime(date_trunc('hour', sched_dep), '%Y-%m-%dT%H') AS origin_hour, 'all' AS network,
  sched_dep, sched_arr
FROM flights
""",
    ),
    label=LabelSpec(
        source="flight_outcomes",
        delay=timedelta(hours=36),
        sql="""
SELECT flight_id, CAST(delay > 15 AS TINYINT) AS label, known_at FROM flight_outcomes WHERE kind = 'arrival'
""",
    ),
    entities=("origin", "carrier", "dest", "route", "tailnum", "origin_hour", "network"),
    request={"sched_dep": "timestamp", "sched_arr": "timestamp"},
    feature_service="flight_delay_v1",
    inputs={
        "carrier": "categorical",
        "origin": "categorical",
        **dict.fromkeys(
            (
                *("departure_minute", "weekday", "scheduled_minutes", "distance", "scheduled_departures"),
                *("plane_age", "seats", "engines"),
                *("temperature", "dew_point", "humidity", "wind_direction", "wind_speed"),
                *("precipitation", "pressure", "visibility"),
                *("origin_mean_3h", "origin_late_3h", "origin_count_3h", "origin_mean_24h", "origin_count_24h"),
                *("carrier_mean_6h", "carrier_count_6h", "carrier_mean_7d", "carrier_late_7d"),
                *("dest_mean_24h", "dest_count_24h"),
                *("route_mean_7d", "route_late_7d", "route_count_7d"),
                *("tail_mean_3d", "tail_last_3d", "tail_count_3d"),
                *("network_mean_3h", "network_late_3h", "network_count_3h"),
            ),
            "numeric",
        ),
    },
    slices=("carrier", "origin"),
    estimator=EstimatorSpec(
        path="ct_assets.defs.models.flight_delay.estimator.boosted_trees",
        params={
            "max_iter": 50,
            "learning_rate": 0.15,
            "max_leaf_nodes": 31,
            "min_samples_leaf": 100,
            "max_bins": 63,
        },
    ),
    seed=7,
    trusted_types=("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",),
    evaluation_days=7,
    policy=RetrainPolicy(
        first_training_rows=20_000,
        schedule_days=30,
        new_label_rows=40_000,
        drift_share=0.5,
        performance_drop=0.05,
        performance_window_days=14,
        performance_min_rows=3_000,
        cooldown_days=21,
    ),
    gate=GatePolicy(
        tolerance=0.01,
        floor=0.62,
        beat_baseline=True,
        slice_tolerance=0.08,
        min_slice_rows=500,
        min_rows=2_000,
    ),
)
