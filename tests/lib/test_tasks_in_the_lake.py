"""Each kind of task day by day: predictions stored, joined with labels, measured, and watched for drift."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from labelled_world import drift_of_day
from worlds_of_tasks import TASKS, examples_of, spec_of

from ct_assets.core.artifact import load_model
from ct_assets.core.drift import DriftLimits
from ct_assets.core.gate import TestData, validate_new_model
from ct_assets.core.inputs import model_inputs
from ct_assets.core.ledger import PROMOTION, VERDICT, Ledger
from ct_assets.core.segments import Line
from ct_assets.core.spec import LabelSpec, ModelSpec
from ct_assets.core.tasks import Task
from ct_assets.core.training import predict, train
from ct_assets.lake.lake import Lake
from ct_assets.lake.releases import Release, Releases
from ct_assets.lib.outcomes import save_outcomes
from ct_assets.lib.partitions import end_of
from ct_assets.lib.performance import performance_report

DAYS = [f"2013-01-{day:02d}" for day in range(2, 8)]
LAST = DAYS[-1]


class Days:
    """A home with a champion and some days of its predictions, the labels some hours later."""

    def __init__(self, home: Path, name: str, late: bool) -> None:
        self.lake, self.task = Lake(home), TASKS[name]
        label = LabelSpec(source="outcomes", sql="SELECT id, label, known_at FROM outcomes", delay=timedelta(days=1))
        self.spec = spec_of(name, label=label, slices=("side",), drift=DriftLimits(history_days=0))
        self.releases = Releases(home, Line("m"), Ledger(home / "ledger" / "decisions.jsonl"))
        self._promote(home, name)
        rows = examples_of(name, 9000, 5)
        rows = rows[rows["hour"] > 14] if late else rows
        for place, day in enumerate(DAYS):
            self._day(day, rows.iloc[place * 500 : (place + 1) * 500].reset_index(drop=True))

    def _promote(self, home: Path, name: str) -> None:
        held_out = examples_of(name, 1500, 2)
        trained = train(self.spec, examples_of(name, 1500), held_out)
        self.model = load_model(trained.payload, trained.digest)
        artifact = home / "models" / "1" / "model.skops"
        artifact.parent.mkdir(parents=True)
        artifact.write_bytes(trained.payload)
        artifact.with_name("reference.json").write_text(trained.reference.to_json())
        data = TestData(model_inputs(self.spec, held_out), held_out["label"])
        bound = {"artifact_digest": trained.digest, "training_set_digest": "t", "feature_versions": {}}
        self.verdict = validate_new_model(self.model, None, data, task=self.task, bindings=bound)
        release = Release("m", "1", str(artifact), trained.digest, "m_v1", {}, "t", self.verdict.digest, "2013-01-01")
        self.releases.save_verdict(self.verdict)
        self.releases.save(replace(release, as_of="2013-01-01T00:00:00+00:00"))
        first, evidence = pd.Timestamp("2013-01-01", tz="UTC"), {"version": "1", "verdict": self.verdict.digest}
        self.releases.ledger.append(VERDICT, "m", first, evidence)
        self.releases.ledger.append(PROMOTION, "m", first, evidence)

    def _day(self, day: str, rows: pd.DataFrame) -> None:
        at = pd.Timestamp(day, tz="UTC") + pd.Timedelta(hours=6)
        ids = [f"{day}/{n}" for n in range(len(rows))]
        predictions = self.task.frame(predict(self.spec, self.model, rows))
        keys = pd.DataFrame({"id": ids, "event_timestamp": at, "known_at": at, "model_version": "1"})
        scored = pd.concat([keys, model_inputs(self.spec, rows), predictions], axis=1)
        self.lake.dataset("m/scored", "event_timestamp").write(day, pa.Table.from_pandas(scored))
        known = at + pd.Timedelta(hours=12)
        labels = pd.DataFrame({"id": ids, "label": self.task.stored(rows["label"]), "known_at": known})
        self.lake.dataset("outcomes").write(str(known.date()), pa.Table.from_pandas(labels))
        self.joined = save_outcomes(self.lake, self.spec, day).first

    def outcomes(self) -> pd.DataFrame:
        """Rows whose day has matured by the last one, with labels, joined by hand."""
        frames = [
            pd.concat([pd.read_parquet(path) for path in sorted((self.lake.home / "lake" / name).rglob("*.parquet"))])
            for name in ("m/scored", "outcomes")
        ]
        whole = frames[0].merge(frames[1][["id", "label"]], on="id")
        return whole[whole["event_timestamp"] < pd.Timestamp(LAST, tz="UTC")]


EACH = pytest.mark.parametrize("name", TASKS)


@EACH
def test_performance_is_the_tasks_metric_over_what_has_matured(name: str, tmp_path: Path) -> None:
    days = Days(tmp_path, name, late=False)
    report = performance_report(days.lake, days.releases, days.spec, end_of(LAST))
    rows = days.outcomes()
    metric = days.task.gate_metric
    expected = days.task.measure(metric, days.task.codes(rows["label"]), days.task.array(rows))
    assert (report["rows"], report["now"]) == (len(rows), pytest.approx(expected)) == (2500, pytest.approx(expected))
    assert report["reference"] == days.verdict.metrics["challenger"][metric]
    assert report["label_rate"] == (rows["label"].mean() if name == "binary" else None)
    assert days.joined.column_names == _columns(days.spec, days.task)


def _columns(spec: ModelSpec, task: Task) -> list[str]:
    return ["id", "label", "known_at", "event_timestamp", *task.columns, "model_version", *spec.slices]


@EACH
def test_drift_of_labels_and_outputs_is_seen_where_there_is_some(name: str, tmp_path: Path) -> None:
    still = Days(tmp_path / "still", name, late=False)
    report = drift_of_day(still.lake, still.releases, still.spec, LAST)
    assert report is not None
    assert {c.column for c in report.columns} == {*still.spec.inputs, "label", *still.task.watched}
    assert report.drifted == ()
    moved = Days(tmp_path / "moved", name, late=True)
    report = drift_of_day(moved.lake, moved.releases, moved.spec, LAST)
    assert report is not None
    assert {"hour", "label", moved.task.watched[0]} <= set(report.drifted)


def test_without_a_champion_there_are_rows_and_no_predictions() -> None:
    for task in TASKS.values():
        empty = task.frame(task.unknown(3))
        assert list(empty) == task.columns
        assert empty.isna().to_numpy().all() and len(empty) == 3
        assert not np.isfinite(task.array(empty)).any()
