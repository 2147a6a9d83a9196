"""Databases for the tests: SQLite in a file, and a PostgreSQL server of their own where one is installed."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _program(name: str) -> str | None:
    found = [*Path("/usr/lib/postgresql").glob(f"*/bin/{name}")]
    return shutil.which(name) or (str(max(found)) if found else None)


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server that lives as long as the context; skips the test where none is installed."""
    initdb, server = _program("initdb"), _program("postgres")
    if not initdb or not server:
        pytest.skip("PostgreSQL is not installed here")
    # It refuses to run as root.
    account = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        if os.getuid() == 0:
            shutil.chown(folder, account)
        run = {"user": account} if os.getuid() == 0 else {}
        subprocess.run(
            [initdb, "-D", folder / "data", "-A", "trust", "-U", "test", "--no-sync"],
            check=True, capture_output=True, cwd=folder, **run,
        )  # fmt: skip
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = subprocess.Popen(
            [server, "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port), "-k", folder, "-F"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **run,
        )  # fmt: skip
        try:
            _wait_for(port, process)
            yield f"postgresql+psycopg://test@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    import psycopg

    deadline = time.monotonic() + 600
    while True:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="test", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None, "PostgreSQL ended by itself"
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.1)
