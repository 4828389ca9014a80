"""What holds for every head: two ways to the same scores, and columns that fit each other."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter, ValidationError

from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.task import Task
from batch_scoring_tests.heads import HEADS, outputs, scored

heads = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)


@heads
def test_the_scorer_s_columns_are_those_of_eager_torch(head: Head) -> None:
    raw = outputs(head)
    found, truth = scored(head, raw), pa.RecordBatch.from_pydict(head.scores_of_eager(raw))
    assert found.schema.names == truth.schema.names == list(head.columns)
    for field in head.fields:
        ours, theirs = found[field.name], truth[field.name]
        assert ours.type == theirs.type == field.type
        if pa.types.is_list(field.type):
            assert ours.offsets.equals(theirs.offsets)
            ours, theirs = ours.flatten(), theirs.flatten()
        assert ours.to_numpy() == pytest.approx(theirs.to_numpy(), rel=1e-5, abs=1e-6)


@heads
def test_the_columns_fit_each_other(head: Head) -> None:
    plain = {field.name for field in head.fields if not pa.types.is_nested(field.type)}
    assert len(set(head.columns)) == len(head.columns)
    assert set(head.measured) <= plain
    others = {*head.score_columns, head.confidence_column, head.telling_column, *head.probabilities}
    assert others | {*head.expected_columns} <= {*head.measured} and head.score_columns and head.expected_columns


@heads
def test_no_column_is_a_list_of_a_fixed_size(head: Head) -> None:
    """Delta would turn it into another type after the table is there."""
    assert not any(pa.types.is_fixed_size_list(field.type) for field in head.fields)


@heads
def test_its_own_scores_are_sound(head: Head) -> None:
    scores = scored(head, outputs(head))
    assert head.is_sound(scores).all() and len(head.is_sound(scores)) == scores.num_rows
    for name in head.probabilities:
        values = scores[name].to_numpy()
        assert values.min() >= 0 and values.max() <= 1


@heads
def test_no_rows_have_no_scores(head: Head) -> None:
    columns, bad = head.scores(np.empty((head.values, 0), np.float32))
    assert len(bad) == 0 and {len(column) for column in columns.values()} == {0}
    assert [column.type for column in columns.values()] == [field.type for field in head.fields]


@heads
def test_what_is_written_is_read_again(head: Head) -> None:
    adapter: TypeAdapter[Head] = TypeAdapter(Task)
    text = adapter.dump_json(head)
    assert adapter.validate_json(text) == head and b'"kind"' in text and b"null" not in text


@heads
def test_an_unknown_field_is_refused(head: Head) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(head)(**head.model_dump(), loss="mse")
