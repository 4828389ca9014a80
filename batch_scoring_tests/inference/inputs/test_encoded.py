"""Groups of rows on the grid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.inference.inputs.encoded import GRID, Group, padded, single, taken


@given(st.integers(0, 10_000))
def test_the_grid_is_a_multiple_of_64_that_holds_all_rows(rows: int) -> None:
    assert padded(rows) >= max(rows, 1)
    assert padded(rows) % GRID == 0
    assert padded(rows) - rows <= GRID


def test_a_group_is_padded_with_its_last_row() -> None:
    values = np.zeros((GRID, 2), np.float32)
    values[:3] = [[1, 2], [3, 4], [5, 6]]
    (group,) = single({"numeric": values}, 3)
    assert (group.rows, group.padded) == (3, GRID)
    assert (group.tensors["numeric"][3:] == [5, 6]).all()


def test_rows_that_are_taken_are_copies_padded_anew() -> None:
    values = np.arange(2 * GRID, dtype=np.int64).reshape(-1, 1)
    part = taken({"tokens": values}, 2, slice(5, 7))
    assert part["tokens"][:3, 0].tolist() == [5, 6, 6]
    part["tokens"][:] = -1
    assert values[5, 0] == 5


@pytest.mark.parametrize("positions", [None, np.array([4, 2, 9])])
def test_places_are_those_in_the_record_batch(positions: np.ndarray | None) -> None:
    group = Group({"numeric": np.zeros((GRID, 1), np.float32)}, 3, positions)
    expected = [1, 2] if positions is None else [2, 9]
    assert np.arange(10)[group.places(1, 3)].tolist() == expected
