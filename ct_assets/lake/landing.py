"""Where a source's files land: a local folder, or any place that fsspec reaches, such as a bucket.

A file leaves landing only after its bytes are kept elsewhere, so a crash at any point loses nothing.
"""

import os
import stat
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ct_assets.lake.contract import Source
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.paths import write_atomically

MAX_NAME = 200
"""Longest name of a landing file, in bytes, that is kept as it is."""
_ATTEMPTS = 100
_ASIDE = ".taken"
_LONGEST_STEM = 60


@dataclass(frozen=True)
class Landed:
    """One file as it was read.

    Attributes:
        partition: Arrival partition, or `WHOLE`.
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
        """Size and time of change of every complete file, by its path below the landing place, in order.

        A link to a file is a file, and a link to a day's folder is one; what is neither is among the `strays`.
        """
        if self._local:
            files = {n: s for n, s in self._entries().items() if s and stat.S_ISREG(s.st_mode)}
            return {name: {"size": s.st_size, "mtime": s.st_mtime} for name, s in files.items()}
        if not self._fs.exists(self._root):
            return {}
        found = self._fs.find(self._root, detail=True)
        names = {path[len(self._root) :].lstrip("/"): info for path, info in sorted(found.items())}
        return {name: info for name, info in names.items() if all(map(_is_whole, name.split("/")))}

    def strays(self) -> list[str]:
        """What lies there and can never be taken in: links that lead nowhere, pipes and the like."""
        entries = self._entries() if self._local else {}
        return [name for name, status in entries.items() if status is None or not stat.S_ISREG(status.st_mode)]

    def names(self, partition: str) -> list[str]:
        """Names of the complete files of one partition, in order: those of `files` that lie in its folder."""
        if self._local:
            folder = Path(self._folder(partition))
            for left in (folder / _ASIDE).glob("*"):
                _put_back(left, folder / left.name)
            return [name for name, status in _listing(folder) if status and stat.S_ISREG(status.st_mode)]
        try:
            found = self._fs.ls(self._folder(partition), detail=True)
        except FileNotFoundError:
            return []
        names = (info["name"].rpartition("/")[2] for info in found if info["type"] == "file")
        return sorted(filter(_is_whole, names))

    def read(self, partition: str, name: str) -> Landed | None:
        """Read one file; None when it is written to or taken away meanwhile, so that a later look has to read it."""
        path = self._path(partition, name)
        try:
            version = self._version(path)
            payload = self._fs.cat_file(path)
            same = version == self._version(path)
        except FileNotFoundError:
            return None
        return Landed(partition, name, version, payload) if same else None

    def move(self, landed: Landed, target: Path) -> None:
        """Keep what was read of a file as `target` on the local disk, and take the file out of landing.

        One that was written again since it was read stays, and is met at the next look.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        mark = _mark(target)
        # Whether it outlasts a power cut decides about a word in a report only.
        mark.write_text(landed.version)
        write_atomically(target, landed.payload)
        self._remove(self._path(landed.partition, landed.name), landed.version)
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
            if self._version(path) != version:
                return
            if not self._local:
                self._fs.rm_file(path)
                return
            found = Path(path)
            if found.is_symlink():
                found.unlink()
                return
            # Between that look and the removal another file may have come; to what lies aside nothing happens.
            aside = found.parent / _ASIDE / found.name
            aside.parent.mkdir(exist_ok=True)
            found.rename(aside)
            if self._version(str(aside)) == version:
                aside.unlink()
            else:
                _put_back(aside, found)
            with suppress(OSError):
                aside.parent.rmdir()

    def _version(self, path: str) -> str:
        """Names a state of a file."""
        if not self._local:
            return str(self._fs.ukey(path))
        found = Path(path).stat()
        return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"

    def _entries(self) -> dict[str, os.stat_result | None]:
        """What lies below the local landing place, in order; None for a link that leads nowhere."""
        found = {}
        for name, status in _listing(Path(self._root)):
            if status is None or not stat.S_ISDIR(status.st_mode):
                found[name] = status
                continue
            for within, folders, _ in os.walk(f"{self._root}/{name}"):
                folders[:] = filter(_is_whole, folders)
                below = os.path.relpath(within, self._root)
                inner = _listing(Path(within))
                found |= {f"{below}/{n}": s for n, s in inner if s is None or not stat.S_ISDIR(s.st_mode)}
        return dict(sorted(found.items()))

    def _folder(self, partition: str) -> str:
        return self._root if partition == WHOLE else f"{self._root}/{partition}"

    def _path(self, partition: str, name: str) -> str:
        return f"{self._folder(partition)}/{name}"


def _is_whole(part: str) -> bool:
    """Names that begin with a dot or underscore are being written; an empty one is a bucket's sign for a folder."""
    return bool(part) and not part.startswith((".", "_"))


def kept_folder(root: Path, source: str, partition: str) -> Path:
    """Where files of a partition are kept under `archive/` or `quarantine/`."""
    return root / source if partition == WHOLE else root / source / partition


def shortened(name: str) -> str:
    """A name that the file system takes with what is put around it there; a bucket takes longer ones."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= MAX_NAME else encoded[-60:].decode(errors="ignore")


def _listing(folder: Path) -> list[tuple[str, os.stat_result | None]]:
    """What lies in a local folder and is not being written, in order; None for a link that leads nowhere."""
    try:
        paths = sorted(path for path in folder.iterdir() if _is_whole(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found: list[tuple[str, os.stat_result | None]] = []
    for path in paths:
        try:
            found.append((path.name, path.stat()))
        except OSError:
            if path.is_symlink():
                found.append((path.name, None))
    return found


def _put_back(aside: Path, path: Path) -> None:
    """Put a file into landing again; beside another one that has come meanwhile."""
    beside = path.with_name(f"{path.stem[:_LONGEST_STEM]}-{uuid.uuid4().hex[:12]}{path.suffix}")
    aside.rename(beside if path.exists() else path)


def _mark(target: Path) -> Path:
    return target.with_name(f".{target.name}.moving")
