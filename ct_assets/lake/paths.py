"""Where things lie under `$CT_HOME`, and how a file gets there whole."""

import os
import uuid
from pathlib import Path


def default_home() -> Path:
    """`$CT_HOME`, or `.ct` in the checkout that this package is installed from."""
    return Path(os.environ.get("CT_HOME") or Path(__file__).parents[2] / ".ct").absolute()


def write_atomically(path: Path, payload: bytes) -> None:
    """Write `payload` to `path` so that a crash leaves the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with temporary.open("wb") as handle:
        handle.write(payload)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)
