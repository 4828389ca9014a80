"""Numbers and categories as matrices: every cell is rounded or coded by itself."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.inference.inputs.encoded import Tensors
from batch_scoring.inference.inputs.tabular import Tabular, codes, numbers

COLOURS = ("red", "green", "blue")

INTEGERS = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**60 + 2**36 + 1, 2**53 + 1]),
    pa.uint64(): st.integers(0, 2**64 - 1) | st.just(2**63 + 2**39 + 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.bool_(): st.booleans(),
}


@given(kind=st.sampled_from(list(INTEGERS)), data=st.data(), gaps=st.lists(st.integers(0, 9), max_size=4))
@settings(max_examples=150, deadline=None)
def test_a_whole_number_is_rounded_once_whatever_stands_beside_it(
    kind: pa.DataType, data: st.DataObject, gaps: list[int]
) -> None:
    values = data.draw(st.lists(INTEGERS[kind], min_size=1, max_size=8))
    right = np.array(values, kind.to_pandas_dtype()).astype(np.float32)
    cells: list[object] = list(values)
    for place in gaps:
        cells.insert(place, None)
    seen = np.zeros(len(cells), np.float32)
    seen[:] = numbers(pa.array(cells, kind))
    assert seen[[cell is not None for cell in cells]].tobytes() == right.tobytes()
    assert np.isnan(seen[[cell is None for cell in cells]]).all()


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.one_of(st.none(), st.sampled_from([*COLOURS, "mauve", "", "ROT", "rot "])), max_size=40),
    encode=st.booleans(),
    start=st.integers(0, 10),
)
def test_codes_are_positions_in_the_vocabulary(words: list[str | None], encode: bool, start: int) -> None:
    column = pa.array(words, pa.string())
    column = (column.dictionary_encode() if encode else column).slice(start)
    found, unknown = codes(column, pa.array(COLOURS))
    wanted = words[start:]
    assert found.tolist() == [COLOURS.index(word) + 1 if word in COLOURS else 0 for word in wanted]
    strange = [word for word in wanted if word is not None and word not in COLOURS]
    assert unknown == {word: strange.count(word) for word in strange}


def encoded(table: Tabular, batch: pa.RecordBatch) -> Tensors:
    tensors = table.blank(batch.num_rows)
    table.encode(batch, tensors)
    return tensors


def test_a_gap_in_a_record_batch_moves_no_other_number() -> None:
    """A row each of 2**60 + 2**36 + 1, of which float64 makes a number that float32 rounds the other way."""
    cells = pa.array([2**60 + 2**36 + 1, 1]), pa.array([2**60 + 2**36 + 1, None], pa.int64())
    batches = [pa.RecordBatch.from_pydict({"n": column}) for column in cells]
    found = [encoded(Tabular(["n"], {}), batch)["numeric"][0, 0] for batch in batches]
    assert found[0] == found[1] == np.float32(1.1529216e18)


def test_a_number_beyond_float32_names_its_row_and_column() -> None:
    table = Tabular(["a", "b"], {})
    batch = pa.RecordBatch.from_pydict({"a": [1.0, 1e300, 2.0], "b": [None, 1e300, -1e39]})
    tensors = encoded(table, batch)
    assert [(row.position, row.rule, row.detail) for row in table.infinite(batch, tensors["numeric"])] == [
        (1, "input_is_finite", "a is 1e+300, beyond float32"),
        (2, "input_is_finite", "b is -1e+39, beyond float32"),
    ]
