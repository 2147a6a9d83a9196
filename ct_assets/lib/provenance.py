"""Which code and which environment made a model."""

import hashlib
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


@cache
def code_version() -> str:
    """The git commit, marked `+dirty` when files differ from it; the package version outside of a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return version("ct-assets")


@cache
def environment_digest() -> str:
    """SHA-256 of the lock file that the environment is installed from; empty outside of a checkout."""
    lock = CHECKOUT / "requirements.lock"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else ""


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(CHECKOUT), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()
