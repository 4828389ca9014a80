"""The inputs of a model from a record batch."""

import pyarrow as pa
import pytest

from batch_scoring.errors import ScoringError
from batch_scoring.inference.inputs.encoder import Encoder
from batch_scoring_tests.inference.test_scorer import Net, model_of, rows


def test_a_table_is_one_group_of_two_matrices() -> None:
    found = Encoder(model_of(Net())).encode(rows(70))
    (group,) = found.groups
    assert {name: values.shape for name, values in group.tensors.items()} == {
        "numeric": (128, 3),
        "categorical": (128, 1),
    }
    assert (group.rows, group.positions) == (70, None)


def test_missing_columns_are_named() -> None:
    encoder = Encoder(model_of(Net()))
    assert encoder.columns == ("x", "y", "n", "c")
    with pytest.raises(ScoringError, match="the input has no column y, c, which the model needs"):
        encoder.encode(pa.RecordBatch.from_pydict({"x": [1.0], "n": [1]}))
