"""Files that were made here and have yet to land: noted together with how far their making has come.

What makes files (a look at a table) first keeps them aside, then notes in one write its new position and their names,
and only then lands them. A crash before the note leaves files that nobody knows, which are removed; a crash after it
leaves files that the next process lands. So no row is lost and none is made twice.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ct_assets.lake.landing import Landing
from ct_assets.lake.paths import write_atomically


@dataclass(frozen=True)
class Outgoing:
    """One file to land.

    Attributes:
        partition: Arrival partition, or `WHOLE`.
        name: Its name in landing; of no other file of the source.
        payload: Its bytes.
    """

    partition: str
    name: str
    payload: bytes


class Outbox:
    """The files of one source that have yet to land, and the position that they bring it to.

    Args:
        folder: Where both are kept; used by one process at a time.
        landing: Where the files land.
    """

    def __init__(self, folder: Path, landing: Landing) -> None:
        self.folder = folder
        self.landing = landing

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the outbox; false when another process does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def position(self) -> dict[str, Any]:
        """What was noted last; empty at first."""
        return self._note().get("position", {})

    def commit(self, position: Mapping[str, Any], files: list[Outgoing]) -> None:
        """Note a new position with the files that belong to it, and land them.

        Raises:
            OSError: A disk or place did not take something; what was noted lands at the next call of `land`.
        """
        self.land()
        for file in files:
            write_atomically(self.folder / file.name, file.payload)
        note = {"position": dict(position), "files": {file.name: file.partition for file in files}}
        write_atomically(self._path, json.dumps(note).encode())
        self.land()

    def land(self) -> None:
        """Land what was noted and is still here, and remove what a crash left unnoted."""
        noted: dict[str, str] = self._note().get("files", {})
        for path in sorted(p for p in self.folder.iterdir() if p != self._path and p.name != ".lock"):
            if path.name in noted:
                self.landing.write(noted[path.name], path.name, path.read_bytes())
            path.unlink()

    @property
    def _path(self) -> Path:
        return self.folder / "position.json"

    def _note(self) -> dict[str, Any]:
        try:
            return json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
