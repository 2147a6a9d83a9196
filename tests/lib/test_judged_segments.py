"""Which segments are judged by themselves, told from rows that are written by hand."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner
from worlds_of_core import spec_with

from ct_assets import cli
from ct_assets.core.ledger import PROMOTION
from ct_assets.core.segments import Line
from ct_assets.core.spec import SegmentRules
from ct_assets.lake.releases import Release, Releases
from ct_assets.lib.label_counts import labels_by_segment, labels_of_lines
from ct_assets.lib.monitoring import lines_at
from ct_assets.resources.lake import LakeResource

START = pd.Timestamp("2020-03-01", tz="UTC")
NOW = START + pd.Timedelta(days=3)
# `segment` is the team's own word for kinds of customers, and `n` for something else.
SPEC = spec_with(
    {"country": "categorical", "segment": "categorical", "n": "categorical"},
    slices=("segment", "n"),
    segment_by="country",
    segments=SegmentRules(min_labels=3, most=2),
)
LABELS = Counter({"DE": 9, "FR": 7, "AT": 5, "CH": 2})


@pytest.fixture
def lake(tmp_path: Path) -> LakeResource:
    """Labels of four countries, and of values that are none."""
    counts = LABELS | Counter({"(missing)": 8, "": 8, "x" * 201: 8, "京" * 23: 8})
    country = list(counts.elements())
    rows = pd.DataFrame(
        {
            "id": [f"e{i}" for i in range(len(country))],
            "event_timestamp": START.as_unit("us"),
            "known_at": (START + pd.Timedelta(days=1)).as_unit("us"),
            "country": country,
            "segment": ["(missing)", "loyal"] * (len(country) // 2) + ["new"] * (len(country) % 2),
            "n": "(missing)",
        }
    )
    found = LakeResource(home=str(tmp_path))
    found.lake().dataset("m/performance").write("2020-03-02", pa.Table.from_pandas(rows, preserve_index=False))
    return found


def promoted(lake: LakeResource, *segments: str | None) -> None:
    for segment in segments:
        line = Line(SPEC.name, segment)
        Releases(lake.path, line, lake.ledger()).save(
            Release(line.name, "1", "", "", "", {}, "", "", START.isoformat())
        )
        lake.ledger().append(PROMOTION, line.name, START, {"version": "1"})


def judged(lake: LakeResource) -> list[str | None]:
    return [releases.line.segment for releases in lines_at(lake, SPEC, NOW, labels_of_lines(lake.lake(), SPEC, NOW))]


def test_labels_are_counted_by_the_segment_column_whatever_the_others_are_called(lake: LakeResource) -> None:
    assert labels_by_segment(lake.lake(), SPEC, NOW) == dict(LABELS)


def test_the_largest_segments_are_judged(lake: LakeResource) -> None:
    assert judged(lake) == [None], "without a champion of the model there is nothing to measure them by"
    promoted(lake, None)
    assert judged(lake) == [None, "DE", "FR"]


def test_a_segment_with_a_champion_is_judged_for_as_long_as_it_scores(lake: LakeResource) -> None:
    promoted(lake, None, "AT")
    assert judged(lake) == [None, "AT", "DE"], "two larger ones have come after it"
    promoted(lake, "CH", "DE")
    assert judged(lake) == [None, "AT", "CH", "DE"], "the limit was lowered, or the number of labels raised"


def test_a_segment_of_another_column_is_no_longer_judged(lake: LakeResource) -> None:
    promoted(lake, None, "web")
    assert judged(lake) == [None, "DE", "FR"]


@pytest.mark.parametrize("command", [["why"], ["retrain", "--reason", "r"], ["rollback", "--reason", "r"]])
@pytest.mark.parametrize(
    ("model", "segment", "told"),
    [("repurchase", "", "--segment is empty"), ("flight_delay", "JFK", "model flight_delay has no segments")],
)
def test_a_segment_that_is_none_is_not_taken_for_the_whole_model(
    command: list[str], model: str, segment: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path))
    name, *options = command
    done = CliRunner().invoke(cli.app, [name, model, "--segment", segment, *options])
    assert done.exit_code == 1
    assert told in done.stderr
    assert LakeResource(home=str(tmp_path)).ledger().models() == []
