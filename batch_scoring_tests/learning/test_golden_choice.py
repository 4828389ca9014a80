"""Golden rows show what a common row does not."""

import numpy as np
import pyarrow as pa
import pytest

from batch_scoring.learning.golden_choice import varied

ROWS = 1_000


def table() -> pa.Table:
    number = np.arange(ROWS)
    words = np.where(number % 2, "often", "common").astype(object)
    words[[321, 654]] = ["rare", "scarce"]
    texts = np.array([f"a text of {n % 7} words" for n in number], object)
    texts[[77, 88]] = ["", "a long text " * 50]
    return pa.table(
        {
            "x": pa.array(np.sin(number) * 5, mask=number == 500),
            "flag": pa.array(number != 433),
            "word": pa.array(words, mask=number == 888),
            "text": pa.array(texts),
            "vector": pa.array([None if n == 700 else [1.0, 2.0] for n in number]),
            "empty": pa.nulls(ROWS),
        }
    )


def test_missing_values_extremes_and_rare_words_are_among_them() -> None:
    rows = table()
    x = np.nan_to_num(rows["x"].to_numpy())
    wanted = {500, 433, 321, 654, 888, 77, 88, 700, int(x.argmax()), int(x.argmin())}
    assert wanted <= set(varied(rows, rows.column_names, 64).tolist())


@pytest.mark.parametrize("count", [64, 100, ROWS])
def test_as_many_as_are_wanted_are_chosen_in_order_without_repetition_and_spread(count: int) -> None:
    rows = table()
    found = varied(rows, ["x", "word"], count)
    assert len(found) == count and (np.diff(found) > 0).all()
    assert np.histogram(found, 4, (0, ROWS))[0].min() >= count // 8


def test_the_choice_is_always_the_same_and_many_columns_leave_room_for_ordinary_rows() -> None:
    rows = table()
    assert (varied(rows, ["x", "text"], 64) == varied(rows, ["x", "text"], 64)).all()
    wide = pa.table({f"x{k}": pa.array(np.roll(np.arange(ROWS), k * 7)) for k in range(200)})
    assert len(varied(wide, wide.column_names, 64)) == 64
    assert len(varied(rows.slice(0, 64), ["empty"], 64)) == 64


def test_categories_are_chosen_whether_or_not_they_are_dictionaries() -> None:
    rows = table()
    coded = rows.set_column(2, "word", rows["word"].dictionary_encode())
    assert (varied(rows, ["word"], 64) == varied(coded, ["word"], 64)).all()
