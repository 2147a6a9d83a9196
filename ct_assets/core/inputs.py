"""The table a model sees: its own columns, in its own order, with its own types."""

import numpy as np
import numpy.typing as npt
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
        columns[name] = _numbers(values) if kind == "numeric" else _categories(values)
    return pd.DataFrame(columns)


def _numbers(values: pd.Series) -> npt.NDArray[np.float64]:
    if values.dtype == np.float64:
        return values.to_numpy()
    return pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def _categories(values: pd.Series) -> npt.NDArray[np.object_]:
    # Each value by itself: what a category is called may not depend on the others of its batch, beside which whole
    # numbers may have become floats.
    told = str if pd.api.types.infer_dtype(values, skipna=True) == "string" else _category
    texts = np.array([told(value) for value in values], dtype=object)
    texts[values.isna().to_numpy()] = MISSING_CATEGORY
    return texts


def _category(value: object) -> str:
    """2 and 2.0 are the same category."""
    return str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else str(value)
