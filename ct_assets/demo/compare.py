"""What actually served against two models that did not: one trained once, one retrained by the calendar."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from ct_assets.core.inputs import model_inputs
from ct_assets.core.replay import monthly_metrics, replay_schedule
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import PREDICTION, task_of
from ct_assets.core.training import limited
from ct_assets.demo.driving import be_a_child

METRICS: Mapping[str, tuple[str, ...]] = {
    "binary": ("auc", "logloss"),
    "multiclass": ("accuracy", "logloss"),
    "regression": ("mae", "rmse"),
    "quantile": ("pinball", "coverage"),
}
"""Kind of task -> what is compared."""

FIRST_MONTHS = 3
"""The static model is trained once, on this many months."""


class Comparison:
    """Measures what served, a static model and one retrained by the calendar on the same events.

    A part can be worked off as soon as the loop has scored it, which uses a core that has nothing else to do.

    Args:
        home: `$CT_HOME`.
        spec: The model.
        start: First day of history.
        end: End of history.
        every: How often the third one is retrained, as a pandas offset.
        arm: What that one is called.
    """

    def __init__(
        self,
        home: Path,
        spec: ModelSpec,
        start: pd.Timestamp,
        end: pd.Timestamp,
        every: str = "MS",
        arm: str = "monthly",
    ) -> None:
        self.home = home
        self.spec = spec
        self.end = end
        self.arm = arm
        moments = [m for m in pd.date_range(start + pd.DateOffset(months=FIRST_MONTHS), end, freq=every) if m < end]
        # The first model is the static one; it goes on to the end, and the others to the next one's moment.
        self._todo = list(zip(moments, [end, *moments[2:], end], strict=False))
        self._parts: dict[pd.Timestamp, Future[pd.DataFrame]] = {}
        self._pool = ProcessPoolExecutor(2, get_context("spawn"), be_a_child)

    def advance(self, scored: pd.Timestamp) -> None:
        """Work on one part, the one with the most to learn from, if none is in work and one was scored to its end.

        Args:
            scored: All events before this moment have been scored.
        """
        ready = [month for month in self._todo if month[1] <= scored]
        if ready and all(part.done() for part in self._parts.values()):
            self._todo.remove(ready[-1])
            self._submit(*ready[-1])

    def finish(self) -> dict[str, dict[str, Any]]:
        """Work off what is left.

        Returns:
            For each metric: `served`, `static` and `<arm>_mean` as the mean over months, and `served_monthly`,
            `static_monthly` and `<arm>` by month. Empty before the first training moment, and before any label of
            what was predicted after it.
        """
        while self._todo:
            self._submit(*self._todo.pop())
        parts = [self._parts[moment].result() for moment in sorted(self._parts)]
        self._pool.shutdown()
        if not parts:
            return {metric: {} for metric in METRICS[self.spec.task]}
        first, *later = sorted(self._parts)
        second = later[0] if later else self.end
        served = _labelled_events(self.home, self.spec, self.end, self.end).set_index(self.spec.events.id_column)
        arms = {
            "served": served.loc[(served["event_timestamp"] >= first) & served[PREDICTION].notna()],
            "static": parts[0],
            self.arm: pd.concat([parts[0][parts[0]["event_timestamp"] < second], *parts[1:]]),
        }
        # A label that was not known when its part was predicted is by now.
        known = served.loc[served["label"].notna(), "label"]
        if not known.index.isin(parts[0].index).any():
            return {metric: {} for metric in METRICS[self.spec.task]}
        months = {
            arm: monthly_metrics(
                rows.drop(columns="label").join(known, how="inner"),
                time_column="event_timestamp",
                label_column="label",
                task=task_of(self.spec),
            )
            for arm, rows in arms.items()
        }
        return {metric: _figures(months, metric, self.arm) for metric in METRICS[self.spec.task]}

    def _submit(self, moment: pd.Timestamp, until: pd.Timestamp) -> None:
        self._parts[moment] = self._pool.submit(_replay, self.home, self.spec, moment, until)


def _replay(home: Path, spec: ModelSpec, moment: pd.Timestamp, until: pd.Timestamp) -> pd.DataFrame:
    task = task_of(spec)

    def fit(features: pd.DataFrame, labels: pd.Series) -> Any:
        return task.prepare(spec.estimator.build(spec.seed)).fit(model_inputs(spec, features), task.targets(labels))

    with limited(spec.threads):
        return replay_schedule(
            _labelled_events(home, spec, until, moment).set_index(spec.events.id_column),
            time_column="event_timestamp",
            known_column="known_at",
            label_column="label",
            feature_columns=spec.columns,
            fit=fit,
            train_at=[moment],
            until=until,
            task=task,
        )


def _labelled_events(home: Path, spec: ModelSpec, until: pd.Timestamp, known_by: pd.Timestamp) -> pd.DataFrame:
    """Every scored event before `until` with its features, score and, where there is one, its newest label by then.

    A label is known from maturity on, however early it came: a model that really serves learns from no other.
    """
    from ct_assets.lake.examples import maturing
    from ct_assets.lake.lake import Lake, Window

    id_column, scored, outcomes = spec.events.id_column, f"{spec.name}/scored", f"{spec.name}/performance"
    sql = f"""
WITH newest AS (
  SELECT {id_column}, label, known_at FROM "{outcomes}" WHERE known_at <= $known_by
  QUALIFY row_number() OVER (PARTITION BY {id_column} ORDER BY known_at DESC) = 1
)
SELECT s.* EXCLUDE (known_at), p.label, greatest(p.known_at, {maturing(spec, "s")}) AS known_at
FROM "{scored}" s LEFT JOIN newest p USING ({id_column})
WHERE s.event_timestamp < $until ORDER BY s.event_timestamp, {id_column}
"""
    moments = {"until": until, "known_by": known_by}
    return Lake(home).query(sql, {scored: Window(), outcomes: Window()}, until, moments).to_pandas()


def _figures(arms: dict[str, pd.DataFrame], metric: str, by_calendar: str) -> dict[str, Any]:
    months: dict[str, dict[Any, Any]] = {arm: frame[metric].round(6).to_dict() for arm, frame in arms.items()}
    return {
        "served": _mean(months["served"].values()),
        "static": _mean(months["static"].values()),
        by_calendar: months[by_calendar],
        f"{by_calendar}_mean": _mean(months[by_calendar].values()),
        "served_monthly": months["served"],
        "static_monthly": months["static"],
    }


def _mean(values: Any) -> float:
    found: Sequence[float] = list(values)
    return round(sum(found) / len(found), 6)
