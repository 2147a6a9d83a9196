"""Drift in the lake: far from the training, by a step that the days before do not explain."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from worlds_of_core import spec_with

from ct_assets.core.drift import DriftReport
from ct_assets.core.ledger import PROMOTION, Ledger
from ct_assets.core.profile import bin_edges, profile
from ct_assets.core.segments import Line
from ct_assets.lake.examples import scored_name
from ct_assets.lake.lake import Lake
from ct_assets.lake.releases import Release, Releases
from ct_assets.lib.drifting import drift_of_lines

START = pd.Timestamp("2020-01-01", tz="UTC")
DAY = pd.Timedelta(days=1)
SPEC = spec_with({"season": "numeric", "pump": "numeric", "site": "categorical"})
TRAINED, LAST = 30, 48


def rows(day: int, broken_from: int | None) -> pd.DataFrame:
    random = np.random.default_rng(day)
    broken = broken_from is not None and day >= broken_from
    return pd.DataFrame(
        {
            "event_timestamp": (START + day * DAY + pd.Timedelta(hours=6)).as_unit("us"),
            "known_at": (START + day * DAY + pd.Timedelta(hours=6)).as_unit("us"),
            # A spring: far from what was trained on after three weeks, a little each day.
            "season": random.normal(size=80) * 0.6 + 0.05 * day,
            "pump": np.full(80, 0.3) if broken else random.normal(size=80),
            "site": random.choice(["north", "south"], 80),
            "prediction": random.uniform(size=80),
            "model_version": "1" if day >= TRAINED else None,
        }
    )


def watched(home: Path, broken_from: int | None) -> dict[int, DriftReport]:
    """The report of each day from the training on."""
    lake, ledger = Lake(home), Ledger(home / "ledger" / "decisions.jsonl")
    releases = Releases(home, Line(SPEC.name), ledger)
    reports = {}
    for day in range(LAST + 1):
        frame = rows(day, broken_from)
        if day == TRAINED:
            learned = pd.concat([rows(each, None) for each in range(TRAINED)])[["season", "pump", "site", "prediction"]]
            (home / "reference.json").write_text(profile(learned, bin_edges(learned)).to_json())
            as_of = (START + TRAINED * DAY).isoformat()
            releases.save(Release(SPEC.name, "1", str(home / "model.skops"), "", "", {}, "", "", as_of))
            ledger.append(PROMOTION, SPEC.name, START + TRAINED * DAY, {"version": "1"})
        name = (START + day * DAY).date().isoformat()
        table = pa.Table.from_pandas(frame.astype({"model_version": "string"}), preserve_index=False)
        lake.dataset(scored_name(SPEC), "event_timestamp").write(name, table)
        labels = frame[["event_timestamp"]].assign(label=0).iloc[:0] if day >= TRAINED else None
        found = drift_of_lines(lake, [releases], SPEC, START + (day + 1) * DAY, labels)[releases.line]
        if found is not None:
            reports[day] = found
    return reports


def test_a_season_warns_and_never_drifts(tmp_path: Path) -> None:
    reports = watched(tmp_path, None)
    assert list(reports) == list(range(TRAINED, LAST + 1))
    assert {report.drifted for report in reports.values()} == {()}
    season = next(c for c in reports[LAST].columns if c.column == "season")
    assert (season.verdict, season.step) == ("warn", None)
    assert season.psi is not None and season.psi > SPEC.drift.psi_drift


def test_a_stuck_sensor_drifts_from_its_second_day_on_and_says_since_when(tmp_path: Path) -> None:
    reports = watched(tmp_path, 40)
    assert {day for day, report in reports.items() if report.drifted == ("pump",)} == set(range(41, LAST + 1))
    pump = next(c for c in reports[LAST].columns if c.column == "pump")
    assert pump.step is not None
    assert pump.step.startswith("log spread was ") and pump.step.endswith("since 2020-02-10")


def test_without_history_distances_alone_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_distance = SPEC.model_copy(update={"drift": SPEC.drift.model_copy(update={"history_days": 0})})
    monkeypatch.setattr("test_drifting.SPEC", by_distance)
    assert "season" in watched(tmp_path, None)[LAST].drifted
