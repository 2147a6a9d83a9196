import enum
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from ct_assets.core.canonical import canonical_json, digest, plain


def test_numpy_pandas_and_missing_values_become_plain_json():
    value = {
        "b": np.float64(1.5),
        "a": [np.int64(2), np.bool_(True), float("nan"), float("inf"), pd.NaT, pd.NA, None],
        "t": pd.Timestamp("2013-01-01 02:00", tz="Europe/Berlin"),
        "n": np.datetime64("2013-01-01T00:00:00.000000001"),
        "d": date(2013, 1, 2),
        "s": {"y", "x"},
        "w": timedelta(minutes=2),
        "v": np.array([1.0, np.nan]),
    }
    assert plain(value) == {
        "b": 1.5,
        "a": [2, True, None, None, None, None, None],
        "t": "2013-01-01T01:00:00+00:00",
        "n": "2013-01-01T00:00:00.000000001+00:00",
        "d": "2013-01-02",
        "s": ["x", "y"],
        "w": 120.0,
        "v": [1.0, None],
    }


def test_the_text_does_not_depend_on_the_order_of_keys():
    assert canonical_json({"b": 1, "a": 2}) == '{"a":2,"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})


def test_the_digest_is_sha256_of_the_text():
    assert (
        digest("abc") == "6cc43f858fbb763301637b5af970e2a46b46f461f27e5a0f41e009c59b827b25"
    )  # printf '"abc"' | sha256sum


def test_an_enum_is_its_value():
    colour = enum.Enum("colour", {"RED": "red"})
    assert plain([colour.RED]) == ["red"]


def test_a_value_without_json_form_is_named():
    with pytest.raises(TypeError, match=r"value\.a\[1\] is a object"):
        plain({"a": [1, object()]})
