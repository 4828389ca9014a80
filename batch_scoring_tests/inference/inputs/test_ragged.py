"""A row's width depends on its own length alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.inference.inputs.ragged import Ragged, by_width, widths


@pytest.mark.parametrize(
    ("longest", "expected"),
    [
        (1, [1]),
        (8, [8]),
        (9, [8, 9]),
        (64, [8, 16, 24, 32, 40, 48, 56, 64]),
        (100, [8, 16, 24, 32, 40, 48, 56, 64, 96, 100]),
        (256, [8, 16, 24, 32, 40, 48, 56, 64, 96, 128, 192, 256]),
        (300, [8, 16, 24, 32, 40, 48, 56, 64, 96, 128, 192, 256, 300]),
        (1000, [8, 16, 24, 32, 40, 48, 56, 64, 96, 128, 192, 256, 384, 512, 768, 1000]),
    ],
)
def test_widths_are_fine_where_texts_are_short_and_two_a_doubling_beyond(longest: int, expected: list[int]) -> None:
    assert widths(longest).tolist() == expected


@given(lengths=st.lists(st.integers(1, 300), max_size=60))
def test_every_row_is_in_the_narrowest_width_that_holds_it(lengths: list[int]) -> None:
    steps = widths(300).tolist()
    found = {int(row): width for width, rows in by_width(np.array(lengths, np.int64), widths(300)) for row in rows}
    assert found == {row: next(step for step in steps if step >= length) for row, length in enumerate(lengths)}


@given(rows=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=20), min_size=1, max_size=20), data=st.data())
def test_a_matrix_holds_the_chosen_rows_and_padding(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=10))
    ragged = Ragged(
        np.array([value for row in rows for value in row], np.int64), np.cumsum([0, *map(len, rows)]).astype(np.int64)
    )
    found = ragged.matrix(np.array(chosen), len(chosen) + 2, 20, -1)
    expected = [rows[row] + [-1] * (20 - len(rows[row])) for row in chosen]
    assert found[: len(chosen)].tolist() == expected
    assert (found[len(chosen) :] == -1).all()


def test_exact_widths_pad_nothing() -> None:
    assert widths(5, exact=True).tolist() == [1, 2, 3, 4, 5]
    found = [(width, rows.tolist()) for width, rows in by_width(np.array([3, 1, 3]), widths(5, exact=True))]
    assert found == [(1, [1]), (3, [0, 2])]
