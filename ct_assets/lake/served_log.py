"""Log of what was served: a sample of predictions with the features behind them, a file for each model and UTC day.

It is bounded: a file takes no more rows beyond `MOST_BYTES`, and those older than `KEPT` are deleted.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

FOLDER = "served"
KEPT = timedelta(days=8)
MOST_BYTES = 64_000_000


@dataclass(frozen=True)
class ServedRow:
    """What one prediction was made of.

    Attributes:
        at: When it was made, and what freshness was judged against; ISO 8601 in UTC.
        version: Of the model.
        definitions: Digest of the definitions of the features.
        given: Entity keys and request values, as `plain` has them.
        features: The other columns of the model, likewise.
    """

    at: str
    version: str
    definitions: str
    given: Mapping[str, Any]
    features: Mapping[str, Any]


def plain(value: Any) -> Any:
    """A value as JSON keeps it: exact, and the same whether it came from a server, pandas or Arrow; NaN is None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if pd.isna(value):
        return None
    if isinstance(value, datetime):
        utc = value if value.tzinfo else value.replace(tzinfo=UTC)
        return utc.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")
    return value.hex() if isinstance(value, bytes) else value


class ServedLog:
    """The log of one model.

    Args:
        home: `$CT_HOME`.
        model: Its name.
    """

    def __init__(self, home: Path, model: str) -> None:
        self.folder = home / FOLDER / model

    def append(self, rows: Sequence[ServedRow]) -> None:
        """Add rows, each to the file of its day; several processes may do so at once.

        Raises:
            OSError: The disk did not take them.
        """
        by_day: dict[str, list[str]] = {}
        for row in rows:
            by_day.setdefault(row.at[:10], []).append(json.dumps(asdict(row)) + "\n")
        for day, lines in by_day.items():
            path = self.folder / f"{day}.jsonl"
            if not path.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                self.prune(date.fromisoformat(day))
            elif path.stat().st_size > MOST_BYTES:
                continue
            # One write: a file that is opened to append takes it whole, beside those of other processes.
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(file, "".join(lines).encode())
            finally:
                os.close(file)

    def prune(self, today: date) -> None:
        """Delete the files of days that are older than `KEPT`."""
        oldest = (today - KEPT).isoformat()
        for path in self.folder.glob("*.jsonl"):
            if path.stem < oldest:
                path.unlink(missing_ok=True)

    def read(self, start: datetime, end: datetime) -> list[ServedRow]:
        """The rows served from `start` to `end` (excluded), in the order of their writing; a torn line is left out."""
        rows = []
        first, last = plain(start), plain(end)
        day = start.astimezone(UTC).date()
        while day <= end.astimezone(UTC).date():
            path = self.folder / f"{day.isoformat()}.jsonl"
            if path.exists():
                rows += [row for line in path.read_bytes().splitlines() if (row := _parsed(line)) is not None]
            day += timedelta(days=1)
        return [row for row in rows if first <= row.at < last]


def _parsed(line: bytes) -> ServedRow | None:
    try:
        return ServedRow(**json.loads(line))
    except (TypeError, ValueError):
        return None
