"""A home with a real registry, ledger, gate and promotion; its snapshots are written by hand, its labels follow `x`."""

import hashlib
import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ct_assets.core.division import divide
from ct_assets.core.gate import GatePolicy
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.segments import Line
from ct_assets.core.spec import EstimatorSpec, EventSpec, LabelSpec, ModelSpec
from ct_assets.core.verdict import Verdict
from ct_assets.lake.dataset import MATURES
from ct_assets.lake.releases import Release, Releases
from ct_assets.lake.row_blocks import write_blocks
from ct_assets.lake.training_set import TrainingSet
from ct_assets.lib.evaluation import judge
from ct_assets.lib.promotion import promote, rollback
from ct_assets.lib.training import train_and_register
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import CHAMPION, RegistryResource, Version

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2021-03-01", tz="UTC")
A_DAY, HOLDOUT = 150, 4
LINE = "sklearn.linear_model.LogisticRegression"


def spec_of(name: str, **changes: Any) -> ModelSpec:
    """A model whose gate lets an equal challenger pass."""
    return ModelSpec(
        **{
            "name": name,
            "owner": "team:test",
            "description": "A model of the tests",
            "events": EventSpec(source="events", sql="SELECT 1", id_column="id"),
            "label": LabelSpec(source="events", sql="SELECT 1", delay=timedelta(days=1)),
            "entities": ("id",),
            "feature_service": "m_v1",
            "inputs": {"x": "numeric", "z": "numeric"},
            "estimator": EstimatorSpec(path=LINE),
            "evaluation_days": HOLDOUT,
            "policy": RetrainPolicy(),
            "gate": GatePolicy(min_rows=100, tolerance=0.02, min_slice_rows=100),
            **changes,
        }
    )


def other(strength: float) -> EstimatorSpec:
    """Another estimator than the spec's."""
    return EstimatorSpec(path=LINE, params={"C": strength})


class JudgedWorld:
    """One line of champions in a home."""

    def __init__(self, home: Path, spec: ModelSpec, segment: str | None = None) -> None:
        self.home, self.spec, self.line = home, spec, Line(spec.name, segment)
        self.lake = LakeResource(home=str(home))
        self.registry = RegistryResource(home=self.lake.home)

    @property
    def releases(self) -> Releases:
        return Releases(self.home, self.line, self.lake.ledger())

    def snapshot(self, days: int, evaluation_days: int = HOLDOUT, reach: int = 1, **columns: Any) -> TrainingSet:
        """All examples of the first days, each mature after `reach` days, as of the end of the day after.

        `columns` are added or take others' place.
        """
        random = np.random.default_rng(0)
        x, z = random.normal(size=(2, 120 * A_DAY))
        label = (random.random(len(x)) < 1 / (1 + np.exp(-2 * x))).astype("int8")
        moments = START + np.repeat(np.arange(120), A_DAY) * DAY
        whole = pd.DataFrame({"id": np.arange(len(x)), "event_timestamp": moments, "x": x, "z": z, "label": label})
        frame = whole.head(days * A_DAY).assign(
            **{MATURES: lambda rows: rows["event_timestamp"] + reach * DAY, **columns}
        )
        split_at = START + (days - evaluation_days) * DAY
        parts = divide(frame["event_timestamp"], frame[MATURES], split_at)
        rows = pa.Table.from_pandas(frame, preserve_index=False)
        blocks = write_blocks(self.home / "training_sets" / "rows", rows)
        made = TrainingSet(
            rows_digest=hashlib.sha256("\n".join(blocks).encode()).hexdigest(),
            model=self.line.name,
            as_of=day(days + 1).isoformat(),
            split_at=split_at.isoformat(),
            train_rows=int(parts.train.sum()),
            holdout_rows=int(parts.holdout.sum()),
            positives=int(frame.loc[parts.train, "label"].sum()),
            feature_service="m_v1",
            feature_versions={"view": "1"},
            holdout_starts=parts.starts.isoformat(),
            blocks=blocks,
            evaluation_days=evaluation_days,
        )
        folder = self.home / "training_sets" / made.digest
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text(json.dumps(asdict(made)))
        return made

    def train(self, snapshot: TrainingSet, estimator: EstimatorSpec | None = None, by_hand: bool = False) -> Version:
        chosen = estimator or self.spec.estimator
        return train_and_register(self.lake, self.registry, self.spec, self.line, snapshot, chosen, by_hand)[0]

    def judge(self, version: Version) -> Verdict:
        return judge(self.lake, self.spec, self.line, version)[0]

    def promote(self, version: Version, reason: str = "") -> Release:
        return promote(self.lake, self.registry, self.spec, self.line, version, reason)

    def judged(self, days: int, **given: Any) -> Version:
        """A challenger that has passed."""
        version = self.train(self.snapshot(days), **given)
        verdict = self.judge(version)
        assert verdict.passed, verdict.reasons()
        return version

    def promoted(self, days: int) -> Version:
        version = self.judged(days)
        self.promote(version)
        return version

    def rollback(self, reason: str = "too many complaints", to: str | None = None) -> Release:
        return rollback(self.lake, self.registry, self.line, reason, to)

    def decided(self, days: int) -> None:
        """Record that nothing was due at the end of a day, so that this is the newest moment that is known."""
        self.lake.ledger().append("skip", self.line.name, day(days), {"decision": {"retrain": False}})

    def alias(self) -> str | None:
        pointed = self.registry.get(self.line.registered, CHAMPION)
        return pointed.version if pointed else None

    def moves(self) -> list[tuple[str, str | None, int]]:
        """Kind, version and day of every move."""
        return [(m["kind"], m["version"], (pd.Timestamp(m["as_of"]) - START).days) for m in self.releases.moves()]


def day(number: int) -> pd.Timestamp:
    """The beginning of a day, counted from the first."""
    return START + number * DAY
