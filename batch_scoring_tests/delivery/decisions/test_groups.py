"""Groups of equal values, whatever their type, over batches with dictionaries of their own."""

from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from batch_scoring.delivery.decisions import groups

COLUMNS = {
    "text": [pa.array(["a", None, "b"]), pa.array(["b", "c", None])],
    "dictionaries": [pa.array(["a", None, "b"]).dictionary_encode(), pa.array(["b", "c", None]).dictionary_encode()],
    "large text": [pa.array(["a", None], pa.large_string())],
    "whole numbers": [pa.array([3, None]), pa.array([-1, 3])],
    "decimal numbers": [pa.array([0.5, None]), pa.array([0.5, 2.0])],
    "both zeros": [pa.array([0.0, -0.0, None], pa.float32()), pa.array([-0.0], pa.float32())],
    "truth values": [pa.array([True, None]), pa.array([False])],
    "dates": [pa.array([date(2026, 1, 2), None])],
    "nothing": [pa.nulls(2, pa.string()), pa.array([], pa.string())],
    "no batch": [],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_equal_values_have_equal_numbers(name: str) -> None:
    column = pa.chunked_array(COLUMNS[name], COLUMNS[name][0].type if COLUMNS[name] else pa.string())
    values = column.to_pylist()

    codes, names = groups.encoded(column)

    assert len(codes) == len(values)
    assert len(set(zip(codes.tolist(), values, strict=True))) == len(set(values)) == len(set(codes.tolist()))
    assert [code == len(names) - 1 for code in codes] == [value is None for value in values]


def test_counts_name_the_groups_the_largest_first() -> None:
    codes, names = groups.encoded(pa.chunked_array([["b", "a", None, "c", "b", None, "d", None]]))

    found = groups.counts(np.arange(8), codes, names)

    assert list(found.items()) == [("(no value)", 3), ("b", 2), ("a", 1), ("c", 1), ("d", 1)]
    assert groups.counts(np.array([0, 3]), codes, names) == {"b": 1, "c": 1}


def test_a_value_that_is_called_as_the_group_without_one_hides_no_larger_count() -> None:
    codes, names = groups.encoded(pa.chunked_array([[groups.NO_VALUE, groups.NO_VALUE, None]]))
    assert groups.counts(np.arange(3), codes, names) == {groups.NO_VALUE: 2}


def test_counts_name_no_one_of_many_groups() -> None:
    few = groups.MOST_NAMED
    codes, names = groups.encoded(pa.chunked_array([[*range(few + 1), 3, 3]]))

    assert groups.counts(np.arange(few + 3), codes, names) == {f"(largest of {few + 1} groups)": 3}
    assert len(groups.counts(np.arange(few), codes, names)) == few
