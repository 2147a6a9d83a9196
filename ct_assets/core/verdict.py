"""The verdict on a challenger: every check with its numbers, sealed by a digest, and readable in plain words.

What produces it is `ct_assets.core.gate`; what lets a model serve only needs to read and verify it.
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal, Self

import pandas as pd
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    field_validator,
    model_validator,
)

from ct_assets.core.canonical import digest, iso_utc
from ct_assets.core.metrics import higher_is_better
from ct_assets.core.strict import Strict

CHECKS = {
    "enough_rows": "The gate judges on enough labelled rows that neither model has learned from; inconclusive if not.",
    "labels_usable": "Every label is one that the task knows; inconclusive where only one class occurs.",
    "challenger_predictions_usable": "The challenger predicts what its task asks for, in range, for every row.",
    "champion_predictions_usable": "The champion does so too, or there is none yet.",
    "not_worse_than_champion": "The metric is above the champion's minus the tolerance, on the same rows.",
    "above_floor": "The metric is not below the absolute floor, whatever the champion's is.",
    "beats_baseline": "The metric is better than that of the naive baseline, if the policy asks for it or a first "
    "model has no floor; a warning where the challenger is better than a champion that is worse than it too.",
    "better_than_rolled_back": "While a rollback holds, it is better than what was rolled back; a warning, which is "
    "read where it would be promoted.",
    "slices_not_worse": "In no slice with enough rows, of each class, does it lose more than the slice tolerance.",
    "calibrated": "The calibration error is within its limit.",
    "fast_enough": "A prediction takes no longer than its limit.",
    "small_enough": "The artifact is no larger than its limit.",
    "remembers": "On older examples that no training of its lineage has seen, it is not much worse than the champion.",
    "no_leak": "No single feature tells the label almost alone; a warning, with its name.",
}
"""The gate's checks and what each holds a challenger to.

Every new verdict has exactly these, in this order; one that the policy does not ask for passes and says so.
"""
CHECK_NAMES = tuple(CHECKS)


SCHEMA_VERSION = 1
"""Of verdicts that are written today; see `schema_versions`."""

Outcome = Literal["passed", "rejected", "inconclusive"]

_STORED = ConfigDict(frozen=True, extra="ignore")
"""What later code adds to stored verdicts is no reason for this code not to read them."""


class VerdictError(ValueError):
    """A verdict that does not match its own digest or its own checks."""


class GatePolicy(Strict):
    """What a challenger has to show. A limit that is None is not checked."""

    metric: str = Field(default="auc", description="a metric of the model's task; when left out, the task's own")
    tolerance: float = Field(
        default=0.002,
        ge=0,
        description="how much worse than the champion is still accepted: a share of the champion's figure for losses "
        "whose size depends on the labels (`mae`, `rmse`, `pinball`, `interval_width`, `logloss`, `brier`), absolute "
        "for all others, such as `auc`",
    )
    floor: float | None = Field(default=None, description="worst acceptable value of the metric")
    beat_baseline: bool = Field(
        default=False,
        description="whether the metric has to be better than the baseline's; a first model without a floor has to "
        "anyway, by more than chance. One that is better than a champion which loses to the baseline too replaces it, "
        "with a warning",
    )
    slice_tolerance: float = Field(default=0.03, ge=0, description="the same as `tolerance`, within one slice")
    min_slice_rows: int = Field(default=500, ge=1, description="smaller slices are shown, not judged")
    max_latency_ms: float | None = Field(default=None, gt=0, description="median of a one-row prediction")
    max_artifact_mb: float | None = Field(default=None, gt=0, description="size of the stored model")
    max_calibration_error: float | None = Field(
        default=None, gt=0, description="of the task's calibration figure, such as the expected calibration error"
    )
    leak_bound: float | None = Field(
        default=0.95,
        gt=0.5,
        le=1,
        description="auc of one numeric feature alone, above which it may know the label; (1 + rank "
        "correlation) / 2 for numeric labels",
    )
    min_rows: int = Field(default=1000, ge=1, description="labelled test rows needed for a verdict")
    min_class_rows: int = Field(
        default=10, ge=1, description="test rows of the rarer class needed, of all and of a slice to be judged"
    )
    remember_tolerance: float = Field(
        default=0.02,
        ge=0,
        description="the same as `tolerance`, on the examples that the strategy keeps as `reference`",
    )

    verdict_days: float = Field(
        default=7.0,
        gt=0,
        description="days of event time, from the training's `as_of`, within which a passed verdict lets a model serve",
    )
    rollback_hold_days: float | None = Field(
        default=30.0,
        ge=0,
        description="days after a rollback in which automation promotes no challenger, unless it learned from rows "
        "newer than the rollback and is better than what was rolled back; when null, until `ct release-hold`",
    )

    @field_validator("metric")
    @classmethod
    def _has_a_direction(cls, metric: str) -> str:
        higher_is_better(metric)
        return metric


class Bindings(BaseModel):
    """What the verdict is about. A caller that lets a model serve compares these with what it is about to load.

    `champion_digest` is of what it was compared with, `rolled_back_digest` of the release whose rollback was holding
    then, `rules` of what it was judged by; `promote` is false for an experiment, which only a person promotes.
    """

    model_config = _STORED
    model: str | dict[str, str] | None = None
    artifact_digest: str | None = None
    champion_digest: str | None = None
    rolled_back_digest: str | None = None
    feature_versions: dict[str, str] = {}
    training_set_digest: str | None = None
    as_of: str | None = None
    rules: str | None = None
    promote: bool = True

    @field_validator("as_of", mode="before")
    @classmethod
    def _iso(cls, moment: Any) -> Any:
        return iso_utc(moment) if isinstance(moment, pd.Timestamp) else moment


class Check(BaseModel):
    """One condition: it passed if `value` `comparison` `limit` held. Only failed ERROR checks fail the verdict.

    One that is `inconclusive` has not passed either, but for want of evidence.
    """

    model_config = _STORED
    name: str
    passed: bool
    inconclusive: bool = False
    severity: Literal["ERROR", "WARN"] = "ERROR"
    value: float | None = None
    limit: float | None = None
    comparison: str = ""
    detail: str


class SliceResult(BaseModel):
    """The metric on one slice. `delta` is challenger minus champion; `judged` says whether it counted."""

    model_config = _STORED
    column: str
    value: str
    rows: int
    challenger: float | None
    champion: float | None
    delta: float | None
    judged: bool
    passed: bool


class Measured(BaseModel):
    """Figures of this machine and moment: they differ on every run, so no digest covers them."""

    model_config = _STORED
    latency_ms_per_row: float | None = None
    artifact_mb: float | None = None


class Verdict(BaseModel):
    """The outcome for one challenger, sealed by `digest`.

    The digest covers everything but `measured`: a replay of the same models, data and policy gives the same digest,
    while a latency never repeats. Whether the latency and size checks passed is covered, as part of `checks`.

    A stored verdict keeps the document that it was read from, and its seal is over that one: fields and checks that
    are added later, or dropped, change nothing about what was sealed.
    """

    model_config = _STORED
    schema_version: int = SCHEMA_VERSION
    passed: bool
    checks: tuple[Check, ...]
    metrics: dict[str, dict[str, float | None]]
    slices: tuple[SliceResult, ...]
    rows: int
    window: tuple[str, str] | None
    test_data_digest: str
    policy: GatePolicy
    bindings: Bindings
    measured: Measured
    digest: str = ""
    _stored: dict[str, Any] | None = PrivateAttr(None)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_what_was_stored(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        verdict = handler(values)
        if isinstance(values, dict) and values.get("digest"):
            verdict._stored = copy.deepcopy(values)
        return verdict

    @field_validator("policy", mode="before")
    @classmethod
    def _known_rules(cls, policy: Any) -> Any:
        """A policy is strict about what people write; one that was stored may be another version's."""
        known: Any = cls.model_fields["policy"].annotation
        return {k: v for k, v in policy.items() if k in known.model_fields} if isinstance(policy, Mapping) else policy

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verdict) and self.document() == other.document()

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def outcome(self) -> Outcome:
        """What it says: `inconclusive` if nothing but evidence was wanting."""
        if self.passed:
            return "passed"
        failed = [check for check in self.checks if check.severity == "ERROR" and not check.passed]
        return "inconclusive" if all(check.inconclusive for check in failed) else "rejected"

    def check(self, name: str) -> Check | None:
        """The check of that name; None for a verdict of a time that had none."""
        return next((check for check in self.checks if check.name == name), None)

    def document(self) -> dict[str, Any]:
        """What is stored: what was read if it was, as a JSON object."""
        return self.model_dump(mode="json") if self._stored is None else copy.deepcopy(self._stored)

    def computed_digest(self) -> str:
        """SHA-256 of the canonical JSON of everything that is stored but `measured` and `digest`."""
        return digest({name: value for name, value in self.document().items() if name not in ("measured", "digest")})

    def verify(self) -> None:
        """Raise VerdictError if any field was changed after sealing, or `passed` is not what the checks say."""
        found = self.computed_digest()
        if found != self.digest or not _agree(self.document(), self.model_dump(mode="json", exclude={"measured"})):
            raise VerdictError(
                f"verdict says digest {self.digest[:12]}, its content has {found[:12]}: it was changed after the gate "
                "sealed it; validate the model again"
            )
        if not self.checks or self.passed != all_passed(self.checks):
            raise VerdictError("verdict's `passed` does not follow from its checks; validate the model again")

    def reasons(self) -> list[str]:
        """Why it failed, one plain sentence a failed check, with what would have flipped it; empty if none failed."""
        figures = {
            "fast_enough": (self.measured.latency_ms_per_row, "ms"),
            "small_enough": (self.measured.artifact_mb, "MB"),
        }
        texts = []
        for check in self.checks:
            if check.passed:
                continue
            figure, unit = figures.get(check.name, (None, ""))
            measured = f" (measured: {figure:.3g} {unit})" if figure is not None else ""
            warning = "warning only: " if check.severity == "WARN" else "inconclusive: " if check.inconclusive else ""
            texts.append(f"{check.name}: {warning}{check.detail}{measured}")
        return texts


def all_passed(checks: tuple[Check, ...]) -> bool:
    """Whether every ERROR check passed; warnings do not count."""
    return all(check.passed for check in checks if check.severity == "ERROR")


def _agree(stored: Any, read: Any) -> bool:
    """Whether what was read is what is stored, as far as both have it."""
    if isinstance(stored, Mapping) and isinstance(read, Mapping):
        return all(_agree(value, read[name]) for name, value in stored.items() if name in read)
    if isinstance(stored, list) and isinstance(read, list):
        return len(stored) == len(read) and all(_agree(a, b) for a, b in zip(stored, read, strict=True))
    return bool(stored == read)
