"""Which examples a training learns from, how much each of them counts, and whether it goes on from the champion."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, model_validator

from ct_assets.core.density_ratio import density_ratio
from ct_assets.core.strict import Duration, Strict

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]

LABEL_BINS = 10
"""Into how many quantile bins labels that are amounts are cut, to be sampled by."""


class StrategySpec(Strict):
    """How a training uses the examples. By default it learns from all of them, from nothing."""

    kind: Literal["full", "window", "warm_start", "incremental"] = Field(
        "full",
        description="full: all examples, from nothing. window: the newest ones, from nothing. warm_start: the "
        "champion gets `add` more iterations on the examples that are new to it. incremental: the champion's "
        "partial_fit takes the examples that are new to it.",
    )
    window: Duration | None = Field(
        None, gt=timedelta(0), description="kind window: the time up to the newest matured example to learn from."
    )
    add: int | None = Field(None, ge=1, description="kind warm_start: trees or solver iterations of each training.")
    reference: Duration | None = Field(
        None,
        gt=timedelta(0),
        description="kinds warm_start and incremental: examples of this length before the first training's holdout "
        "are kept from all trainings that go on from it; the gate's check `remembers` judges on them.",
    )
    sampling: Literal["all", "recent", "stratified", "time_decay", "importance"] = Field(
        "all",
        description="all: each example counts once. recent: the newest `rows`. stratified: `rows` of them in the "
        "shares of the label and of `by`. time_decay: an example of age `half_life` counts half as much as a new one. "
        "importance: examples count as much more as their inputs are more frequent in the `current` window.",
    )
    rows: int | None = Field(None, ge=2, description="sampling recent and stratified: how many examples.")
    by: str | None = Field(None, description="sampling stratified: an input whose shares are kept too.")
    half_life: Duration | None = Field(None, gt=timedelta(0), description="sampling time_decay: age of weight 1/2.")
    current: Duration | None = Field(
        None, gt=timedelta(0), description="sampling importance: the time up to the newest example that it looks at."
    )
    clip: float = Field(10.0, gt=1, description="sampling importance: largest weight before they are normalized.")
    balance: Literal["none", "weights", "undersample"] = Field(
        "none",
        description="For rare classes. weights: every class counts the same in total. undersample: all positives and "
        "`negatives` times as many negatives. Predicted probabilities are corrected back to the true shares.",
    )
    negatives: float = Field(10.0, gt=0, description="balance undersample: negatives kept for each positive.")

    @model_validator(mode="after")
    def _options_of_what_was_chosen(self) -> Self:
        for name, (choice, values, needed) in _OPTIONS.items():
            given = getattr(self, name) != type(self).model_fields[name].default
            chosen = getattr(self, choice) in values
            if given and not chosen:
                raise ValueError(
                    f"{name} is for {choice} {' and '.join(values)} only, and {choice} is {getattr(self, choice)}; "
                    f"leave it out, or choose another {choice}"
                )
            if needed and chosen and not given:
                raise ValueError(f"{choice} {getattr(self, choice)} needs {name}: {_description(name)}")
        return self

    @property
    def continues(self) -> bool:
        """Whether a training goes on from the champion."""
        return self.kind in ("warm_start", "incremental")

    def refuse_task(self, task: str) -> None:
        """Raise ValueError for a way of balancing that a task's labels do not have."""
        fit_for = {"weights": ("binary", "multiclass"), "undersample": ("binary",)}.get(self.balance, (task,))
        if task not in fit_for:
            raise ValueError(
                f"strategy.balance {self.balance} is for {' and '.join(fit_for)} tasks, and task is {task}; "
                "expected none"
            )


#: Option: the choice that it belongs to, that choice's values, and whether they need it.
_OPTIONS: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "window": ("kind", ("window",), True),
    "add": ("kind", ("warm_start",), True),
    "reference": ("kind", ("warm_start", "incremental"), False),
    "rows": ("sampling", ("recent", "stratified"), True),
    "by": ("sampling", ("stratified",), False),
    "half_life": ("sampling", ("time_decay",), True),
    "current": ("sampling", ("importance",), True),
    "clip": ("sampling", ("importance",), False),
    "negatives": ("balance", ("undersample",), False),
}


def _description(name: str) -> str:
    return str(StrategySpec.model_fields[name].description).partition(": ")[2]


@dataclass(frozen=True)
class Chosen:
    """Examples to learn from.

    Attributes:
        rows: Their positions, ascending.
        weights: How much each counts, 1 on average; None when all count the same.
    """

    rows: Positions
    weights: Floats | None = None


def choose(
    strategy: StrategySpec, inputs: pd.DataFrame, labels: pd.Series, moments: pd.Series | None, seed: int
) -> Chosen:
    """Select and weigh examples as `kind` window and `sampling` say; the same examples and seed give the same.

    Args:
        strategy: The choices.
        inputs: What the model reads, one row an example.
        labels: Their labels.
        moments: Their moments of prediction; None when nothing that was chosen depends on them.
        seed: For what is drawn.

    Raises:
        ValueError: The choice depends on moments and there are none.
    """
    rows = np.arange(len(inputs))
    if strategy.kind == "window" and strategy.window is not None:
        rows = np.flatnonzero(_ages(moments) < _seconds(strategy.window))
    if strategy.sampling == "recent" and strategy.rows is not None:
        newest_last = np.argsort(-_ages(moments)[rows], kind="stable")
        return Chosen(np.sort(rows[newest_last[-strategy.rows :]]))
    if strategy.sampling == "stratified" and strategy.rows is not None:
        strata = _strata(labels.iloc[rows], None if strategy.by is None else inputs[strategy.by].iloc[rows])
        return Chosen(rows[_stratified(strata, strategy.rows, seed)])
    if strategy.sampling == "time_decay" and strategy.half_life is not None:
        return Chosen(rows, _normalized(0.5 ** (_ages(moments)[rows] / _seconds(strategy.half_life))))
    if strategy.sampling == "importance" and strategy.current is not None:
        current = _ages(moments)[rows] < _seconds(strategy.current)
        ratio = density_ratio(inputs.iloc[rows], current)
        return Chosen(rows, _normalized(np.minimum(ratio, strategy.clip)))
    return Chosen(rows)


def reachable(strategy: StrategySpec, moments: pd.Series) -> Positions:
    """Which examples a training may look at, by their moments: the rest need not be kept for it.

    Args:
        strategy: The choices.
        moments: Their moments of prediction.
    """
    rows = np.arange(len(moments))
    if strategy.continues or not len(moments):
        return rows
    # What is chosen by inputs and labels is chosen among all of the window.
    by_time = strategy if strategy.sampling == "recent" else strategy.model_copy(update={"sampling": "all"})
    return choose(by_time, pd.DataFrame(index=moments.index), moments, moments, 0).rows


def _ages(moments: pd.Series | None) -> Floats:
    """Seconds from each example to the newest one."""
    if moments is None:
        raise ValueError("the examples have no `event_timestamp`, which the strategy chooses by; expected one each")
    return np.asarray((moments.max() - moments).dt.total_seconds(), dtype=np.float64)


def _seconds(duration: timedelta) -> float:
    return duration.total_seconds()


def _normalized(weights: Floats) -> Floats:
    return weights / weights.mean() if len(weights) else weights


def _strata(labels: pd.Series, by: pd.Series | None) -> pd.Series:
    """One name a row for its label, or the quantile bin of an amount, and its value of `by`."""
    if pd.api.types.is_float_dtype(labels) and labels.nunique() > LABEL_BINS:
        labels = pd.qcut(labels, LABEL_BINS, labels=False, duplicates="drop")
    names = labels.astype(str).reset_index(drop=True)
    return names if by is None else names + "|" + by.astype(str).reset_index(drop=True)


def _stratified(strata: pd.Series, wanted: int, seed: int) -> Positions:
    """Rows drawn without replacement, from each stratum its share, rounded by the largest remainders."""
    if wanted >= len(strata):
        return np.arange(len(strata))
    groups = [np.asarray(rows) for _, rows in sorted(strata.groupby(strata).indices.items())]
    shares = np.array([len(rows) for rows in groups]) * wanted / len(strata)
    counts = np.floor(shares).astype(int)
    missing = wanted - int(counts.sum())
    counts[np.argsort(-(shares - counts), kind="stable")[:missing]] += 1
    random = np.random.default_rng(seed)
    drawn = [random.choice(rows, count, replace=False) for rows, count in zip(groups, counts, strict=True)]
    return np.sort(np.concatenate(drawn))
