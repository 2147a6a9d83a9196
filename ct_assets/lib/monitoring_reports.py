"""The reports behind each decision about a model, kept next to the lake."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.lake.examples import INSTANT, day_of
from ct_assets.lake.lake import Lake
from ct_assets.lake.paths import write_atomically


def save_report(lake: Lake, spec: ModelSpec, kind: str, as_of: pd.Timestamp, report: Mapping[str, Any]) -> None:
    """Keep the report of a decision time next to the lake; with segments it holds one for each line, by partition."""
    write_atomically(_report_path(lake, spec, kind, as_of), json.dumps(report, indent=1).encode())


def read_report(lake: Lake, spec: ModelSpec, kind: str, as_of: pd.Timestamp, line: Line) -> dict[str, Any]:
    """Read a line's part of the report of a decision time; empty when there is none."""
    found = read_reports(lake, spec, kind, as_of)
    return found if spec.segment_by is None else found.get(line.partition, {})


def read_reports(lake: Lake, spec: ModelSpec, kind: str, as_of: pd.Timestamp) -> dict[str, Any]:
    """Read the whole report of a decision time; empty when there is none. Do not change what it gives."""
    path = _report_path(lake, spec, kind, as_of)
    try:
        info = path.stat()
    except FileNotFoundError:
        return {}
    return _read(path, info.st_mtime_ns, info.st_ino)


@lru_cache(maxsize=512)
def _read(path: Path, _changed: int, _file: int) -> dict[str, Any]:
    """A day looks at those of the 90 days before it. One that was replaced is another file."""
    return json.loads(path.read_text())


def _report_path(lake: Lake, spec: ModelSpec, kind: str, as_of: pd.Timestamp) -> Path:
    """A report as of a midnight has the name of the day that it ends."""
    moment = as_of.tz_convert("UTC")
    name = day_of(moment - INSTANT) if moment == moment.normalize() else moment.strftime("%Y-%m-%dT%H%M%SZ")
    return lake.home / "monitoring" / spec.name / kind / f"{name}.json"
