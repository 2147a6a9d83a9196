"""Nothing is sent anywhere: what a new user types opens no connection to another machine."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAP = """
import os, site, socket, threading
site.addsitedir({site!r})  # as Python does with the environment's own folder

def _noted(call):
    def connect(self, address, *rest):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            with open({log!r}, "a") as log:
                log.write(str(address) + "\\\\n")
            raise OSError("no way out")
        return call(self, address, *rest)
    return connect

def _looked_up(host, *rest, **more):
    if host not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", socket.gethostname()):
        with open({log!r}, "a") as log:
            log.write(str(host) + "\\\\n")
        raise OSError("no way out")
    return _lookup(host, *rest, **more)

_lookup, socket.getaddrinfo = socket.getaddrinfo, _looked_up
socket.socket.connect = _noted(socket.socket.connect)
socket.socket.connect_ex = _noted(socket.socket.connect_ex)
"""
UPLOAD = """
from dagster._core.telemetry_upload import uploading_logging_thread
with uploading_logging_thread():
    pass
"""
TRAIN = """
import mlflow, tempfile
client = mlflow.MlflowClient(f"sqlite:///{tempfile.mkdtemp()}/mlflow.db")
client.log_metric(client.create_run(client.create_experiment("e")).info.run_id, "auc", 0.5)
import mlflow.telemetry.client as telemetry
found = telemetry.get_telemetry_client()
if found is not None:
    found.flush(terminate=True)
"""
FEATURES = "import feast; from ct_assets.resources.feast import definitions; definitions()"
COMMANDS = {
    "dg check": ["dg", "check", "yaml"],
    "dg list": ["dg", "list", "component-tree"],
    "dagster": ["dagster", "job", "list", "-w", "workspace.yaml"],
    "a daemon's upload": ["python", "-c", UPLOAD],
    "mlflow": ["python", "-c", TRAIN],
    "feast": ["python", "-c", FEATURES],
}


class Trap:
    """A user's folder, and Python with every connection to another machine noted and refused."""

    def __init__(self, folder: Path) -> None:
        self.log, self.user = folder / "connections", folder / "user"
        self.user.mkdir()
        site = folder / "site"
        site.mkdir()
        subprocess.run([sys.executable, str(ROOT / ".ci" / "quiet"), str(site)], check=True)
        (folder / "sitecustomize.py").write_text(TRAP.format(site=str(site), log=str(self.log)).replace("\\\\n", "\\n"))
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(self.user),
            "CT_HOME": str(folder / "ct"),
            "PYTHONPATH": str(folder),
        }

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / command[0]), *command[1:]],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def connections(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_connection_leaves(trap: Trap, name: str) -> None:
    done = trap.run(COMMANDS[name])
    assert done.returncode == 0, done.stdout + done.stderr
    assert trap.connections() == []
    # What is noted here, the next daemon of any project would send.
    assert not list(trap.user.rglob("event.log"))


def test_the_trap_sees_a_connection(trap: Trap) -> None:
    trap.run(["python", "-c", "import urllib.request; urllib.request.urlopen('http://telemetry.dagster.io/actions')"])
    assert trap.connections() == ["telemetry.dagster.io"]
