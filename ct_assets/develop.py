"""`ct dev`: everything a developer looks at, started together and stopped together."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from ct_assets.lib.instance import write_dagster_home
from ct_assets.lib.provenance import CHECKOUT


def develop(home: Path, port: int, serve_port: int, every: float, console: Console) -> None:
    """Run the Dagster UI and daemon, the feeder and the prediction server until interrupted.

    Args:
        home: `$CT_HOME`.
        port: Port of the Dagster UI.
        serve_port: Port of the prediction server.
        every: Seconds between two arriving days; 0 for no feeder.
        console: Where the addresses are shown.
    """
    ct = [sys.executable, "-m", "ct_assets.cli"]
    commands = {
        "Dagster UI": [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-p", str(port)],
        "server": [*ct, "serve", "--port", str(serve_port)],
    }
    if every > 0:
        commands["feeder"] = [*ct, "feed", "--days", "366", "--every", str(every)]
    environment = {**os.environ, "CT_HOME": str(home), "PYTHONWARNINGS": "ignore"}
    # A busy machine takes longer than Dagster's minute to start a run's process.
    environment.setdefault("DAGSTER_GRPC_TIMEOUT_SECONDS", "300")
    if home != CHECKOUT / ".ct":
        # The checkout's own settings are for the default home.
        environment["DAGSTER_HOME"] = str(write_dagster_home(home))
    # Also when started where interrupts are ignored, or ended by another program.
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    running = {
        name: subprocess.Popen(command, cwd=CHECKOUT, env=environment, start_new_session=True)
        for name, command in commands.items()
    }
    console.print(f"Dagster UI  http://127.0.0.1:{port}")
    console.print(f"predictions http://127.0.0.1:{serve_port}/docs, reports under /reports/")
    try:
        while all(p.poll() is None for name, p in running.items() if name != "feeder"):
            time.sleep(1)
        ended = next(name for name, p in running.items() if p.poll() is not None and name != "feeder")
        console.print(f"[red]{ended} ended by itself; stopping the rest[/]")
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        _stop(list(running.values()))


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask politely, as Ctrl-C does, since Dagster then ends its own children; insist after a while."""
    for sign, patience in ((signal.SIGINT, 15), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, sign)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and any(p.poll() is None for p in processes):
            time.sleep(0.2)
