"""Where things lie under `$CT_HOME`, and how a file gets there whole."""

import fcntl
import os
import sqlite3
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from ct_assets.core.durable import sync_folder

T = TypeVar("T")

_REMEMBERED = 256
_remembering = threading.Lock()
_parsed: dict[tuple[Path, Callable[[bytes], Any]], tuple[tuple[int, int, int], Any]] = {}


def default_home() -> Path:
    """`$CT_HOME`, or `.ct` in the checkout that this package is installed from."""
    return Path(os.environ.get("CT_HOME") or Path(__file__).parents[2] / ".ct").absolute()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, against other threads and processes; a crash releases it.

    Args:
        path: The file, which is created with its folder; nobody may hold it already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_atomically(path: Path, payload: bytes) -> None:
    """Write `payload` to `path` so that a crash leaves the old file or the new one, never half of it.

    Raises:
        OSError: The disk did not take it; the old file is still there, and nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as handle:
            handle.write(payload)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_replaced(path: Path, parse: Callable[[bytes], T]) -> T:
    """Parse a file that is only ever replaced as a whole; parsed again only when it was.

    Args:
        path: The file.
        parse: From its bytes to what is wanted, which all callers share: nobody may change it.

    Raises:
        FileNotFoundError: There is no such file.
    """
    status = path.stat()
    version = (status.st_ino, status.st_mtime_ns, status.st_size)
    known = _parsed.get((path, parse))
    if known is None or known[0] != version:
        # One version of each file: those before it are never asked for again.
        known = (version, parse(path.read_bytes()))
        with _remembering:
            _parsed[path, parse] = known
            while len(_parsed) > _REMEMBERED:
                del _parsed[next(iter(_parsed))]
    return cast(T, known[1])


def create_database(path: Path, create: Callable[[Path], object]) -> None:
    """Create a SQLite database so that a crash leaves none or the whole of it, with all its tables.

    Args:
        path: Where it belongs; one that is there already is left alone.
        create: Creates a database of the same name in the folder it is given, and closes it. Of several processes
            that do so at once, the first one's becomes the database.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as aside:
        create(Path(aside))
        made = Path(aside) / path.name
        connection = sqlite3.connect(made)
        # What a write-ahead log still holds has to be in the file, as only the file moves.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        with made.open("rb") as handle:
            os.fsync(handle.fileno())
        try:
            os.link(made, path)
        except FileExistsError:
            return
