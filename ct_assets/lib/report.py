"""The evaluation report: one page that says why a challenger may serve or not, and what would have changed that."""

import base64
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ct_assets.core.baselines import in_words
from ct_assets.core.drift import DriftReport
from ct_assets.core.inputs import model_inputs
from ct_assets.core.metrics import HIGHER_IS_BETTER, advantage, higher_is_better
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import Multiclass, Quantile, Regression, Task, task_of
from ct_assets.core.training import predict
from ct_assets.core.verdict import Check, SliceResult, Verdict
from ct_assets.lib import plots as draw
from ct_assets.lib import plots_classes as draw_classes
from ct_assets.lib import plots_values as draw_values

#: Title and meaning of each plot, in the order of the page; which of them there are depends on the task.
_FIGURES = {
    "calibration": ("Calibration", "On the dashed line, predictions mean what they say. Bars: 95 % intervals."),
    "coverage": (
        "Coverage",
        "On the dashed line, quantiles hold the labels that they say. Bars: 95 % intervals.",
    ),
    "values": ("Labels and predictions", "On the dashed line, predictions are right. Darker: more rows."),
    "residuals": ("Errors", "The narrower around 0, the better; all to one side of it is a bias."),
    "widths": ("Width of the interval", "The narrower, the more the model tells, if coverage holds."),
    "scores": ("Scores by label", "The less the two areas overlap, the better the model separates the labels."),
    "confusion": ("Confusion", "Of the rows of each label, the share that each class is the most likely for."),
    "classes": ("Classes", "Right when it says so (precision), found when it is so (recall), and both (F1)."),
    "slices": ("Slices", "From the worst on, those with enough rows if there are any; all are in the table."),
    "importance": ("Permutation importance", "Each input shuffled once, on a sample of the holdout rows."),
}
_FIRST_SLICES = 12
_MOST_SLICES = 400
_MOST_DRIFT = 15
#: Rows of one predict call of the permutation importance: enough to make calls rare, few enough to stay small.
_ROWS_PER_CALL = 60_000
#: Checks that pass, without a limit, when the policy or the data give nothing to check.
_OPTIONAL = ("not_worse_than_champion", "above_floor", "slices_not_worse", "calibrated", "fast_enough", "small_enough")
_SIGNS = {">=": "≥", "<=": "≤"}


@dataclass(frozen=True)
class ReportData:
    """What a report shows.

    Attributes:
        spec: The model.
        version: The challenger's version.
        champion_version: The champion it was compared with, or None.
        verdict: The gate's outcome.
        label: Labels of the holdout rows, shape (n,).
        challenger: Its predictions on the same rows, as the task shapes them: shape (n,) or (n, k).
        champion: The champion's predictions on the same rows, or None.
        importance: Input column -> loss of the gate's metric when the column is permuted.
        drift: The newest report against the old champion, or None.
        facts: Name -> text: training set digest, rows, as_of and the like; times in UTC.
        triggers: Why it was retrained: trigger -> sentence.
    """

    spec: ModelSpec
    version: str
    champion_version: str | None
    verdict: Verdict
    label: pd.Series
    challenger: draw.Prediction
    champion: draw.Prediction | None
    importance: dict[str, float]
    drift: DriftReport | None
    facts: dict[str, str]
    triggers: dict[str, str]


def plots(data: ReportData) -> dict[str, bytes]:
    """PNG bytes of those of `_FIGURES` that the task has, by name; one without data says so in words."""
    metric = data.verdict.policy.metric
    slices = worst_first(data.verdict)
    # The metric of a handful of rows is anywhere between its extremes and would stretch the axis to them.
    large = [row for row in slices if row.rows >= data.verdict.policy.min_slice_rows]
    overall = data.verdict.metrics.get("challenger", {}).get(metric)
    return {
        **_plots_of(task_of(data.spec), data),
        "slices": draw.slices(large or slices, metric, overall),
        "importance": draw.importance(data.importance, metric),
    }


def _plots_of(task: Task, data: ReportData) -> dict[str, bytes]:
    """The plots that only this kind of task has."""
    label, mine, theirs = data.label, data.challenger, data.champion
    match task:
        case Multiclass():
            return {
                "calibration": draw_classes.calibration(task, label, mine, theirs),
                "confusion": draw_classes.confusions(task, label, mine),
                "classes": draw_classes.classes(task, label, mine, theirs),
            }
        case Regression():
            return {
                "values": draw_values.values(task, label, mine),
                "residuals": draw_values.residuals(task, label, mine, theirs),
            }
        case Quantile():
            return {
                "coverage": draw_values.coverage(task, label, mine, theirs),
                "widths": draw_values.widths(task, label, mine, theirs),
            }
    return {"calibration": draw.calibration(label, mine, theirs), "scores": draw.scores(label, mine, theirs)}


def render(data: ReportData, images: dict[str, bytes]) -> str:
    """One self-contained HTML page: no scripts, nothing loaded from elsewhere, the same data give the same text.

    Args:
        data: What to show.
        images: PNG bytes by name, as from `plots`; ones that are not given are left out.
    """
    verdict = data.verdict
    slices = worst_first(verdict)
    figures = [(*_FIGURES[name], base64.b64encode(images[name]).decode()) for name in _FIGURES if name in images]
    return _template().render(
        spec=data.spec,
        version=data.version,
        champion_version=data.champion_version,
        verdict=verdict,
        metric=verdict.policy.metric,
        labels=_labels(data),
        needs=task_of(data.spec).needs,
        naive_told=in_words(data.spec.baseline, task_of(data.spec)),
        summary=_summary(data),
        reasons=_reasons(verdict, "ERROR"),
        warnings=_reasons(verdict, "WARN"),
        margins=_margins(verdict) if verdict.passed else [],
        metrics=_metric_names(data),
        naive=verdict.metrics.get("baseline"),
        higher_is_better=HIGHER_IS_BETTER,
        checks=[_check_row(check, verdict) for check in verdict.checks],
        slices=slices[:_MOST_SLICES],
        first_slices=_FIRST_SLICES,
        slices_left_out=max(0, len(slices) - _MOST_SLICES),
        figures=figures,
        facts=data.facts,
        seals=_seals(verdict),
        triggers=data.triggers,
        drift=data.drift,
        most_drift=_MOST_DRIFT,
    )


def permutation_importance(
    spec: ModelSpec, model: Any, frame: pd.DataFrame, label: pd.Series, metric: str, *, seed: int = 0, rows: int = 1500
) -> dict[str, float]:
    """How much of a metric is lost when one input column is shuffled (Breiman 2001).

    Each column is shuffled once, by a generator of its own name and the seed, so another column more or less changes
    nothing. Columns that carry the same information hide each other: both then look unimportant.

    Args:
        spec: The model; its inputs are the columns permuted.
        model: Anything that the task can ask; what it raises is raised.
        frame: Rows with at least the model's columns, shape (n, ...).
        label: Labels by row, shape (n,); the index is ignored.
        metric: A metric with a direction, such as "auc".
        seed: Of the sample of rows and of the shuffles.
        rows: At most so many rows are used.

    Returns:
        Column -> loss, positive where the column helps whatever the metric's direction; in the order of `spec.inputs`.
        Empty where the metric is undefined: without rows, with one class, with unusable labels or predictions.

    Raises:
        KeyError: The frame lacks an input column.
        ValueError: Frame and label differ in length, or the metric has no direction.
    """
    if len(frame) != len(label):
        raise ValueError(f"frame has {len(frame)} rows, label {len(label)}; expected the same rows")
    higher_is_better(metric)
    picked = np.arange(len(frame))
    if len(frame) > rows:
        picked = np.sort(np.random.default_rng(seed).choice(len(frame), rows, replace=False))
    task, inputs, labels = task_of(spec), model_inputs(spec, frame.iloc[picked]), label.iloc[picked]
    baseline = _value(task, metric, labels, predict(spec, model, inputs))
    if not math.isfinite(baseline):
        return {}
    result: dict[str, float] = {}
    together = max(1, _ROWS_PER_CALL // len(inputs))
    for start in range(0, len(spec.columns), together):
        names = spec.columns[start : start + together]
        scores = predict(spec, model, _permuted_copies(inputs, names, seed))
        for name, part in zip(names, np.split(scores, len(names)), strict=True):
            result[name] = advantage(metric, baseline, _value(task, metric, labels, part))
    return result if all(map(math.isfinite, result.values())) else {}


def worst_first(verdict: Verdict) -> list[SliceResult]:
    """Slices that failed, have enough rows to be judged, have too few: each from the largest loss to the largest gain.

    Without a champion, from the challenger's worst value to its best. Within a group, slices without a value are last.
    """
    policy = verdict.policy

    def rank(row: SliceResult) -> tuple[Any, ...]:
        groups = (row.passed, row.rows < policy.min_slice_rows, row.delta is None)
        gain = math.inf if row.challenger is None else advantage(policy.metric, row.challenger, row.champion or 0.0)
        return (*groups, gain, row.column, row.value)

    return sorted(verdict.slices, key=rank)


def _permuted_copies(inputs: pd.DataFrame, names: Sequence[str], seed: int) -> pd.DataFrame:
    """One copy of the inputs after the other, the i-th with column `names[i]` shuffled."""
    size = len(inputs)
    columns = {column: np.tile(inputs[column].to_numpy(), len(names)) for column in inputs.columns}
    for place, name in enumerate(names):
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        columns[name][place * size : (place + 1) * size] = generator.permutation(inputs[name].to_numpy())
    return pd.DataFrame(columns)


def _value(task: Task, metric: str, label: pd.Series, predictions: draw.Prediction) -> float:
    labels, found = task.usable(label, predictions)
    return task.measure(metric, labels, found) if len(labels) == len(label) > 0 else math.nan


def _labels(data: ReportData) -> str | None:
    """What the labels are like; None where they, or the predictions, are of no use."""
    task = task_of(data.spec)
    labels, _ = task.encode(data.label)
    return task.told(labels) if labels is not None and len(labels) and data.verdict.metrics.get("challenger") else None


def _summary(data: ReportData) -> str:
    metric, verdict = data.verdict.policy.metric, data.verdict
    mine = verdict.metrics.get("challenger", {}).get(metric)
    theirs = verdict.metrics.get("champion", {}).get(metric)
    if mine is None:
        return f"{metric} of the challenger could not be computed."
    if data.champion_version is None:
        return f"{metric} {mine:.4f}; there is no champion to compare with."
    if theirs is None:
        return f"{metric} {mine:.4f}; that of champion {data.champion_version} could not be computed."
    gain = advantage(metric, mine, theirs)
    how = f"{abs(gain):.4f} {'better' if gain > 0 else 'worse'}" if _state(gain) != "same" else "the same"
    return f"{metric} {mine:.4f}, champion {data.champion_version} has {theirs:.4f}: {how}."


def _reasons(verdict: Verdict, severity: str) -> list[tuple[str, str]]:
    failed = [check for check in verdict.checks if not check.passed]
    return [
        (check.name, text.removeprefix(f"{check.name}: ").removeprefix("warning only: "))
        for check, text in zip(failed, verdict.reasons(), strict=True)
        if check.severity == severity
    ]


def _margins(verdict: Verdict) -> list[str]:
    """By how little each passed check could have failed, in words."""
    metric = verdict.policy.metric
    lower = "lower" if higher_is_better(metric) else "higher"
    texts = []
    for check in verdict.checks:
        if not check.passed or check.value is None or check.limit is None:
            continue
        margin = abs(check.value - check.limit)
        match check.name:
            case "enough_rows":
                texts.append(f"{margin + 1:,.0f} fewer test rows")
            case "not_worse_than_champion":
                texts.append(f"{metric} {margin:.3g} {lower}, against the champion")
            case "above_floor":
                texts.append(f"{metric} more than {margin:.3g} {lower}, past the floor of {check.limit:g}")
            case "slices_not_worse":
                worst = next(row for row in worst_first(verdict) if row.judged)
                texts.append(f"{metric} another {margin:.3g} {lower} in its worst slice, {worst.column}={worst.value}")
            case "calibrated":
                texts.append(f"a calibration error more than {margin:.3g} higher")
    return texts


def _metric_names(data: ReportData) -> list[str]:
    """The gate's metric first, then the spec's."""
    return list(dict.fromkeys((data.verdict.policy.metric, *data.spec.metrics)))


def _check_row(check: Check, verdict: Verdict) -> dict[str, Any]:
    figures = {
        "fast_enough": (verdict.measured.latency_ms_per_row, " ms"),
        "small_enough": (verdict.measured.artifact_mb, " MB"),
    }
    measured, unit = figures.get(check.name, (None, ""))
    value = check.value if check.value is not None else measured
    state = "passed" if check.passed else ("failed" if check.severity == "ERROR" else "warning")
    if check.passed and check.limit is None and check.name in _OPTIONAL:
        state = "not checked"
    return {
        "name": check.name,
        "state": state,
        "value": "–" if value is None else _number(value) + unit,
        "limit": "–"
        if check.limit is None
        else f"{_SIGNS.get(check.comparison, check.comparison)} {_number(check.limit)}{unit}",
        "detail": check.detail,
    }


def _seals(verdict: Verdict) -> dict[str, str]:
    bound = verdict.bindings
    model = bound.model
    seals = {
        "verdict": verdict.digest,
        "test data": verdict.test_data_digest,
        "artifact": bound.artifact_digest,
        "champion's artifact": bound.champion_digest,
        "training set": bound.training_set_digest,
        "as of": _utc(bound.as_of) if bound.as_of else None,
        "model": ", ".join(f"{k} {v}" for k, v in model.items()) if isinstance(model, dict) else model,
        "features": ", ".join(f"{name} {version}" for name, version in bound.feature_versions.items()),
    }
    return {name: text for name, text in seals.items() if text}


def _state(gain: float) -> str:
    """Better, worse, or the same to the four digits shown."""
    return "same" if round(abs(gain), 4) == 0 else ("better" if gain > 0 else "worse")


def _change(value: float | None, other: float | None, metric: str) -> tuple[str, str]:
    """`value - other` as text, and whether that is better, worse, the same, or nothing of these if undirected.

    ("–", "") where there is nothing.
    """
    if value is None or other is None:
        return "–", ""
    if metric not in HIGHER_IS_BETTER:
        return f"{value - other:+.4f}".replace("-", "−"), ""
    state = _state(advantage(metric, value, other))
    return "0.0000" if state == "same" else f"{value - other:+.4f}".replace("-", "−"), state


def _fixed(value: float | None, digits: int = 4) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
    return text.replace("-", "−")


def _utc(moment: str) -> str:
    return pd.to_datetime(moment, utc=True).strftime("%Y-%m-%d %H:%M UTC")


def _template() -> Any:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(fixed=_fixed, number=_number, utc=_utc)
    environment.globals["change"] = _change
    return environment.get_template("evaluation.html.j2")
