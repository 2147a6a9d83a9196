"""Has the data moved? A window's profile against a reference profile, and sudden changes upstream.

Two questions, and drift is where both say yes. How far: PSI and the share of missing values against the reference, each
beyond what few rows show by chance; under no drift, PSI is distributed as (1/n + 1/m) times a chi-square with k - 1
degrees of freedom (Yurdakul 2018), where bins are not nearly empty. Why: a season, a weekday, a week like the last one
move every column, on 40 of 40 weeks of a real year; only a step that earlier days do not explain
(`ct_assets.core.steps`) is a change. What moved without a step is a warning, and decides nothing.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ct_assets.core.profile import CategoricalColumn, Column, NumericColumn, Profile, category_rank
from ct_assets.core.strict import Strict
from ct_assets.core.units import unit_hint

Level = Literal["ok", "warn", "drift"]
Counts = npt.NDArray[np.float64]

_SEVERITY: dict[str, int] = {"drift": 0, "warn": 1, "ok": 2}
#: Added to every bin: the prior of Jeffreys (1946), of which Krichevsky and Trofimov (1981) is the predictive form.
_SMOOTHING = 0.5
#: Categories expected fewer times than this in the smaller sample are counted together (Cochran 1954).
_SMALLEST_CELL = 5.0


class DriftLimits(Strict):
    """When a column counts as moved. The PSI limits are the customary 0.1 and 0.25 (Siddiqi 2006)."""

    psi_warn: float = Field(default=0.1, ge=0, description="population stability index of a warning")
    psi_drift: float = Field(default=0.25, ge=0, description="population stability index of drift")
    missing_warn: float = Field(default=0.02, ge=0, description="absolute change of the share of missing values")
    missing_drift: float = Field(default=0.1, ge=0, description="absolute change of the share of missing values")
    alpha: float = Field(default=0.001, gt=0, lt=1, description="chance that few rows alone exceed the noise quantile")
    history_days: int = Field(
        default=14,
        ge=0,
        description="days with a week before them that have to be known before a column may drift, and not only warn: "
        "how they differ from that week says which change is none. 0: distances alone decide, whatever days do",
    )

    @field_validator("history_days")
    @classmethod
    def _tells_what_is_usual(cls, days: int) -> int:
        if 0 < days < 3:
            raise ValueError(
                f"history_days is {days}, which tells nothing of how days differ; expected 0, or 3 and more"
            )
        return days


class ColumnDrift(BaseModel):
    """How far one column has moved. `psi` and `ks` are None where there was nothing to compare."""

    model_config = ConfigDict(frozen=True)
    column: str
    kind: str
    verdict: Level
    psi: float | None
    psi_noise: float | None = Field(description="(1 - alpha) quantile of PSI under no drift")
    ks: float | None
    missing_reference: float
    missing_current: float
    detail: str
    step: str | None = Field(None, description="the sudden change that still lasts, in words; None without one")

    @property
    def missing_change(self) -> float:
        """Change of the share of missing values, current minus reference."""
        return self.missing_current - self.missing_reference


class DriftReport(BaseModel):
    """All columns, worst first; `verdict` is that of the worst column."""

    model_config = ConfigDict(frozen=True)
    verdict: Level
    reference_rows: int
    current_rows: int
    drifted: tuple[str, ...]
    drifted_share: float
    columns: tuple[ColumnDrift, ...]


class UpstreamLimits(Strict):
    """When a batch of a column declared stable is a change upstream rather than a new day."""

    mean_ratio: float = Field(default=1.25, gt=1, description="mean outside [1/ratio, ratio] times the history's")
    psi: float = Field(default=0.5, gt=0)
    missing_jump: float = Field(default=0.1, gt=0, description="rise of the share of missing values")
    alpha: float = Field(default=0.001, gt=0, lt=1, description="chance that noise alone exceeds each noise allowance")


class Change(BaseModel):
    """One change upstream. `ratio` is new mean / old mean; `hint` names the unit conversion that would explain it."""

    model_config = ConfigDict(frozen=True)
    column: str
    kind: Literal["scale", "distribution", "missing", "type"]
    detail: str
    ratio: float | None = None
    hint: str | None = None


def psi(ref_counts: Sequence[float] | Counts, cur_counts: Sequence[float] | Counts) -> float:
    """Population stability index: sum of (p - q) ln(p / q) over the bins, the symmetric Kullback-Leibler divergence.

    Half a row is added to every bin that either side has used, so an empty bin gives a large, finite value. Bins that
    neither side has used are left out. NaN if a side has no rows.
    """
    ref, cur = _paired(ref_counts, cur_counts)
    used = (ref + cur) > 0
    if not ref.sum() or not cur.sum():
        return float("nan")
    ref, cur = ref[used] + _SMOOTHING, cur[used] + _SMOOTHING
    p, q = ref / ref.sum(), cur / cur.sum()
    return float(np.sum((q - p) * np.log(q / p)))


def psi_noise_quantile(bins: int, n: float, m: float, alpha: float) -> float:
    """What PSI exceeds with probability `alpha` under no drift: (1/n + 1/m) times a chi-square quantile."""
    return (1 / n + 1 / m) * _chi_square_quantile(bins - 1, 1 - alpha) if bins > 1 else 0.0


def ks_binned(ref_counts: Sequence[float] | Counts, cur_counts: Sequence[float] | Counts) -> float:
    """Largest difference of the two cumulative shares at the common edges.

    A lower bound of the two-sample Kolmogorov-Smirnov statistic of the values: inside a bin the difference may be
    larger, by at most that bin's share. NaN if a side has no rows.
    """
    ref, cur = _paired(ref_counts, cur_counts)
    if not ref.sum() or not cur.sum():
        return float("nan")
    return float(np.max(np.abs(np.cumsum(ref) / ref.sum() - np.cumsum(cur) / cur.sum())))


def compare(
    reference: Profile, current: Profile, limits: DriftLimits | None = None, steps: Mapping[str, str] | None = None
) -> DriftReport:
    """Every column of `reference` against `current`.

    A column warns when PSI exceeds `psi_warn` plus the noise quantile, or the share of missing values changes by more
    than `missing_warn` and more than noise. It drifts when it does so by the limits of drift and there was a step. A
    column that is gone is wholly missing; an empty current window shows nothing. Both profiles need the same bin edges
    (ValueError).

    Args:
        reference: Of what a model was trained on.
        current: Of the newest rows.
        limits: When a column has moved.
        steps: Columns with a sudden change that lasts, each with its words; None where distances alone decide.
    """
    limits = limits or DriftLimits()
    rows = [_column_drift(name, reference, current, limits, steps) for name in sorted(reference.columns)]
    rows.sort(key=lambda c: (_SEVERITY[c.verdict], -_excess(c), -abs(c.missing_change), c.column))
    drifted = tuple(c.column for c in rows if c.verdict == "drift")
    return DriftReport(
        verdict=rows[0].verdict if rows else "ok",
        reference_rows=reference.rows,
        current_rows=current.rows,
        drifted=drifted,
        drifted_share=len(drifted) / len(rows) if rows else 0.0,
        columns=tuple(rows),
    )


def upstream_change(
    history: Profile, batch: Profile, columns: Sequence[str], limits: UpstreamLimits | None = None
) -> list[Change]:
    """Changes of meaning in a batch, in columns declared stable: units, encodings, kinds, sudden missing values.

    A mean outside the allowed ratio, a PSI above the limit or a jump of missing values, each also beyond noise. Where
    mean and spread both fit a known conversion of units (miles to kilometres, Fahrenheit to Celsius), it is named.

    Parameters: `history` and `batch` with the same bin edges (ValueError otherwise); `columns` that history knows; one
    that it does not know is skipped.
    Returns one change per column and kind, in the order of `columns`; nothing for an empty history or batch.
    """
    limits = limits or UpstreamLimits()
    if not history.rows or not batch.rows:
        return []
    changes: list[Change] = []
    for name in columns:
        old, new = history.columns.get(name), batch.columns.get(name)
        if old is None:
            continue
        changes += _missing_jump(name, _missing_of(old, history.rows), _missing_of(new, batch.rows), limits)
        if new is None or not old.count or not new.count:
            continue
        if old.kind != new.kind:
            changes.append(Change(column=name, kind="type", detail=f"was {old.kind}, is {new.kind}"))
            continue
        scale = _scale_change(name, old, new, limits)
        distances = _distances(name, old, new, limits.alpha)
        if scale:
            changes.append(scale)
        elif distances[0] is not None and distances[0] > limits.psi + (distances[1] or 0.0):
            changes.append(_distribution_change(name, old, new, distances[0], limits))
    return changes


def common_counts(reference: Column, current: Column) -> tuple[Counts, Counts]:
    """Counts of both columns over the same cells: their bins, or their categories with the rare ones together.

    Raises ValueError if the kinds or the edges differ.
    """
    if isinstance(reference, NumericColumn) and isinstance(current, NumericColumn):
        if reference.edges != current.edges:
            raise ValueError("bin edges differ; profile both with the edges of the reference")
        return np.asarray(reference.counts, dtype=float), np.asarray(current.counts, dtype=float)
    if isinstance(reference, CategoricalColumn) and isinstance(current, CategoricalColumn):
        return _common_categories(reference, current)
    raise ValueError(f"reference is {reference.kind}, current is {current.kind}")


def _common_categories(reference: CategoricalColumn, current: CategoricalColumn) -> tuple[Counts, Counts]:
    # Past a capped column's last rank, a category may hide in `other`: only those below are known on both sides.
    ends = [end for end in (reference.complete_up_to(), current.complete_up_to()) if end is not None]
    names = sorted({*reference.counts, *current.counts})
    names = [name for name in names if not ends or category_rank(name) <= min(ends)]
    ref = np.array([reference.counts.get(name, 0) for name in names], dtype=float)
    cur = np.array([current.counts.get(name, 0) for name in names], dtype=float)
    total = reference.count + current.count
    smaller = min(reference.count, current.count)
    frequent = (ref + cur) * smaller >= _SMALLEST_CELL * total if total else np.zeros(len(names), dtype=bool)
    rest = (reference.count - ref[frequent].sum(), current.count - cur[frequent].sum())
    return np.append(ref[frequent], rest[0]), np.append(cur[frequent], rest[1])


def _column_drift(
    name: str, reference: Profile, current: Profile, limits: DriftLimits, steps: Mapping[str, str] | None
) -> ColumnDrift:
    ref = reference.columns[name]
    cur = current.columns.get(name)
    before, after = _missing_of(ref, reference.rows), _missing_of(cur, current.rows)
    level, notes = _missing_level(before, after, limits)
    values: tuple[float | None, float | None, float | None] = (None, None, None)
    if cur is not None and ref.count and cur.count:
        if cur.kind != ref.kind:
            level, notes = "drift", [*notes, f"was {ref.kind}, is {cur.kind}"]
        else:
            values = _distances(name, ref, cur, limits.alpha)
            psi_level, note = _psi_level(values[0], values[1], limits)
            level = min(level, psi_level, key=_SEVERITY.__getitem__)
            notes += note
    step = None if steps is None else steps.get(name)
    if step:
        notes.append(step)
    elif steps is not None and level == "drift":
        level, notes = "warn", [*notes, "as days differ, without a sudden change"]
    return ColumnDrift(
        column=name,
        kind=ref.kind,
        verdict=level,
        psi=values[0],
        psi_noise=values[1],
        ks=values[2],
        missing_reference=_share(before),
        missing_current=_share(after),
        detail="; ".join(notes) or "no change beyond the limits",
        step=step,
    )


def _distances(name: str, ref: Column, cur: Column, alpha: float) -> tuple[float | None, float | None, float | None]:
    """PSI, its noise quantile, and the binned KS distance."""
    try:
        ref_counts, cur_counts = common_counts(ref, cur)
    except ValueError as error:
        raise ValueError(f"column {name!r}: {error}") from error
    if not len(ref_counts):  # numeric, but profiled without edges
        return None, None, None
    n, m = float(ref.count), float(cur.count)
    ks = ks_binned(ref_counts, cur_counts) if ref.kind == "numeric" else None
    if ref.kind == "numeric":
        ref_counts, cur_counts = _filled_bins(ref_counts, cur_counts)
    bins = int(np.count_nonzero(ref_counts + cur_counts))
    return psi(ref_counts, cur_counts), psi_noise_quantile(bins, n, m, alpha), ks


def _filled_bins(ref: Counts, cur: Counts) -> tuple[Counts, Counts]:
    """Neighbouring bins together, until each is expected to hold enough rows of the smaller side."""
    expected = (ref + cur) * min(ref.sum(), cur.sum()) / (ref.sum() + cur.sum())
    places, filled, place = np.zeros(len(ref), dtype=np.intp), 0.0, 0
    for number, rows in enumerate(expected):
        if filled >= _SMALLEST_CELL:
            filled, place = 0.0, place + 1
        places[number], filled = place, filled + rows
    if 0 < filled < _SMALLEST_CELL:
        places[places == place] = max(place - 1, 0)
    size = int(places[-1]) + 1
    return np.bincount(places, ref, size).astype(np.float64), np.bincount(places, cur, size).astype(np.float64)


def _psi_level(value: float | None, noise: float | None, limits: DriftLimits) -> tuple[Level, list[str]]:
    if value is None or noise is None:
        return "ok", []
    levels: tuple[tuple[Level, float], ...] = (("drift", limits.psi_drift), ("warn", limits.psi_warn))
    for level, limit in levels:
        if value > limit + noise:
            return level, [f"PSI {value:.3f} is above {limit:g} + noise {noise:.3f}"]
    return "ok", []


def _missing_level(before: tuple[int, int], after: tuple[int, int], limits: DriftLimits) -> tuple[Level, list[str]]:
    if not before[1] or not after[1]:
        return "ok", []
    change, noise = _share_change(before, after, limits.alpha)
    levels: tuple[tuple[Level, float], ...] = (("drift", limits.missing_drift), ("warn", limits.missing_warn))
    for level, limit in levels:
        if abs(change) > limit + noise:
            shares = f"{before[0] / before[1]:.1%} -> {after[0] / after[1]:.1%}"
            return level, [f"missing {shares}, beyond {limit:g} + noise {noise:.3f}"]
    return "ok", []


def _share_change(before: tuple[int, int], after: tuple[int, int], alpha: float) -> tuple[float, float]:
    """Change of a share, given (rows missing, rows) of both sides, and its (1 - alpha) two-sided noise.

    One row more of each kind on each side (Agresti and Caffo 2000) keeps the normal interval honest for a few rows, and
    where one side has none missing at all.
    """
    (a, n), (b, m) = before, after
    p, q = (a + 1) / (n + 2), (b + 1) / (m + 2)
    error = math.sqrt(p * (1 - p) / (n + 2) + q * (1 - q) / (m + 2))
    return q - p, NormalDist().inv_cdf(1 - alpha / 2) * error


def _missing_of(column: Column | None, rows: int) -> tuple[int, int]:
    """(rows missing, rows); all of a partition's rows if it lacks the column."""
    return (rows, rows) if column is None else (column.missing, column.count + column.missing)


def _share(part: tuple[int, int]) -> float:
    return part[0] / part[1] if part[1] else 0.0


def _excess(column: ColumnDrift) -> float:
    return (column.psi or 0.0) - (column.psi_noise or 0.0)


def _paired(ref_counts: Sequence[float] | Counts, cur_counts: Sequence[float] | Counts) -> tuple[Counts, Counts]:
    ref, cur = np.asarray(ref_counts, dtype=np.float64), np.asarray(cur_counts, dtype=np.float64)
    if ref.shape != cur.shape or ref.ndim != 1 or not len(ref):
        raise ValueError(f"counts have shapes {ref.shape} and {cur.shape}; expected the same bins, at least one")
    return ref, cur


def _chi_square_quantile(degrees: int, probability: float) -> float:
    """Wilson and Hilferty (1931); within 2 % from 3 degrees on, down to a tail of 0.001."""
    spread = 2 / (9 * degrees)
    return degrees * max(0.0, 1 - spread + NormalDist().inv_cdf(probability) * math.sqrt(spread)) ** 3


def _missing_jump(name: str, before: tuple[int, int], after: tuple[int, int], limits: UpstreamLimits) -> list[Change]:
    rise, noise = _share_change(before, after, limits.alpha)
    if rise <= limits.missing_jump + noise:
        return []
    detail = (
        f"missing values rose from {_share(before):.1%} to {_share(after):.1%} (limit: {limits.missing_jump:.1%} more)"
    )
    return [Change(column=name, kind="missing", detail=detail)]


def _scale_change(name: str, old: Column, new: Column, limits: UpstreamLimits) -> Change | None:
    if not isinstance(old, NumericColumn) or not isinstance(new, NumericColumn) or old.mean == 0:
        return None
    ratio = new.mean / old.mean
    spread = old.std if old.count > 1 else 0.0
    noise = NormalDist().inv_cdf(1 - limits.alpha / 2) * spread * math.sqrt(1 / old.count + 1 / new.count)
    if 1 / limits.mean_ratio <= ratio <= limits.mean_ratio or abs(new.mean - old.mean) <= noise:
        return None
    hint = unit_hint(old, new, noise)
    detail = f"mean went from {old.mean:.6g} to {new.mean:.6g}, a factor of {ratio:.4g}"
    return Change(column=name, kind="scale", detail=_with_hint(detail, hint), ratio=ratio, hint=hint)


def _distribution_change(name: str, old: Column, new: Column, value: float, limits: UpstreamLimits) -> Change:
    hint = unit_hint(old, new) if isinstance(old, NumericColumn) and isinstance(new, NumericColumn) else None
    detail = f"PSI {value:.3f} against the history is above {limits.psi:g}"
    return Change(column=name, kind="distribution", detail=_with_hint(detail, hint), hint=hint)


def _with_hint(detail: str, hint: str | None) -> str:
    return f"{detail}; {hint}" if hint else detail
