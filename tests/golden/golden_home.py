"""The golden home: the home of a small model as an earlier version of the code left it, and what works on it.

    python tests/golden/golden_home.py

makes `home.tar.xz` and `facts.json` beside this file, by `ct land` and `ct run` in a copy of the checkout that has the
model of `pump_alarm`. Make another one only where a schema version rises, under a new name: homes of earlier versions
stay, and the tests open them with the code of today.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from ct_assets.core.ledger import Ledger

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
MODEL, OTHERS = "pump_alarm", ("household_power", "repurchase")
FIRST, DAYS, A_DAY = pd.Timestamp("2024-02-01", tz="UTC"), 13, 90
HOUR = pd.Timedelta(hours=1)


def readings(days: range) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Readings of some days, and the alarms that became known on them, twelve hours after each."""
    random = np.random.default_rng(7)
    rows = (DAYS + 10) * A_DAY
    ids = 2**53 + 1 + 2 * np.arange(rows)
    known_at = FIRST + (np.arange(rows) * (24 * 3600 // A_DAY) + 60) * pd.Timedelta(seconds=1)
    heat, kind = random.normal(60, 10, rows).round(2), random.choice(["old", "new"], rows)
    alarm = random.random(rows) < 1 / (1 + np.exp(-(heat - 65) / 4 - 1.5 * (kind == "old")))
    pump = np.char.add("P", (np.arange(rows) % 5).astype(str))
    sent = pd.DataFrame({"reading_id": ids, "pump": pump, "kind": kind, "heat": heat, "known_at": known_at})
    rung = pd.DataFrame({"reading_id": ids, "alarm": alarm.astype(int), "known_at": known_at + 12 * HOUR})
    first, end = FIRST + days.start * 24 * HOUR, FIRST + days.stop * 24 * HOUR
    return tuple(f[(f["known_at"] >= first) & (f["known_at"] < end)] for f in (sent, rung))  # type: ignore[return-value]


def copy_checkout(target: Path) -> None:
    """A checkout with the model of the golden home, and fewer others so that it is quick."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    left_out = ("tests/", "docs/", "benchmarks/", *(f"ct_assets/defs/models/{name}/" for name in OTHERS))
    for name in listed.stdout.splitlines():
        if (CHECKOUT / name).is_file() and not name.startswith(left_out):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name)
    shutil.copytree(HERE / MODEL, target / "ct_assets" / "defs" / "models" / MODEL)


def environment(checkout: Path, home: Path) -> dict[str, str]:
    """The variables that commands of a checkout run with."""
    # MLflow notes the registry of this process there.
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return {**kept, "PYTHONPATH": str(checkout), "CT_HOME": str(home), "COLUMNS": "300"}


def ct(checkout: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `ct` of a checkout on a home."""
    command = [sys.executable, "-m", "ct_assets.cli", *arguments]
    return subprocess.run(
        command, cwd=checkout, env=environment(checkout, home), capture_output=True, text=True, check=False
    )


def land(checkout: Path, home: Path, days: range) -> None:
    """Land some days of readings and alarms."""
    for name, frame in zip(("readings", "alarms"), readings(days), strict=True):
        file = home.parent / f"{name}.csv"
        frame.to_csv(file, index=False, date_format="%Y-%m-%dT%H:%M:%SZ")
        done = ct(checkout, home, "land", name, str(file))
        assert not done.returncode, done.stdout + done.stderr


def pack(home: Path) -> None:
    """Archive a home without the place where it was made, which databases of others name."""
    place, sealed = str(home.parent).encode(), {".json", ".jsonl", ".parquet", ".skops"}
    for path in home.rglob("*"):
        if path.is_file() and place in (content := path.read_bytes()):
            assert path.suffix not in sealed, f"{path} names the place where it was made"
            # As long as it was: in a database, text has its length beside it.
            path.write_bytes(content.replace(place, b"/" + b"x" * (len(place) - 1)))
    with tarfile.open(HERE / "home.tar.xz", "w:xz", preset=9) as archive:
        archive.add(home, "home", filter=_of_nobody)


def _of_nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def unpack(target: Path) -> Path:
    """Extract the golden home into a folder, and return its path."""
    with tarfile.open(HERE / "home.tar.xz") as archive:
        archive.extractall(target, filter="data")
    return target / "home"


def main() -> None:
    """Make the home, and note what is to be found in it."""
    with tempfile.TemporaryDirectory() as folder:
        checkout, home = Path(folder) / "checkout", Path(folder) / "home"
        copy_checkout(checkout)
        home.mkdir()
        land(checkout, home, range(DAYS))
        for command in (["run"], ["status", MODEL], ["why", MODEL]):
            done = ct(checkout, home, *command)
            print(done.stdout, done.stderr)
            assert not done.returncode
        facts = json.loads(ct(checkout, home, "status", MODEL, "--json").stdout)
        facts["records"] = Ledger(home / "ledger" / "decisions.jsonl").verify()
        (HERE / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
        pack(home)
        print(f"{(HERE / 'home.tar.xz').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
