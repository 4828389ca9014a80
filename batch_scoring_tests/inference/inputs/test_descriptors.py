"""What is kept of texts and vectors says nothing of their words, and little of their numbers."""

import numpy as np
import pyarrow as pa

from batch_scoring.inference.inputs.descriptors import Descriptors
from batch_scoring.inference.inputs.texts import Texts
from batch_scoring.inference.inputs.vectors import Vectors
from batch_scoring.inference.manifest import VECTOR_DESCRIPTORS
from batch_scoring_tests.text_models import letters, text, tokenizer

TEXTS = Descriptors(Texts(text(), tokenizer()), None)


def test_a_text_is_described_by_four_numbers() -> None:
    rows = pa.table({"id": [1, 2, 3], "title": ["The cat", None, " "], "body": ["sat zebra", "dog", None]})
    found = TEXTS.in_place(rows)
    assert found.to_pydict() == {
        "id": [1, 2, 3],
        "text.characters": [17.0, 4.0, 2.0],
        "text.tokens": [4.0, 1.0, 1.0],
        "text.unknown_share": [0.25, 0.0, 1.0],
        "text.is_empty": [0.0, 0.0, 1.0],
    }


def test_many_rows_and_none_are_described() -> None:
    rows = pa.Table.from_batches([letters(700), letters(800, seed=1)])
    found = TEXTS.in_place(rows)
    assert found.num_rows == 1500
    assert not {"title", "body"} & set(found.column_names)
    assert TEXTS.in_place(rows.slice(0, 0)).num_rows == 0


def test_vectors_are_described_by_their_length_and_where_they_point() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=(3_000, 5)).astype(np.float32)
    cells = [None if row == 3 else values[row].tolist() for row in range(3_000)]
    rows = pa.table({"id": range(3_000), "e": pa.array(cells, pa.list_(pa.float32()))})
    found = Descriptors(None, Vectors({"e": 5})).in_place(rows)
    assert found.column_names == ["id", *VECTOR_DESCRIPTORS]
    norms = found["vectors.norm"].to_numpy()
    assert np.isnan(norms[3])
    others = np.arange(3_000) != 3
    np.testing.assert_allclose(norms[others], np.linalg.norm(values.astype(float), axis=1)[others])
    projected = np.column_stack([found[name].to_numpy() for name in VECTOR_DESCRIPTORS[1:]])
    assert (np.abs(projected[others]) <= norms[others, None] + 1e-9).all(), "no direction is longer than the vector"
