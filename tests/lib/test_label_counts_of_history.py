"""Counts of labels come from summaries of the older files: they are what all rows say, and cost no scan of history."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from worlds_of_core import spec_with

from ct_assets.core.inputs import MISSING_CATEGORY
from ct_assets.core.segments import Line
from ct_assets.core.spec import EventSpec, LabelSpec, ModelSpec
from ct_assets.lake import manifest
from ct_assets.lake.examples import MATURES
from ct_assets.lake.lake import Lake
from ct_assets.lib.label_counts import labels_by_segment, labels_known, labels_of_lines
from ct_assets.lib.outcomes import CORRECTIONS, outcomes_name, read_outcomes

START, DAY = pd.Timestamp("2020-03-01", tz="UTC"), pd.Timedelta(days=1)
DAYS = 40
REACH = timedelta(hours=30)
REGIONS = ["north", "south", "", MISSING_CATEGORY, None, "bad/name"]


def model(own: bool, absent: int | None) -> ModelSpec:
    label: dict[str, Any] = {"source": "notes", "sql": "SELECT ride, label, known_at FROM notes", "absent": absent}
    return spec_with(
        {"region": "categorical"},
        events=EventSpec(source="rides", sql="SELECT 1", id_column="ride"),
        label=LabelSpec(**label, **({"matures_at": "ends_at"} if own else {"delay": REACH})),
        segment_by="region",
    )


def fill(lake: Lake, spec: ModelSpec, seed: int) -> pd.DataFrame:
    """Outcomes of some days, written in any order, with labels known late, replaced ones and days that are repeated."""
    chance, dataset, written = np.random.default_rng(seed), lake.dataset(outcomes_name(spec)), {}
    days = [*chance.permutation(DAYS), *chance.choice(DAYS, 6)]
    for number in map(int, days):
        chance = np.random.default_rng([seed, number])  # a day that is repeated is the same again
        start = START + number * DAY
        at = start + pd.to_timedelta(chance.integers(0, 24, 6), unit="h")
        late = pd.to_timedelta(np.where(chance.random(6) < 0.15, chance.integers(1, 200, 6), 0), unit="h")
        frame = pd.DataFrame(
            {
                "ride": [f"{number}-{i}" for i in range(6)],
                "event_timestamp": at.as_unit("us"),
                "known_at": (at + late + pd.Timedelta(minutes=1)).as_unit("us"),
                "region": chance.choice(np.array(REGIONS, dtype=object), 6),
                "label": 1,
                MATURES: (at + pd.to_timedelta(chance.integers(1, 300, 6), unit="h")).as_unit("us"),
            }
        )
        _write(dataset, number, frame)
        written[number] = frame.assign(first=True)
        if number and number - 1 in written and chance.random() < 0.4:
            again = written[number - 1][written[number - 1]["first"]].head(2).drop(columns="first")
            again = again.assign(known_at=(again["known_at"] + DAY).astype("datetime64[us, UTC]"), label=0)
            _write(dataset, number, again, name=CORRECTIONS, append=True)
            written[number] = pd.concat([written[number], again.assign(first=False)])
    return pd.concat([frame.assign(number=number) for number, frame in written.items()], ignore_index=True)


def _write(dataset: Any, number: int, frame: pd.DataFrame, **how: Any) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.set_column(3, "region", table["region"].cast(pa.string()))
    dataset.write((START + number * DAY).date().isoformat(), table, **how)


@pytest.fixture
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "LEAF", 2)
    monkeypatch.setattr(manifest, "FAN", 3)


@pytest.mark.usefixtures("small_leaves")
@pytest.mark.parametrize("absent", [None, 0])
@pytest.mark.parametrize("own", [False, True], ids=["delay", "matures_at"])
def test_they_are_what_all_rows_say(tmp_path: Path, own: bool, absent: int | None) -> None:
    lake, spec = Lake(tmp_path), model(own, absent)
    rows = fill(lake, spec, seed=int(own) + 2)
    matures = rows[MATURES] if own else rows["event_timestamp"] + REACH
    counted = set()
    for number in (3, 11, 12, 25, 38, 39, 40):
        as_of = START + (number + 1) * DAY
        seen = (rows["number"] <= number) & (rows["known_at"] <= as_of)
        named = rows["region"].notna() & ~rows["region"].isin(["", MISSING_CATEGORY])
        grouped = rows[seen & named & (matures < as_of)].groupby("region")["ride"].nunique()
        expected = {region: n for region, n in grouped.items() if Line("m", str(region)).may_begin}
        assert labels_by_segment(lake, spec, as_of) == expected
        known = int((seen & rows["first"]).sum())
        immature = rows.loc[seen & (matures >= as_of), "ride"].nunique() if own or absent is not None else 0
        assert labels_known(lake, spec, as_of) == known - immature
        assert labels_of_lines(lake, spec, as_of)[Line("m")] == known - immature
        counted.add(known - immature)
        found = read_outcomes(lake, spec, as_of, as_of - 2 * DAY)
        assert set(found["ride"]) == set(rows.loc[seen & (matures >= as_of - 2 * DAY), "ride"])
    assert len(counted) > 4


@pytest.mark.parametrize("own", [False, True], ids=["delay", "matures_at"])
def test_a_day_opens_no_more_files_after_a_long_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    def opened(days: int) -> int:
        lake, spec = Lake(tmp_path / str(days)), model(own, None)
        for number in range(days):
            at = pd.DatetimeIndex([START + number * DAY] * 2).as_unit("us")
            frame = pd.DataFrame({"ride": [f"{number}", f"{number}b"], "event_timestamp": at, "known_at": at})
            frame = frame.assign(region="north", label=1, **{MATURES: at + 3 * DAY})
            _write(lake.dataset(outcomes_name(spec)), number, frame)
        as_of, files = START + days * DAY, 0
        assert labels_by_segment(lake, spec, as_of) == {"north": 2 * (days - (3 if own else 1))}
        expose = Lake.expose

        def counting(self: Lake, connection: Any, windows: Any, as_of: Any) -> int:
            nonlocal files
            for name, window in windows.items():
                if isinstance(window, list):
                    files += len(window)
                else:
                    files += len(self.dataset(name).files(window.first, window.last, window.matures_from))
            return expose(self, connection, windows, as_of)

        with monkeypatch.context() as watched:
            watched.setattr(Lake, "expose", counting)
            labels_of_lines(lake, spec, as_of)
            read_outcomes(lake, spec, as_of, as_of - 2 * DAY)
        return files

    few = opened(40)
    assert opened(200) <= few + manifest.LEAF
