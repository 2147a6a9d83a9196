"""Feeds: what an upstream system sends, file by file, and how a file comes to lie in the landing folder.

A feed knows nothing of the platform. It makes `Delivery` objects, and `feed_wave` puts them where the arrival sensor
looks.
"""

import io
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

__all__ = ["Delivery", "feed_wave", "parquet_bytes", "write", "write_synced"]


@dataclass(frozen=True)
class Delivery:
    """One file an upstream system sends.

    Parameters
    ----------
    source : name of the source the rows belong to, such as `flights`
    day : UTC day of arrival; None for a reference table, which lands once and outside the day folders
    name : file name with its suffix, such as `flights.parquet`; unique within the source and day
    payload : the complete bytes of the file
    """

    source: str
    day: date | None
    name: str
    payload: bytes

    @property
    def folder(self) -> str:
        """Folder below `landing/`, `archive/` and `quarantine/`: `<source>/<YYYY-MM-DD>`, or `<source>`."""
        return self.source if self.day is None else f"{self.source}/{self.day.isoformat()}"

    @property
    def path(self) -> str:
        """Path of the file below `landing/`: `<folder>/<name>`."""
        return f"{self.folder}/{self.name}"


def parquet_bytes(table: pa.Table) -> bytes:
    """Encode a table as a Parquet file; the same table gives the same bytes, so a digest identifies the content."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def write(delivery: Delivery, landing: str) -> bool:
    """Put one delivery into the landing folder; a reader sees the whole file or none of it.

    Parameters
    ----------
    delivery : the file to put
    landing : the landing folder, a local path or any fsspec URL

    Returns
    -------
    bool : True when the file was written, False when the very same file was already there

    Raises
    ------
    FileExistsError : another file of that name is already in landing; what arrived is never overwritten
    """
    fs, root = url_to_fs(landing)
    target = f"{root.rstrip('/')}/{delivery.path}"
    if fs.exists(target):
        if fs.cat_file(target) == delivery.payload:
            return False
        raise FileExistsError(
            f"{target} already holds other bytes than this delivery of {delivery.source}. "
            "Send it under another name, or start from an empty CT_HOME."
        )
    folder, name = target.rsplit("/", 1)
    # The name begins with a dot so that the arrival sensor passes it by. It is always the same, so the next attempt
    # replaces what a killed one left behind.
    temporary = f"{folder}/.{name}.part"
    if isinstance(fs, LocalFileSystem):
        write_synced(Path(temporary), Path(target), delivery.payload)
    else:
        fs.makedirs(folder, exist_ok=True)
        fs.pipe_file(temporary, delivery.payload)
        fs.mv(temporary, target)
    return True


def feed_wave(deliveries: Iterable[Delivery], ct_home: str) -> list[Delivery]:
    """Land the deliveries the platform has not received yet; call it again after a kill and nothing arrives twice.

    Parameters
    ----------
    deliveries : one wave, in the order in which the files are to land
    ct_home : the platform's folder (`$CT_HOME`), a local path or any fsspec URL

    Returns
    -------
    list of Delivery : those written now; the others were already in landing, archive or quarantine

    Raises
    ------
    FileExistsError : see `write`
    """
    fs, root = url_to_fs(ct_home)
    fs.invalidate_cache()  # the platform moves files between waves; a remote listing from before would lie
    landing = f"{ct_home.rstrip('/')}/landing"
    return [each for each in deliveries if not _received(each, fs, root.rstrip("/")) and write(each, landing)]


def _received(delivery: Delivery, fs: Any, root: str) -> bool:
    """Tell whether the file waits in landing or was taken from there.

    The platform moves files out of landing and never back: looking in landing first means that a file moved meanwhile
    is found in the place looked at next. A reference table has no day, so any folder of its source may hold it.
    """
    if fs.exists(f"{root}/landing/{delivery.path}"):
        return True
    archived = (path.rsplit("/", 1)[-1] for path in fs.find(f"{root}/archive/{delivery.folder}"))
    if delivery.name in archived:
        return True
    # A rejected file is kept under its digest, as the fixed one that follows it may have the same name.
    rejected = (path.rsplit("/", 1)[-1] for path in fs.find(f"{root}/quarantine/{delivery.folder}"))
    return f"{sha256(delivery.payload).hexdigest()[:12]}-{delivery.name}" in rejected


def _opened(path: Path) -> BinaryIO:
    """Open a new file in a folder that the platform removes whenever it has emptied it, also just now."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            return path.open("wb")


def write_synced(temporary: Path, target: Path, payload: bytes) -> None:
    """Write, sync and rename on a local disk, then sync the folder, so a power cut cannot lose or halve the file.

    The platform has the like of its own; a feed knows nothing of it.
    """
    with _opened(temporary) as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
