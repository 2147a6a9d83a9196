"""Where a source's files land: a local folder, or any place that fsspec reaches, such as a bucket.

A file leaves landing only after its bytes are kept elsewhere, so a crash at any point loses nothing.
"""

import errno
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ct_assets.lake.contract import Source
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.paths import write_atomically

_ATTEMPTS = 100


@dataclass(frozen=True)
class Landed:
    """One file as it was read.

    Attributes:
        partition: Arrival day, or `WHOLE`.
        name: Its name.
        version: Names this state of the file; another one after it was written again.
        payload: Its bytes.
    """

    partition: str
    name: str
    version: str
    payload: bytes


class Landing:
    """The landing place of one source: `<place>/<day>/<file>`, or `<place>/<file>` for a reference table.

    Args:
        home: `$CT_HOME`.
        source: Says where, when it is not the default.
    """

    def __init__(self, home: Path, source: Source) -> None:
        # A listing that was kept would hide what landed meanwhile.
        self._fs, root = url_to_fs(source.landing or f"{home}/landing/{source.name}", use_listings_cache=False)
        self._root = root.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def files(self) -> dict[str, dict[str, Any]]:
        """What fsspec tells of every file, by its path below the landing place, in order; no temporary ones."""
        if not self._fs.exists(self._root):
            return {}
        found = self._fs.find(self._root, detail=True)
        names = {path[len(self._root) :].lstrip("/"): info for path, info in sorted(found.items())}
        return {name: info for name, info in names.items() if all(map(_is_whole, name.split("/")))}

    def names(self, partition: str) -> list[str]:
        """Names of the complete files of one partition, in order."""
        try:
            found = self._fs.ls(self._folder(partition), detail=True)
        except FileNotFoundError:
            return []
        names = (info["name"].rpartition("/")[2] for info in found if info["type"] == "file")
        return sorted(filter(_is_whole, names))

    def read(self, partition: str, name: str) -> Landed:
        """Read one file."""
        path = self._path(partition, name)
        version = self._fs.ukey(path)
        return Landed(partition, name, version, self._fs.cat_file(path))

    def move(self, landed: Landed, target: Path) -> None:
        """Keep a file as `target` on the local disk and take it out of landing.

        A file of a bucket that was written again since it was read stays, and is met at the next look.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        path = self._path(landed.partition, landed.name)
        if self._local and _renamed(path, target):
            return
        mark = _mark(target)
        write_atomically(mark, landed.version.encode())
        write_atomically(target, landed.payload)
        self._remove(path, landed.version)
        mark.unlink()

    @staticmethod
    def was_moving(landed: Landed, target: Path) -> bool:
        """Whether this very file was being moved to `target` when the process died, so it is no second delivery."""
        try:
            return _mark(target).read_text() == landed.version
        except FileNotFoundError:
            return False

    def write(self, partition: str, name: str, payload: bytes) -> None:
        """Put a file into landing; a reader sees the whole of it or nothing.

        Raises:
            OSError: The place did not take it.
        """
        path = self._path(partition, name)
        if not self._local:
            self._fs.makedirs(self._folder(partition), exist_ok=True)
            self._fs.pipe_file(path, payload)
            return
        for attempt in range(_ATTEMPTS):
            try:
                write_atomically(Path(path), payload)
                return
            except FileNotFoundError:
                # The folder was removed, since it was empty, between its making and ours.
                if attempt == _ATTEMPTS - 1:
                    raise

    def tidy(self, partition: str) -> None:
        """Remove an emptied folder of a day, which would make every look longer; one that is not empty stays."""
        if self._local:
            with suppress(OSError):
                Path(self._folder(partition)).rmdir()

    def _remove(self, path: str, version: str) -> None:
        with suppress(FileNotFoundError):
            if self._fs.ukey(path) == version:
                self._fs.rm_file(path)

    def _folder(self, partition: str) -> str:
        return self._root if partition == WHOLE else f"{self._root}/{partition}"

    def _path(self, partition: str, name: str) -> str:
        return f"{self._folder(partition)}/{name}"


def _is_whole(part: str) -> bool:
    """Names that begin with a dot or underscore are being written; an empty one is a bucket's sign for a folder."""
    return bool(part) and not part.startswith((".", "_"))


def _mark(target: Path) -> Path:
    return target.with_name(f".{target.name}.moving")


def _renamed(path: str, target: Path) -> bool:
    try:
        Path(path).replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True
