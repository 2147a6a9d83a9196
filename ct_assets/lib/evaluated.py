"""What a model was evaluated on, kept beside it: its predictions on the examples kept for the gate, and the baseline.

What it achieves later is compared with these rows: with all of them, or those of the segments that it still serves.
"""

import io
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.core.baselines import Baseline, baseline_from, fit_baseline
from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import LABEL, task_of
from ct_assets.lake.dataset import to_parquet
from ct_assets.lake.releases import Release

_ROWS = "evaluated.parquet"
_BASELINE = "baseline.json"


def evaluation_files(
    spec: ModelSpec, examples: pd.DataFrame, holdout: pd.DataFrame, predictions: npt.NDArray[np.float64]
) -> dict[str, bytes]:
    """The files to keep beside a model, by name.

    Args:
        spec: The model.
        examples: Those it was trained on, with `label`; the baseline learns from the same.
        holdout: Those kept for the gate, with `event_timestamp` and `label`.
        predictions: The model's, of the second.
    """
    task = task_of(spec)
    segment = [] if spec.segment_by is None else [spec.segment_by]
    rows = holdout[["event_timestamp", *segment, LABEL]].reset_index(drop=True)
    table = pa.Table.from_pandas(pd.concat([rows, task.frame(predictions)], axis=1), preserve_index=False)
    baseline = fit_baseline(task, spec.baseline, spec.policy.performance_metric, examples)
    return {_ROWS: to_parquet(table), _BASELINE: json.dumps(baseline.to_dict()).encode()}


def evaluated_rows(release: Release) -> pd.DataFrame | None:
    """`event_timestamp`, `label`, the prediction and the segment, a row an example; None for an older release."""
    path = _beside(release, _ROWS)
    return pq.read_table(io.BytesIO(path.read_bytes())).to_pandas() if path.exists() else None


def baseline_of(release: Release) -> Baseline | None:
    """The naive model of the same training; None for an older release."""
    path = _beside(release, _BASELINE)
    return baseline_from(json.loads(path.read_text())) if path.exists() else None


def _beside(release: Release, name: str) -> Path:
    return Path(release.artifact).parent / name
