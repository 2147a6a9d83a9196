import numpy as np
import pandas as pd
import pytest
from worlds_of_core import spec_with

from ct_assets.core.inputs import MISSING_CATEGORY, model_inputs

SPEC = spec_with({"carrier": "categorical", "hour": "numeric", "stops": "numeric"})


def test_columns_come_in_the_model_s_own_order_and_no_others() -> None:
    frame = pd.DataFrame({"stops": [1], "noise": ["x"], "hour": [2], "carrier": ["AA"]})
    assert list(model_inputs(SPEC, frame).columns) == ["carrier", "hour", "stops"]


def test_a_missing_column_is_named_with_where_it_should_come_from() -> None:
    with pytest.raises(KeyError, match="model m reads hour, stops.*feature service m_v1"):
        model_inputs(SPEC, pd.DataFrame({"carrier": ["AA"]}))


NUMBERS = {
    "floats": ([1.5, None], [1.5, np.nan]),
    "integers": ([1, 2], [1.0, 2.0]),
    "nullable integers": (pd.array([1, None], dtype="Int64"), [1.0, np.nan]),
    "booleans": ([True, False], [1.0, 0.0]),
    "text": (["1.5", "many"], [1.5, np.nan]),
    "objects": ([1, None], [1.0, np.nan]),
    "nothing": ([None, None], [np.nan, np.nan]),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_are_floats_with_nan_for_what_is_missing(kind: str) -> None:
    values, expected = NUMBERS[kind]
    found = model_inputs(SPEC, pd.DataFrame({"carrier": "AA", "hour": values, "stops": 0}))["hour"]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


CATEGORIES = {
    "text": (["AA", None], ["AA", MISSING_CATEGORY]),
    "integers": ([1, 2], ["1", "2"]),
    "whole floats beside a missing value": ([2.0, np.nan], ["2", MISSING_CATEGORY]),
    "whole floats beside a fraction": ([2.0, 2.5, np.nan], ["2", "2.5", MISSING_CATEGORY]),
    "floats among objects": (
        np.array([2.0, 2.5, 2, "2", None], dtype=object),
        ["2", "2.5", "2", "2", MISSING_CATEGORY],
    ),
    "nullable integers": (pd.array([2, None], dtype="Int64"), ["2", MISSING_CATEGORY]),
    "categories": (pd.Categorical(["AA", None]), ["AA", MISSING_CATEGORY]),
    "pandas text": (pd.array(["AA", None], dtype="string"), ["AA", MISSING_CATEGORY]),
    "booleans": ([True, False], ["True", "False"]),
    "an empty text is no missing value": (["", "AA"], ["", "AA"]),
}


@pytest.mark.parametrize("kind", CATEGORIES)
def test_categories_are_text_with_a_word_for_what_is_missing(kind: str) -> None:
    values, expected = CATEGORIES[kind]
    found = model_inputs(SPEC, pd.DataFrame({"carrier": values, "hour": 0.0, "stops": 0.0}))["carrier"]
    assert found.tolist() == expected


def test_one_row_from_a_request_gives_what_the_same_row_of_a_table_gives() -> None:
    table = pd.DataFrame({"carrier": ["AA", None], "hour": [1, 2], "stops": [0, None]})
    whole = model_inputs(SPEC, table)
    for i in range(2):
        row = {name: [table[name].tolist()[i]] for name in table}
        pd.testing.assert_frame_equal(model_inputs(SPEC, pd.DataFrame(row)), whole.iloc[[i]].reset_index(drop=True))


def test_what_a_category_is_called_does_not_depend_on_its_batch() -> None:
    values = [2.0, 2.5, 1e15, -3.0, None, 0.1]
    whole = model_inputs(SPEC, pd.DataFrame({"carrier": values, "hour": 0.0, "stops": 0.0}))["carrier"]
    for value, text in zip(values, whole, strict=True):
        for kind in (float, object):
            row = pd.DataFrame({"carrier": pd.Series([value], dtype=kind), "hour": 0.0, "stops": 0.0})
            assert model_inputs(SPEC, row)["carrier"].tolist() == [text]


def test_no_rows_give_no_rows_of_the_same_types() -> None:
    found = model_inputs(SPEC, pd.DataFrame({"carrier": [], "hour": [], "stops": []}))
    assert found.dtypes.astype(str).tolist() == ["object", "float64", "float64"]
    assert len(found) == 0


def test_the_index_of_the_rows_is_of_no_account() -> None:
    frame = pd.DataFrame({"carrier": ["AA", "UA"], "hour": [1.0, 2.0], "stops": [0, 1]})
    pd.testing.assert_frame_equal(model_inputs(SPEC, frame.set_index(pd.Index([9, 9]))), model_inputs(SPEC, frame))
