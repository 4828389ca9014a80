"""Lists of numbers as a matrix, each row by itself."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.inference.inputs.vectors import Vectors

NUMBERS = st.none() | st.floats(-(2.0**100), 2.0**100, width=32)
ROWS = st.lists(st.none() | st.lists(NUMBERS, max_size=4), max_size=12)


def encoded(vectors: Vectors, batch: pa.RecordBatch) -> tuple[np.ndarray, dict[int, str]]:
    found = np.zeros((batch.num_rows, vectors.width), np.float32)
    failed = vectors.encode(batch, found)
    return found, {row.position: f"{row.rule}: {row.detail}" for row in failed}


@settings(deadline=None)
@given(rows=ROWS, kind=st.sampled_from([pa.list_(pa.float32()), pa.list_(pa.float64()), pa.large_list(pa.float32())]))
def test_every_row_is_its_list_or_nan(rows: list[list[float | None] | None], kind: pa.DataType) -> None:
    found, failed = encoded(Vectors({"e": 3}), pa.RecordBatch.from_pydict({"e": pa.array(rows, kind)}))
    for row, cells in enumerate(rows):
        if cells is None:
            assert np.isnan(found[row]).all() and row not in failed
        elif len(cells) != 3:
            assert failed[row] == f"input_has_size: e has {len(cells)} numbers, expected 3"
        else:
            expected = np.array([np.nan if cell is None else cell for cell in cells], np.float32)
            np.testing.assert_array_equal(found[row], expected)
            assert row not in failed


def test_columns_stand_one_after_the_other_and_slices_and_fixed_sizes_are_read() -> None:
    a = pa.array([[1, 2], [3, 4], None], pa.list_(pa.int64(), 2))
    batch = pa.RecordBatch.from_pydict({"a": a, "b": pa.array([[5.0], [6.0], [7.0]])})
    found, failed = encoded(Vectors({"b": 1, "a": 2}), batch.slice(1, 2))
    np.testing.assert_array_equal(found, np.array([[6, 3, 4], [7, np.nan, np.nan]], np.float32))
    assert not failed


@pytest.mark.parametrize("number", [1e39, float("inf"), float("-inf")])
def test_a_number_beyond_float32_names_its_row(number: float) -> None:
    batch = pa.RecordBatch.from_pydict({"e": [[1.0, 2.0], [1.0, number]]})
    _, failed = encoded(Vectors({"e": 2}), batch)
    assert failed == {1: "input_is_finite: e has a number beyond float32"}


@pytest.mark.parametrize("beside", [0, None])
def test_large_integers_are_rounded_once_whatever_is_missing_beside_them(beside: int | None) -> None:
    large = 2**60 + 2**36 + 1  # rounded to float64 first, it would be another float32
    batch = pa.RecordBatch.from_pydict({"a": pa.array([[large, 1], [1, beside]], pa.list_(pa.int64()))})
    found = np.zeros((64, 2), np.float32)
    assert not Vectors({"a": 2}).encode(batch, found)
    assert found[0].tolist() == [np.float32(np.int64(large)), 1.0] == [2.0**60 + 2.0**37, 1.0]
