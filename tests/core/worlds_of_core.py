"""A small model and its examples."""

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.spec import EstimatorSpec, EventSpec, LabelSpec, ModelSpec

INPUTS = {"carrier": "categorical", "hour": "numeric", "stops": "numeric"}


def logistic(**params: Any) -> Pipeline:
    """Carriers one-hot, numbers as they are."""
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["carrier"]), remainder="passthrough")
    return make_pipeline(columns, LogisticRegression(**params))


def spec_with(inputs: dict[str, str], **changes: Any) -> ModelSpec:
    content: dict[str, Any] = {
        "name": "m",
        "owner": "team:test",
        "description": "A model of the tests",
        "events": EventSpec(source="flights", sql="SELECT 1", id_column="id"),
        "label": LabelSpec(source="outcomes", sql="SELECT 1", delay=timedelta(days=1)),
        "entities": ("carrier",),
        "feature_service": "m_v1",
        "inputs": inputs,
        "estimator": EstimatorSpec(path="worlds_of_core.logistic", params={"C": 0.5}),
        "policy": RetrainPolicy(first_training_rows=10, cooldown_days=1),
    }
    return ModelSpec(**(content | changes))


def examples(rows: int = 400, seed: int = 3) -> pd.DataFrame:
    """Labels that depend on the hour."""
    random = np.random.default_rng(seed)
    hour = random.integers(0, 24, rows).astype(float)
    frame = pd.DataFrame({"carrier": random.choice(["AA", "UA", "DL"], rows), "hour": hour, "stops": 0.0})
    return frame.assign(label=(random.random(rows) < hour / 24).astype("int8"))
