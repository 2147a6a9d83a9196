"""What actually served against two models that did not: one trained once, one retrained by the calendar."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from ct_assets.core.fitting import fit
from ct_assets.core.inner_split import RowTimes
from ct_assets.core.inputs import model_inputs
from ct_assets.core.replay import fit_before, monthly_metrics
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import task_of
from ct_assets.core.training import limited
from ct_assets.demo.driving import be_a_child
from ct_assets.lake.engine import quoted
from ct_assets.lake.examples import INSTANT, MATURES, day_of, maturity, newest_versions, scored_name
from ct_assets.lake.frames import to_frame
from ct_assets.lake.lake import Lake, Window

METRICS: Mapping[str, tuple[str, ...]] = {
    "binary": ("auc", "logloss"),
    "multiclass": ("accuracy", "logloss"),
    "regression": ("mae", "rmse"),
    "quantile": ("pinball", "coverage"),
}
"""Kind of task -> what is compared."""

FIRST_MONTHS = 3
"""The static model is trained once, on this many months."""


Predictions = tuple[pd.DataFrame, ...]
"""Of each model that was asked, a frame by event id with the moment and the task's columns."""


class Comparison:
    """Measures what served, a static model and one retrained by the calendar on the same events.

    A job can be done as soon as the loop has scored what it needs, which uses a core that has nothing else to do.

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
        # Training moment -> until when its model predicts; the first one is the static one, which goes on to the end.
        self._ends = dict(zip(moments, [*moments[1:], end], strict=False))
        self._models: dict[pd.Timestamp, Future[Any]] = {}
        self._parts: dict[pd.Timestamp, Future[Predictions]] = {}
        self._pool = ProcessPoolExecutor(2, get_context("spawn"), be_a_child)

    def advance(self, scored: pd.Timestamp) -> None:
        """Begin one training, or the predictions of one part, if nothing is in work.

        Args:
            scored: All events before this moment have been scored.
        """
        if not all(job.done() for job in (*self._models.values(), *self._parts.values())):
            return
        for moment, end in self._ends.items():
            if moment <= scored and moment not in self._models:
                return self._train(moment)
            if end <= scored and moment not in self._parts:
                return self._predict(moment)

    def finish(self) -> dict[str, dict[str, Any]]:
        """Do what is left.

        Returns:
            For each metric: `served`, `static` and `<arm>_mean` as the mean over months, and `served_monthly`,
            `static_monthly` and `<arm>` by month. Empty before the first training moment, and before any label of
            what was predicted after it.
        """
        nothing: dict[str, dict[str, Any]] = {metric: {} for metric in METRICS[self.spec.task]}
        if not self._ends:
            return nothing
        for moment in self._ends.keys() - self._models.keys():
            self._train(moment)
        for moment in self._ends.keys() - self._parts.keys():
            self._predict(moment)
        served = _served(self.home, self.spec, min(self._ends), self.end)
        parts = [self._parts[moment].result() for moment in self._ends]
        self._pool.shutdown()
        # What served is compared on the events that it scored: before the first champion, nothing did.
        served = served[served[task_of(self.spec).columns].notna().all(axis=1)]
        known = served["label"].dropna()
        if known.empty:
            return nothing
        arms = {
            "served": served.drop(columns="label"),
            "static": pd.concat([static for static, _ in parts]),
            self.arm: pd.concat([retrained for _, retrained in parts]),
        }
        months = {
            arm: monthly_metrics(
                rows.join(known, how="inner"),
                time_column="event_timestamp",
                label_column="label",
                task=task_of(self.spec),
            )
            for arm, rows in arms.items()
        }
        return {metric: _figures(months, metric, self.arm) for metric in METRICS[self.spec.task]}

    def _train(self, moment: pd.Timestamp) -> None:
        self._models[moment] = self._pool.submit(_fit, self.home, self.spec, moment)

    def _predict(self, moment: pd.Timestamp) -> None:
        models = [self._models[first].result() for first in (min(self._ends), moment)]
        self._parts[moment] = self._pool.submit(_predict, self.home, self.spec, models, moment, self._ends[moment])


def _fit(home: Path, spec: ModelSpec, moment: pd.Timestamp) -> Any:
    task = task_of(spec)

    events = _labelled_events(home, spec, moment)

    def train(features: pd.DataFrame, labels: pd.Series) -> Any:
        times = RowTimes.of(events.loc[features.index], spec.label.reach)
        model = task.prepare(spec.estimator.build(spec.seed))
        return fit(model, model_inputs(spec, features), task.targets(labels), times=times)

    with limited(spec.threads):
        return fit_before(
            events,
            moment,
            known_column="known_at",
            label_column="label",
            feature_columns=spec.columns,
            fit=train,
        )


def _predict(home: Path, spec: ModelSpec, models: Sequence[Any], start: pd.Timestamp, end: pd.Timestamp) -> Predictions:
    """What each of the models predicts for the events from `start` to `end` (excluded), by event id."""
    events = _scored_events(home, spec, spec.inputs, start, end)
    moments, inputs = events[["event_timestamp"]], model_inputs(spec, events)
    with limited(spec.threads):
        predicted = [task_of(spec).frame(task_of(spec).predict(model, inputs)) for model in models]
    return tuple(pd.concat([moments, frame.set_index(events.index)], axis=1) for frame in predicted)


def _served(home: Path, spec: ModelSpec, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
    """What was really predicted for those events, by event id, with the newest label known at `end`."""
    events = _scored_events(home, spec, task_of(spec).columns, start, end)
    return events.join(_newest_labels(home, spec, end)["label"])


def _labelled_events(home: Path, spec: ModelSpec, moment: pd.Timestamp) -> pd.DataFrame:
    """Every event scored before a moment, by event id, with the newest label known then, if there is one.

    A label is known from maturity on, however early it came: a model that really serves learns from no other.
    """
    own = [MATURES] if spec.label.reach is None else []
    events = _scored_events(home, spec, [*spec.inputs, *own], pd.Timestamp(0, tz="UTC"), moment)
    labelled = events.join(_newest_labels(home, spec, moment))
    mature = maturity(spec, labelled)
    return labelled.assign(known_at=labelled["known_at"].clip(lower=mature).where(mature.notna()))


def _scored_events(
    home: Path, spec: ModelSpec, columns: Collection[str], start: pd.Timestamp, end: pd.Timestamp
) -> pd.DataFrame:
    name, id_column = scored_name(spec), spec.events.id_column
    wanted = ", ".join(map(quoted, [id_column, "event_timestamp", *columns]))
    sql = f"""
SELECT {wanted} FROM "{name}" WHERE event_timestamp >= $start AND event_timestamp < $end
ORDER BY event_timestamp, {quoted(id_column)}
"""
    window = Window(day_of(start), day_of(end - INSTANT))
    rows = to_frame(Lake(home).query(sql, {name: window}, end, {"start": start, "end": end}))
    return newest_versions(rows, id_column).set_index(id_column)


def _newest_labels(home: Path, spec: ModelSpec, known_by: pd.Timestamp) -> pd.DataFrame:
    name, id_column = f"{spec.name}/performance", spec.events.id_column
    key = quoted(id_column)
    sql = f"""
SELECT {key}, label, known_at FROM "{name}"
QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY known_at DESC) = 1
"""
    found = Lake(home).query(sql, {name: Window()}, known_by)
    return to_frame(found).set_index(id_column)


def _figures(arms: dict[str, pd.DataFrame], metric: str, by_calendar: str) -> dict[str, Any]:
    months: dict[str, dict[Any, Any]] = {
        arm: {month: None if pd.isna(value) else round(value, 6) for month, value in frame[metric].items()}
        for arm, frame in arms.items()
    }
    return {
        "served": _mean(months["served"].values()),
        "static": _mean(months["static"].values()),
        by_calendar: months[by_calendar],
        f"{by_calendar}_mean": _mean(months[by_calendar].values()),
        "served_monthly": months["served"],
        "static_monthly": months["static"],
    }


def _mean(values: Any) -> float | None:
    """Over the months that have a figure: one of one class has no AUC."""
    found = [value for value in values if value is not None]
    return round(sum(found) / len(found), 6) if found else None
