"""Names of lines of champions: readable, safe, and one for each segment."""

import pytest
from dagster._core.definitions.partitions.utils.base import INVALID_PARTITION_SUBSTRINGS
from hypothesis import given
from hypothesis import strategies as st

from ct_assets.core.segments import Line

VALUES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def test_a_model_s_own_line_is_called_as_the_model() -> None:
    line = Line("repurchase")
    assert (line.name, line.folder, line.registered) == ("repurchase",) * 3


def test_the_line_of_a_segment_is_called_after_both() -> None:
    line = Line("repurchase", "United Kingdom")
    assert line.name == "repurchase/United Kingdom"
    assert line.folder == "repurchase/segments/United Kingdom"
    assert line.registered == "repurchase--United Kingdom"


@given(VALUES)
def test_a_partition_stands_for_its_segment_whatever_that_is_called(value: str) -> None:
    line = Line("m", value)
    assert Line.of("m", line.partition) == line
    assert line.partition != Line("m").partition
    assert not set(line.partition) & set("/:\\\"'\n\0?*.")


def test_the_pooled_line_has_a_partition_too() -> None:
    assert Line.of("m", Line("m").partition) == Line("m")
    assert Line("m", "(pooled)").partition != Line("m").partition


@pytest.mark.parametrize("value", ["..", "a...b", "a/b", "a\tb", "é"])
def test_no_value_breaks_a_folder_or_a_partition(value: str) -> None:
    partition = Line("m", value).partition
    assert not any(broken in partition for broken in [*INVALID_PARTITION_SUBSTRINGS, "/", ".."])
