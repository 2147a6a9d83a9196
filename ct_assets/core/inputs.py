"""The table a model sees: its own columns, in its own order, with its own types."""

import pandas as pd

from ct_assets.core.spec import ModelSpec

MISSING_CATEGORY = "(missing)"


def model_inputs(spec: ModelSpec, frame: pd.DataFrame) -> pd.DataFrame:
    """Select and convert what a model reads; training, scoring and serving all go through here.

    Args:
        spec: The model.
        frame: Rows with at least the model's columns, in any order.

    Returns:
        `len(frame)` rows with the columns of `spec.inputs`: numbers as float64 (missing: NaN), categories as text
        (missing: `MISSING_CATEGORY`).

    Raises:
        KeyError: A column is missing.
    """
    missing = [column for column in spec.inputs if column not in frame.columns]
    if missing:
        raise KeyError(
            f"model {spec.name} reads {', '.join(missing)}, which the rows do not have; expected every column of its "
            f"`inputs` from feature service {spec.feature_service}, the entities or the request"
        )
    columns = {}
    for name, kind in spec.inputs.items():
        values = frame[name]
        if kind == "numeric":
            columns[name] = pd.to_numeric(values, errors="coerce").astype("float64").to_numpy()
        else:
            columns[name] = values.astype(object).where(values.notna(), MISSING_CATEGORY).astype(str).to_numpy(object)
    return pd.DataFrame(columns)
