"""Parts of a replay of recorded history: a training at a moment of it, and figures by month."""

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

    A missing label, or one that never became known, is not trained on.

    Parameters: `frame` one row per event, timestamps with a time zone; `fit(features, labels)` trains.
    Returns what `fit` returns. Raises ValueError if there is no such row.
    """
    trained = frame.loc[(frame[known_column] < moment) & frame[label_column].notna()]
    if trained.empty:
        raise ValueError(f"no label was known before {moment}; start the replay later")
    return fit(trained[list(feature_columns)], trained[label_column])


def monthly_metrics(
    predictions: pd.DataFrame, *, time_column: str, label_column: str, task: Task = BINARY
) -> pd.DataFrame:
    """Metrics by UTC calendar month of the event.

    Parameters: `predictions` one row per event, with the task's prediction columns.
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
