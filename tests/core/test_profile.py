import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.core.profile import NumericColumn, Profile, bin_edges, profile

EDGES = {"x": [-1.0, 0.0, 2.5]}

rows = st.lists(
    st.tuples(
        st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))),
        st.one_of(st.none(), st.sampled_from([f"c{i}" for i in range(12)])),
    ),
    max_size=40,
)


def frame(values):
    return pd.DataFrame(
        {
            "x": np.array([x for x, _ in values], dtype=float),
            "c": pd.Series([c for _, c in values], dtype=object),
        }
    )


def counts(p):
    return {
        name: {k: v for k, v in vars(c).items() if k not in ("mean", "m2")} | {"rows": p.rows}
        for name, c in p.columns.items()
    }


@settings(max_examples=150, deadline=None)
@given(rows, rows)
def test_merging_equals_profiling_both_together(a, b):
    for cap in (4, 100):  # 4: more categories than are kept
        merged = profile(frame(a), EDGES, cap).merge(profile(frame(b), EDGES, cap))
        whole = profile(frame(a + b), EDGES, cap)
        assert counts(merged) == counts(whole)
        scale = 1 + max((abs(x) for x, _ in a + b if x == x), default=0)
        assert merged.columns["x"].mean == pytest.approx(whole.columns["x"].mean, abs=1e-9 * scale)
        assert merged.columns["x"].m2 == pytest.approx(whole.columns["x"].m2, rel=1e-9, abs=1e-8 * scale**2)


@settings(max_examples=60, deadline=None)
@given(rows, rows, rows)
def test_merging_is_associative_and_commutative_on_counts(a, b, c):
    p, q, r = (profile(frame(part), EDGES, cap=4) for part in (a, b, c))
    assert counts(p.merge(q).merge(r)) == counts(p.merge(q.merge(r)))
    assert counts(p.merge(q)) == counts(q.merge(p))


@settings(max_examples=60, deadline=None)
@given(rows)
def test_json_round_trips_and_is_stable(a):
    found = profile(frame(a), EDGES)
    assert Profile.from_json(found.to_json()) == found
    assert Profile.from_json(found.to_json()).to_json() == found.to_json()


def test_the_statistics_of_a_hand_made_column():
    found = profile(pd.DataFrame({"x": [1.0, 2.0, 3.0, np.nan, np.inf]}), {"x": [1.0, 3.0]}).columns["x"]
    assert found == NumericColumn(3, 2, 1.0, 3.0, 2.0, 2.0, (1.0, 3.0), (0, 2, 1))
    assert found.std == 1.0


def test_the_counts_equal_a_histogram_of_numpy():
    x = np.random.default_rng(1).normal(size=5000)
    edges = bin_edges(pd.DataFrame({"x": x}))["x"]
    found = profile(pd.DataFrame({"x": x}), {"x": edges}).columns["x"]
    assert found.counts == tuple(np.histogram(x, [-np.inf, *edges, np.inf])[0])
    assert len(found.counts) == 20
    assert max(found.counts) - min(found.counts) <= 1  # quantile bins hold equal shares


def test_a_constant_column_shows_moves_to_either_side():
    edges = bin_edges(pd.DataFrame({"x": [5.0] * 10}))
    found = profile(pd.DataFrame({"x": [4.0, 5.0, 5.0, 6.0]}), edges).columns["x"]
    assert found.counts == (1, 2, 1)


def test_an_atom_has_a_bin_of_its_own():
    rain = pd.DataFrame({"x": [0.0] * 80 + list(np.linspace(0.1, 2, 20))})
    found = profile(rain, bin_edges(rain, bins=10)).columns["x"]
    assert 80 in found.counts


def test_a_small_set_of_values_gets_one_bin_each():
    months = pd.DataFrame({"x": np.repeat(np.arange(1, 13), 3)})
    assert profile(months, bin_edges(months)).columns["x"].counts == (0, *[3] * 12, 0)


def test_past_the_cap_no_row_is_lost():
    letters = pd.DataFrame({"c": [f"k{i}" for i in range(50) for _ in range(i + 1)]})
    found = profile(letters, cap=10).columns["c"]
    assert len(found.counts) == 10
    assert sum(found.counts.values()) + found.other == found.count == 50 * 51 // 2


def test_a_column_that_a_partition_lacks_is_missing_there():
    a, b = pd.DataFrame({"x": [1.0]}), pd.DataFrame({"y": ["a", "b"]})
    merged = profile(a).merge(profile(b))
    assert (merged.columns["x"].count, merged.columns["x"].missing) == (1, 2)
    assert (merged.columns["y"].count, merged.columns["y"].missing) == (2, 1)


def test_a_wholly_missing_column_takes_the_kind_of_the_other_partition():
    empty = profile(pd.DataFrame({"c": [np.nan, np.nan]}))
    full = profile(pd.DataFrame({"c": ["a"]}))
    for merged in (empty.merge(full), full.merge(empty)):
        assert merged.columns["c"].kind == "categorical"
        assert (merged.columns["c"].count, merged.columns["c"].missing) == (1, 2)


def test_booleans_and_categories_are_categorical_nullable_integers_numeric_timestamps_left_out():
    found = profile(
        pd.DataFrame(
            {
                "b": [True, False],
                "k": pd.Categorical(["u", "v"]),
                "i": pd.array([1, None], dtype="Int64"),
                "t": pd.to_datetime(["2013-01-01", "2013-01-02"], utc=True),
            }
        )
    )
    assert {name: column.kind for name, column in found.columns.items()} == {
        "b": "categorical",
        "k": "categorical",
        "i": "numeric",
    }
    assert found.columns["b"].counts == {"False": 1, "True": 1}
    assert found.columns["i"].missing == 1


def test_different_edges_are_refused_naming_the_column():
    x = pd.DataFrame({"x": [1.0]})
    with pytest.raises(ValueError, match="column 'x': bin edges differ"):
        profile(x, {"x": [0.0]}).merge(profile(x, {"x": [1.0]}))


def test_text_where_numbers_were_expected_is_refused():
    with pytest.raises(ValueError, match="column 'x' has bin edges but holds object"):
        profile(pd.DataFrame({"x": ["1"]}), {"x": [0.0]})


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"rows": 1, "cap": 5, "columns": {"x": {"kind": "odd"}}})])
def test_a_foreign_document_is_not_a_profile(text):
    with pytest.raises(ValueError, match="not a profile"):
        Profile.from_json(text)


def test_the_merge_of_nothing_is_empty():
    assert Profile.merged([]) == Profile(0, {})


@pytest.mark.parametrize(
    "values",
    [[1.797e308, 1.0, 2.0], [1.797e308, -1.797e308], [1.797e308] * 4, [np.inf, -np.inf, 1.0], [np.nan] * 3, [5.0] * 3],
)
def test_whatever_doubles_a_column_holds_its_profile_can_be_stored_and_merged(values):
    frame = pd.DataFrame({"x": values})
    edges = bin_edges(frame)
    found = profile(frame, edges)
    for each in (found, found.merge(found)):
        assert Profile.from_json(each.to_json()) == each
        column = each.columns["x"]
        finite = [value for value in values if np.isfinite(value)]
        assert column.count + column.missing == each.rows
        assert sum(column.counts) == (column.count if edges else 0)
        if finite:
            assert min(finite) <= column.mean <= max(finite)
            assert 0 <= column.m2 < np.inf
