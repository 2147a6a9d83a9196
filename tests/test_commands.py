"""What a command says when it cannot do what it was asked for."""

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
