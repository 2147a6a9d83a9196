"""What a command says when it cannot do what it was asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ct_assets import cli


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_home_that_is_no_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CT_HOME", str(tmp_path / place))
    done = CliRunner().invoke(cli.app, ["status"])
    told = "".join(done.stderr.split())
    assert done.exit_code == 1
    assert f"{place},whichisnofolderandcannotbecomeone" in told, "a terminal breaks long paths"
    assert "expectedafolder" in told


def test_a_run_says_what_lies_in_landing_and_cannot_be_taken_in(tmp_path: Path) -> None:
    (tmp_path / "landing" / "flights").mkdir(parents=True)
    (tmp_path / "landing" / "flights" / "loose[1].parquet").touch()
    command = [sys.executable, "-m", "ct_assets.cli", "run"]
    done = subprocess.run(
        command,
        check=False,
        env={**os.environ, "CT_HOME": str(tmp_path), "COLUMNS": "500"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing is left to do" not in done.stdout
    assert "not taken in, as they lie in no folder of an arrival day: flights/loose[1].parquet; expected" in done.stderr
