"""Rows of a file by their numbers, and in batches that are bounded in bytes."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_scoring.ingest.formats import rows
from batch_scoring.ingest.formats.rows import BrokenRow, BrokenRows, Rows


def test_a_range_has_the_parsed_and_the_broken_rows_of_its_numbers() -> None:
    parsed, broken = np.array([1, 3, 4, 6]), BrokenRows(np.array([2, 5]), lambda number: BrokenRow(number, "", "x"))
    block = Rows(pa.record_batch({"n": parsed}), parsed, broken)
    for start in range(7):
        for stop in range(start, 7):
            part = block.between(start, stop)
            assert part.batch.column("n").to_pylist() == part.numbers.tolist()
            found = [*part.numbers.tolist(), *(row.number for row in part.broken)]
            assert sorted(found) == list(range(start + 1, stop + 1)) and len(part) == len(found)


@given(sizes=st.lists(st.integers(0, 50), max_size=40), most=st.integers(1, 60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_are_the_whole_batch_in_order(monkeypatch: pytest.MonkeyPatch, sizes: list[int], most: int) -> None:
    monkeypatch.setattr(rows, "BATCH_BYTES", most)
    texts = pa.array([None if size == 7 else "x" * size for size in sizes], pa.string())
    batch = pa.RecordBatch.from_pydict({"a": texts.dictionary_encode(), "b": texts.cast(pa.binary())})
    pieces = list(rows.pieces(batch))
    assert [row for piece in pieces for row in piece.to_pylist()] == batch.to_pylist()
    for piece in pieces:
        assert (
            len(piece) == 1 or sum(len(text or "") for name in "ab" for text in piece.column(name).to_pylist()) <= most
        )
