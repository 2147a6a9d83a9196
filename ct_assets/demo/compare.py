"""What actually served against two models that did not: one trained once, one retrained every month."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from ct_assets.core.inputs import model_inputs
from ct_assets.core.replay import monthly_metrics, replay_schedule
from ct_assets.core.spec import ModelSpec
from ct_assets.core.training import PREDICTION
from ct_assets.demo.driving import quiet

METRICS = ("auc", "logloss")
FIRST_MONTHS = 3
"""The static model is trained once, on this many months."""


def compare(home: Path, spec: ModelSpec, start: pd.Timestamp, end: pd.Timestamp) -> dict[str, dict[str, Any]]:
    """Measure what served, a static model and a monthly one on the same events.

    Args:
        home: `$CT_HOME`.
        spec: The model.
        start: First day of history.
        end: End of history.

    Returns:
        For each metric: `served` and `static` as the mean over months, `monthly` by month for the monthly model, and
        `served_monthly`, `static_monthly` by month. Empty before the first training moment.
    """
    moments = [m for m in pd.date_range(start, end, freq="MS", tz="UTC")[FIRST_MONTHS:] if m < end]
    if not moments:
        return {metric: {} for metric in METRICS}
    # The first month's model is the static one; it goes on to the end, and the others to the next month.
    ends = [end, *moments[2:], end][: len(moments)]
    order = sorted(range(len(moments)), key=lambda i: -i)
    with ProcessPoolExecutor(2, get_context("spawn"), _open_worker, (home, spec, end)) as pool:
        # The longest trainings come first, so that both cores finish together.
        futures = {i: pool.submit(_replay, moments[i], ends[i]) for i in order}
        parts = [futures[i].result() for i in range(len(moments))]
    static, second = parts[0], moments[1] if len(moments) > 1 else end
    monthly = pd.concat([static[static["event_timestamp"] < second], *parts[1:]])
    rows = _labelled(home, spec, end)
    served = rows[(rows["event_timestamp"] >= moments[0]) & rows[PREDICTION].notna()]
    arms = {
        "served": _by_month(served),
        "static": _by_month(static),
        "monthly": _by_month(monthly),
    }
    return {metric: _figures(arms, metric) for metric in METRICS}


_worker: dict[str, Any] = {}


def _open_worker(home: Path, spec: ModelSpec, end: pd.Timestamp) -> None:
    """Read the rows once a process; sending them along with each task would cost more than the reading."""
    quiet()
    _worker.update(spec=spec, rows=_labelled(home, spec, end))


def _replay(moment: pd.Timestamp, until: pd.Timestamp) -> pd.DataFrame:
    spec: ModelSpec = _worker["spec"]

    def fit(features: pd.DataFrame, labels: pd.Series) -> Any:
        return spec.estimator.build().fit(model_inputs(spec, features), labels.to_numpy())

    with threadpool_limits(spec.threads):
        return replay_schedule(
            _worker["rows"],
            time_column="event_timestamp",
            known_column="known_at",
            label_column="label",
            feature_columns=spec.columns,
            fit=fit,
            train_at=[moment],
            until=until,
        )


def _labelled(home: Path, spec: ModelSpec, end: pd.Timestamp) -> pd.DataFrame:
    from ct_assets.lake.lake import Lake, Window

    id_column, scored, outcomes = spec.events.id_column, f"{spec.name}/scored", f"{spec.name}/performance"
    sql = f"""
SELECT s.* EXCLUDE (known_at), p.label, p.known_at FROM "{scored}" s JOIN "{outcomes}" p USING ({id_column})
ORDER BY s.event_timestamp, {id_column}
"""
    return Lake(home).query(sql, {scored: Window(), outcomes: Window()}, end).to_pandas()


def _by_month(predictions: pd.DataFrame) -> pd.DataFrame:
    return monthly_metrics(predictions, time_column="event_timestamp", label_column="label")


def _figures(arms: dict[str, pd.DataFrame], metric: str) -> dict[str, Any]:
    months: dict[str, dict[Any, Any]] = {arm: frame[metric].round(6).to_dict() for arm, frame in arms.items()}
    return {
        "served": _mean(months["served"].values()),
        "static": _mean(months["static"].values()),
        "monthly": months["monthly"],
        "monthly_mean": _mean(months["monthly"].values()),
        "served_monthly": months["served"],
        "static_monthly": months["static"],
    }


def _mean(values: Any) -> float:
    found: Sequence[float] = list(values)
    return round(sum(found) / len(found), 6)
