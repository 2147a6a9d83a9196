"""A day's reports about a model, kept next to the lake."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.lake.lake import Lake
from ct_assets.lake.paths import write_atomically


def save_report(lake: Lake, spec: ModelSpec, kind: str, partition: str, report: Mapping[str, Any]) -> None:
    """Keep a day's report next to the lake; that of a model with segments holds one for each line, by partition."""
    write_atomically(_report_path(lake, spec, kind, partition), json.dumps(report, indent=1).encode())


def read_report(lake: Lake, spec: ModelSpec, kind: str, partition: str, line: Line) -> dict[str, Any]:
    """Read a line's part of a day's report; empty when there is none."""
    found = read_reports(lake, spec, kind, partition)
    return found if spec.segment_by is None else found.get(line.partition, {})


def read_reports(lake: Lake, spec: ModelSpec, kind: str, partition: str) -> dict[str, Any]:
    """Read a day's whole report; empty when there is none."""
    path = _report_path(lake, spec, kind, partition)
    return json.loads(path.read_text()) if path.exists() else {}


def _report_path(lake: Lake, spec: ModelSpec, kind: str, partition: str) -> Path:
    return lake.home / "monitoring" / spec.name / kind / f"{partition}.json"
