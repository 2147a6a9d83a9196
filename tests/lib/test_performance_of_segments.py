"""What a pooled champion achieves is compared with its evaluation over the segments that it still serves."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from worlds_of_core import spec_with

from ct_assets.core.baselines import fit_baseline
from ct_assets.core.ledger import PROMOTION
from ct_assets.core.policy import RetrainPolicy, shows_loss
from ct_assets.core.segments import Line
from ct_assets.core.tasks import task_of
from ct_assets.lake.releases import Release, Releases
from ct_assets.lib.evaluated import evaluation_files
from ct_assets.lib.monitoring import _loses_to_baseline
from ct_assets.lib.performance import performance_report
from ct_assets.resources.lake import LakeResource

START = pd.Timestamp("2020-03-01", tz="UTC")
DAY = pd.Timedelta(days=1)
POOLED = "(pooled)"
#: By how much the model misses labels of a country.
MISSES = {"DE": 0.1, "FR": 0.4}
SPEC = spec_with(
    {"x": "numeric", "country": "categorical"},
    segment_by="country",
    policy=RetrainPolicy(performance_metric="brier", performance_drop=0.02, performance_min_rows=10),
)


def rows(first: int, days: int) -> pd.DataFrame:
    """Each day two labels of each country; days differ a little."""
    made = [
        {
            "id": f"{country}{day}{label}",
            "event_timestamp": (START + day * DAY).as_unit("us"),
            "x": 0.0,
            "country": country,
            "label": label,
            "prediction": abs(label - miss - 0.01 * (day % 2)),
        }
        for day in range(first, first + days)
        for country, miss in MISSES.items()
        for label in (0, 1)
    ]
    return pd.DataFrame(made)


@pytest.fixture
def lake(tmp_path: Path) -> LakeResource:
    """A pooled champion, evaluated on six days of both countries."""
    found = LakeResource(home=str(tmp_path))
    held_out = rows(0, 6)
    folder = tmp_path / "model"
    folder.mkdir()
    examples = held_out.assign(label=[1, 0, 0, 0] * 6)
    for name, payload in evaluation_files(SPEC, examples, held_out, held_out["prediction"].to_numpy()).items():
        (folder / name).write_bytes(payload)
    release = Release(SPEC.name, "1", str(folder / "model.skops"), "", "", {}, "", "", START.isoformat())
    Releases(tmp_path, Line(SPEC.name), found.ledger()).save(release)
    found.ledger().append(PROMOTION, SPEC.name, START, {"version": "1"})
    return found


def report_of(lake: LakeResource, german: str | None) -> dict:
    """The newest eight days, in which Germany was served by another line in the last four, if one is named."""
    served = rows(10, 8)
    own = (served["country"] == "DE") & (served["event_timestamp"] >= START + 14 * DAY) & (german is not None)
    served["served_by"] = own.map({True: german, False: POOLED})
    served["model_version"] = "1"
    served["known_at"] = served["event_timestamp"] + pd.Timedelta(hours=1)
    for day, part in served.groupby(served["known_at"].dt.strftime("%Y-%m-%d")):
        table = pa.Table.from_pandas(part, preserve_index=False)
        lake.lake().dataset(f"{SPEC.name}/performance").write(str(day), table)
        scored = table.drop_columns(["label"])
        lake.lake().dataset(f"{SPEC.name}/scored", "event_timestamp").write(str(day), scored)
    releases = Releases(lake.path, Line(SPEC.name), lake.ledger())
    return performance_report(lake.lake(), releases, SPEC, START + 25 * DAY)


def brier(*countries: str) -> float:
    """Over an even number of days."""
    return sum((MISSES[c] + 0.01 * odd) ** 2 for c in countries for odd in (0, 1)) / (2 * len(countries))


def test_a_segment_that_was_handed_over_leaves_both_figures(lake: LakeResource) -> None:
    both = report_of(lake, None)
    assert (both["now"], both["reference"]) == (pytest.approx(brier("DE", "FR")),) * 2
    left = report_of(lake, "DE")
    assert (left["now"], left["reference"]) == (pytest.approx(brier("FR")),) * 2
    assert (left["handed_over"], both["rows"], left["rows"], left["days"]) == (["DE"], 32, 16, 8)
    # Over all of them the pooled figure rises by far more than the limit, and nothing has changed.
    assert brier("FR") - brier("DE", "FR") > 0.02
    assert not shows_loss(SPEC.policy, left["now"], left["reference"], left["margin"], left["rows"])


def test_the_baseline_is_that_of_the_training_and_measured_on_the_same_rows(lake: LakeResource) -> None:
    learned = pd.DataFrame({"label": [1, 0, 0, 0]})
    naive = fit_baseline(task_of(SPEC), SPEC.baseline, "brier", learned).predict(learned)[0]
    assert naive == 0.25
    for german in (None, "DE"):
        # As many labels of either kind.
        assert report_of(lake, german)["baseline"] == pytest.approx((naive**2 + (1 - naive) ** 2) / 2)


def test_a_champion_that_is_no_better_than_the_baseline_is_told(lake: LakeResource) -> None:
    report = report_of(lake, None)
    assert not _loses_to_baseline(SPEC, report)
    assert _loses_to_baseline(SPEC, report | {"now": report["baseline"]})
    assert not _loses_to_baseline(SPEC, report | {"now": 1.0, "rows": 9}), "too few rows"
    assert not _loses_to_baseline(SPEC, report | {"now": 1.0, "baseline": None})
