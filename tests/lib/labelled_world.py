"""A lake with loans, what became of them and what was predicted, small enough to be worked out by hand in pandas."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from worlds_of_core import spec_with

from ct_assets.core.drift import DriftReport
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.spec import EventSpec, LabelSpec, ModelSpec
from ct_assets.lake.examples import MATURES
from ct_assets.lake.lake import Lake
from ct_assets.lake.releases import Releases
from ct_assets.lake.training_set import FEATURES_DIGEST, FeatureVersions, TrainingSet, build_training_set, read_examples
from ct_assets.lib.drifting import drift_of_lines
from ct_assets.lib.outcomes import recent_outcomes
from ct_assets.lib.partitions import end_of

START = pd.Timestamp("2020-03-01", tz="UTC")
DAY, HOUR = pd.Timedelta(days=1), pd.Timedelta(hours=1)
REACH = timedelta(hours=60)
FEATURES = FeatureVersions({}, "definitions")
MESSAGES = "SELECT id, label, known_at FROM messages"
ORDERS = """
SELECT e.id, CAST(count(o.ordered_at) > 0 AS TINYINT) AS label FROM events e LEFT JOIN orders o
  ON o.id = e.id AND o.ordered_at >= e.event_timestamp AND o.ordered_at < e.horizon_ends
GROUP BY e.id
"""
BOUGHT = """
SELECT DISTINCT e.id, 1 AS label FROM events e JOIN orders o
  ON o.id = e.id AND o.ordered_at >= e.event_timestamp AND o.ordered_at < e.horizon_ends
"""
LABELS = {
    "delay": {"source": "messages", "sql": MESSAGES, "delay": REACH},
    "horizon": {"source": "orders", "sql": ORDERS, "horizon": REACH},
    "matures_at": {"source": "messages", "sql": MESSAGES, "matures_at": "due_at"},
}


def model(kind: str, absent: int | None = None, **changes: Any) -> ModelSpec:
    """A model of whether a loan goes bad (or a customer buys), whose labels are of this kind."""
    label = dict(LABELS[kind], absent=absent)
    if kind == "horizon" and absent is not None:
        label["sql"] = BOUGHT
    return spec_with(
        {"x": "numeric"},
        events=EventSpec(
            source="loans", sql="SELECT id, starts_at AS event_timestamp, due_at FROM loans", id_column="id"
        ),
        label=LabelSpec(**label),
        evaluation_days=2,
        drift_window_days=3,
        policy=RetrainPolicy(first_training_rows=10, cooldown_days=1, performance_window_days=4),
        **changes,
    )


@dataclass
class World:
    """What happened, and the lake that has been told of it.

    Attributes:
        loans: `id`, `starts_at`, `due_at`.
        messages: `id`, `label`, `known_at`: labels as they come, of a loan more than one where it changed.
        orders: `id`, `ordered_at`, `known_at`.
    """

    lake: Lake
    spec: ModelSpec
    loans: pd.DataFrame
    messages: pd.DataFrame
    orders: pd.DataFrame

    def arrive(self, days: int) -> None:
        """Write the first days of every source, and score their loans."""
        for name, frame in (
            ("loans", self.loans.assign(known_at=self.loans["starts_at"])),
            ("messages", self.messages),
            ("orders", self.orders),
        ):
            self._write(name, frame, days)
        self._write("m/scored", self.scored(), days)

    def _write(self, name: str, frame: pd.DataFrame, days: int) -> None:
        parts = dict(tuple(frame.groupby(frame["known_at"].dt.strftime("%Y-%m-%d"))))
        schema = pa.Schema.from_pandas(frame, preserve_index=False)
        for number in range(days):
            part = parts.get(day(number), frame.iloc[:0])
            table = pa.Table.from_pandas(part, schema=schema, preserve_index=False)
            self.lake.dataset(name, "event_timestamp" if "scored" in name else "known_at").write(day(number), table)

    def scored(self) -> pd.DataFrame:
        """As the model's asset of that name holds them; the prediction is the id's share of 1000."""
        loans = self.loans
        frame = pd.DataFrame(
            {
                "id": loans["id"],
                "event_timestamp": loans["starts_at"],
                "known_at": loans["starts_at"],
                "x": loans.index.astype(float),
                "prediction": loans.index / 1000,
                "model_version": "1",
                FEATURES_DIGEST: FEATURES.digest,
            }
        )
        return frame.assign(**{MATURES: loans["due_at"]}) if self.spec.label.matures_at else frame

    def snapshot(self, as_of: pd.Timestamp) -> TrainingSet:
        """The training set of a moment; every loan is scored, so the feature store is not asked."""
        return build_training_set(self.lake, None, self.spec, as_of, START, FEATURES)  # type: ignore[arg-type]

    def rows(self, snapshot: TrainingSet) -> dict[str, dict[str, int]]:
        """Label of each id, for each part of a snapshot."""
        parts = {part: read_examples(self.lake, snapshot, part) for part in ("train", "holdout")}  # type: ignore[arg-type]
        return {part: dict(zip(rows["id"], rows["label"], strict=True)) for part, rows in parts.items()}

    def truth(self, as_of: pd.Timestamp) -> pd.DataFrame:
        """Every mature loan by id, worked out one by one: `starts_at`, `matured`, and `label`, missing where there is
        none.

        Args:
            as_of: A midnight; what becomes known at that very moment belongs to the next day.
        """
        rows = []
        for loan in self.loans.itertuples():
            matured = loan.due_at if self.spec.label.matures_at else loan.starts_at + REACH
            if matured < as_of:
                label = self._label(loan, as_of)
                label = self.spec.label.absent if label is None else label
                rows.append((loan.id, loan.starts_at, matured, label))
        return pd.DataFrame(rows, columns=["id", "starts_at", "matured", "label"]).set_index("id")

    def divided(self, as_of: pd.Timestamp) -> dict[str, dict[str, int]]:
        """Label of each id to learn from and to judge on, as the truth has them: none of the first
        matured after the first prediction of the second."""
        labelled = self.truth(as_of).dropna(subset="label")
        newest = labelled["matured"] >= as_of - self.spec.evaluation_days * DAY
        starts = labelled.loc[newest, "starts_at"].min() if newest.any() else as_of
        train = labelled[(labelled["matured"] <= starts) & ~newest]
        return {"train": train["label"].to_dict(), "holdout": labelled.loc[newest, "label"].to_dict()}

    def without_label(self, as_of: pd.Timestamp) -> int:
        """How many mature loans no label has come for."""
        mature = self.loans[self.loans["id"].isin(self.truth(as_of).index)]
        return sum(self._label(loan, as_of) is None for loan in mature.itertuples())

    def _label(self, loan: Any, as_of: pd.Timestamp) -> int | None:
        if self.spec.label.horizon is None:
            known = self.messages[(self.messages["id"] == loan.id) & (self.messages["known_at"] < as_of)]
            return int(known.sort_values("known_at")["label"].iloc[-1]) if len(known) else None
        orders = self.orders[(self.orders["id"] == loan.id) & (self.orders["known_at"] < as_of)]
        bought = orders["ordered_at"].between(loan.starts_at, loan.starts_at + REACH, inclusive="left").any()
        return 1 if bought else None if self.spec.label.absent is not None else 0


def day(number: int) -> str:
    """The partition that lies this many days after the first."""
    return (START + number * DAY).date().isoformat()


def world(home: Path, spec: ModelSpec, loans: Any, messages: Any = (), orders: Any = ()) -> World:
    """A world of hand-written rows whose moments are hours after the start.

    Args:
        home: Where the lake is.
        spec: The model.
        loans: `(id, starts_at, due_at)`.
        messages: `(id, label, known_at)`.
        orders: `(id, ordered_at, known_at)`.
    """

    def frame(rows: Any, columns: list[str]) -> pd.DataFrame:
        made = pd.DataFrame(list(rows), columns=columns)
        for name in columns:
            if name.endswith("_at"):
                hours = pd.to_timedelta(made[name].astype(float), unit="h")
                made[name] = (START + hours).astype("datetime64[us, UTC]")
        return made.astype({"id": object} | ({"label": "int8"} if "label" in columns else {}))

    return World(
        Lake(home),
        spec,
        frame(loans, ["id", "starts_at", "due_at"]),
        frame(messages, ["id", "label", "known_at"]),
        frame(orders, ["id", "ordered_at", "known_at"]),
    )


def drift_of_day(lake: Lake, releases: Releases, spec: ModelSpec, partition: str) -> DriftReport | None:
    """What the day's drift report says of one line."""
    outcomes = recent_outcomes(lake, [releases], spec, end_of(partition))
    return drift_of_lines(lake, [releases], spec, end_of(partition), outcomes)[releases.line]
