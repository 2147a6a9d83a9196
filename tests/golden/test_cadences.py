"""The small model with arrivals of an hour or a week, decided in a cycle of its own: from files to a champion."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from golden_home import MODEL, copy_checkout, ct, land

from ct_assets.core.ledger import PROMOTION, RETRAIN, SKIP, Ledger


@dataclass(frozen=True)
class Cadence:
    """How the model's rows arrive, when it is decided, and what has to come of it.

    Attributes:
        arrivals: The group's cadence.
        policy: When it is decided.
        days: Days of readings from 1 February 2024 on.
        last_day: Last day of arrival.
        decided: The times of the decisions.
        partitions: First and last partition that is scored, and how many there are.
    """

    arrivals: str
    policy: str
    days: int
    last_day: str
    decided: tuple[str, ...]
    partitions: tuple[str, str, int]


CADENCES = {
    "hourly, decided once a day": Cadence(
        "hourly",
        "",
        4,
        "date(2024, 2, 4)",
        ("2024-02-02T00:00", "2024-02-03T00:00", "2024-02-04T00:00", "2024-02-05T00:00"),
        ("2024-02-01-00:00", "2024-02-04-23:00", 96),
    ),
    "weekly, decided on Mondays at six in Berlin": Cadence(
        "weekly",
        "decide_at: 0 6 * * MON, decide_timezone: Europe/Berlin, ",
        18,
        "date(2024, 2, 18)",
        ("2024-02-05T05:00", "2024-02-12T05:00"),
        ("2024-01-29-week", "2024-02-12-week", 3),
    ),
}


@pytest.fixture(scope="module", params=CADENCES)
def lived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cadence, Path]:
    """A cadence, and the home in which all of its readings arrived."""
    cadence, folder = CADENCES[request.param], tmp_path_factory.mktemp("cadence")
    checkout, home = folder / "checkout", folder / "home"
    copy_checkout(checkout)
    home.mkdir()
    model = checkout / "ct_assets" / "defs" / "models" / MODEL
    replace(
        model / "sources.py", "last_day=date(2024, 2, 29)", f'last_day={cadence.last_day}, cadence="{cadence.arrivals}"'
    )
    replace(model / "defs.yaml", "policy: {", f"policy: {{{cadence.policy}")
    replace(model / "defs.yaml", "first_training_rows: 200", "first_training_rows: 100")
    replace(model / "defs.yaml", "delay: 1 day", "delay: 12 hours")
    replace(model / "defs.yaml", "evaluation_days: 2", "evaluation_days: 1")
    replace(model / "defs.yaml", "min_rows: 100, min_slice_rows: 50", "min_rows: 50, min_slice_rows: 30")
    land(checkout, home, range(cadence.days))
    done = ct(checkout, home, "run")
    assert not done.returncode, done.stdout + done.stderr
    return cadence, home


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_it_is_decided_at_the_times_of_the_cycle(lived: tuple[Cadence, Path]) -> None:
    cadence, home = lived
    records = Ledger(home / "ledger" / "decisions.jsonl").records(model=MODEL)
    decided = sorted({pd.Timestamp(r.as_of) for r in records if r.kind in {RETRAIN, SKIP}})
    assert decided == [pd.Timestamp(time, tz="UTC") for time in cadence.decided]


def test_every_partition_is_scored_by_the_champion_of_its_beginning(lived: tuple[Cadence, Path]) -> None:
    cadence, home = lived
    folder = home / "lake" / MODEL / "scored"
    listed = [each for leaf in folder.rglob("manifest*/*.json") for each in json.loads(leaf.read_text())["files"]]
    files = [*listed, *json.loads((folder / "manifest.json").read_text())["files"]]
    names = sorted({file["path"].split("/")[0] for file in files})
    assert (names[0], names[-1], len(names)) == cadence.partitions
    rows = pd.concat([pq.read_table(folder / file["path"]).to_pandas() for file in files], ignore_index=True)
    assert len(rows) == 90 * cadence.days
    ledger = Ledger(home / "ledger" / "decisions.jsonl")
    first = min(pd.Timestamp(record.as_of) for record in ledger.records(PROMOTION, MODEL))
    length = {"hourly": pd.Timedelta(hours=1), "weekly": pd.Timedelta(days=7)}
    scored = rows.loc[rows["model_version"].notna(), "event_timestamp"]
    assert len(scored)
    assert first <= scored.min() < first + length[cadence.arrivals]
    assert (rows.loc[rows["event_timestamp"] >= scored.min(), "model_version"].notna()).all()


def test_no_example_was_known_later_than_its_decision(lived: tuple[Cadence, Path]) -> None:
    home = lived[1]
    trained = Ledger(home / "ledger" / "decisions.jsonl").records(RETRAIN, MODEL)
    assert trained
    manifests = list((home / "training_sets").glob("*/manifest.json"))
    assert manifests
    for manifest in manifests:
        content = json.loads(manifest.read_text())
        assert pd.Timestamp(content["as_of"]) in {pd.Timestamp(record.as_of) for record in trained}
        blocks = [manifest.parents[1] / "rows" / f"{digest}.parquet" for digest in content["blocks"]]
        examples = pd.concat([pq.read_table(path).to_pandas() for path in blocks])
        assert (examples["event_timestamp"] + pd.Timedelta(hours=12) < pd.Timestamp(content["as_of"])).all()
