"""The first rows of an action, whatever the batches."""

import pyarrow as pa
import pytest

from batch_scoring.daily.first_rows import FirstRows

ROWS = pa.RecordBatch.from_pydict(
    {
        "id": list("abcdefg"),
        "action": ["none", "call", "call", "mail", "call", "call", "call"],
        "rank": pa.array([1, 3, 2, 1, None, None, None], pa.int32()),
        "score": [0.9, 0.7, 0.8, 0.99, 0.1, None, 0.6],
    }
)


@pytest.mark.parametrize("step", [1, 2, 7])
@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_ranks_come_first_then_scores(step: int, count: int) -> None:
    first = FirstRows("call", count)
    for start in range(0, 7, step):
        first.add(ROWS.slice(start, step))
    assert first.column("id") == list("cbgef")[:count]
    assert [row["id"] for row in first.rows()] == list("cbgef")[:count]


def test_an_action_without_rows_has_none() -> None:
    first = FirstRows("block", 3)
    assert first.rows() == []
    first.add(ROWS)
    assert (first.rows(), first.column("id")) == ([], [])
