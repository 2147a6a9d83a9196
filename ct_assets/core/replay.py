"""Replay of a training schedule over recorded history: what would the models have predicted?"""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from ct_assets.core.tasks import BINARY, Task

Fit = Callable[[pd.DataFrame, pd.Series], Any]


def fit_before(
    frame: pd.DataFrame,
    moment: pd.Timestamp,
    *,
    known_column: str,
    label_column: str,
    feature_columns: Sequence[str],
    fit: Fit,
) -> Any:
    """Train on the rows whose label became known before a moment (`known_column` < `moment`).

    Parameters: as in `replay_schedule`. Returns what `fit` returns. Raises ValueError if there is no such row.
    """
    trained = frame.loc[(frame[known_column] < moment) & frame[label_column].notna()]
    if trained.empty:
        raise ValueError(f"no label was known before {moment}; start the replay later")
    return fit(trained[list(feature_columns)], trained[label_column])


def replay_schedule(
    frame: pd.DataFrame,
    *,
    time_column: str,
    known_column: str,
    label_column: str,
    feature_columns: Sequence[str],
    fit: Fit,
    train_at: Sequence[pd.Timestamp],
    until: pd.Timestamp,
    task: Task = BINARY,
) -> pd.DataFrame:
    """Train at each moment on what was known, predict every event until the next moment.

    A row is trained on at t if its label became known before t (`known_column` < t); a missing label, or a label never
    known, is not trained on. Each model predicts the rows with t <= `time_column` < the next moment, the last one up
    to `until`; rows before the first moment are not predicted.

    Parameters: `frame` one row per event, timestamps with a time zone; `fit(features, labels)` returns an object that
    the task can ask; `train_at` moments in any order. One moment is a static model.
    Returns one row per predicted event in order of time, with the frame's index: time_column, label_column, the task's
    prediction columns (binary: the probability of class 1), model_as_of.
    Raises ValueError if a moment has no row to train on or lies at or after `until`, or a column is missing.
    """
    needed = [time_column, known_column, label_column, *feature_columns]
    absent = [name for name in needed if name not in frame.columns]
    if absent:
        raise ValueError(f"the frame has no column {', '.join(absent)}")
    moments = sorted(set(train_at))
    if not moments or moments[-1] >= until:
        raise ValueError(f"train_at needs at least one moment, all before until {until}; got {moments}")
    ordered = frame.sort_values(time_column, kind="stable")
    features = ordered[list(feature_columns)]
    parts = []
    for moment, end in zip(moments, [*moments[1:], until], strict=True):
        model = fit_before(
            ordered,
            moment,
            known_column=known_column,
            label_column=label_column,
            feature_columns=feature_columns,
            fit=fit,
        )
        low, high = (int(ordered[time_column].searchsorted(t, side="left")) for t in (moment, end))
        part = ordered.iloc[low:high][[time_column, label_column]]
        predictions = task.frame(task.predict(model, features.iloc[low:high])).set_index(part.index)
        parts.append(pd.concat([part, predictions], axis=1).assign(model_as_of=moment))
    return pd.concat(parts)


def monthly_metrics(
    predictions: pd.DataFrame, *, time_column: str, label_column: str, task: Task = BINARY
) -> pd.DataFrame:
    """Metrics by UTC calendar month of the event, of what `replay_schedule` returned.

    Returns one row per month, index "YYYY-MM" ascending: `events` (all), and the task's metrics over the rows whose
    label is known.
    """
    months = predictions[time_column].dt.tz_convert("UTC").dt.strftime("%Y-%m")
    result = {}
    for month, rows in predictions.groupby(months.to_numpy(), sort=True):
        labelled = rows[rows[label_column].notna()]
        labels, shown = task.stored(labelled[label_column]), task.array(labelled)
        result[month] = {"events": float(len(rows)), **task.figures(task.codes(labels), shown)}
    return pd.DataFrame.from_dict(result, orient="index").rename_axis("month")
