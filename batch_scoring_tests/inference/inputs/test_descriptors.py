"""What is kept of a text says nothing of its words."""

import pyarrow as pa

from batch_scoring.inference.inputs.descriptors import without_texts
from batch_scoring.inference.inputs.texts import Texts
from batch_scoring_tests.text_models import letters, text, tokenizer


def test_a_text_is_described_by_four_numbers() -> None:
    rows = pa.table({"id": [1, 2, 3], "title": ["The cat", None, " "], "body": ["sat zebra", "dog", None]})
    found = without_texts(Texts(text(), tokenizer()), rows)
    assert found.to_pydict() == {
        "id": [1, 2, 3],
        "text.characters": [17.0, 4.0, 2.0],
        "text.tokens": [4.0, 1.0, 1.0],
        "text.unknown_share": [0.25, 0.0, 1.0],
        "text.is_empty": [0.0, 0.0, 1.0],
    }


def test_many_rows_and_none_are_described() -> None:
    rows = pa.Table.from_batches([letters(700), letters(800, seed=1)])
    found = without_texts(Texts(text(), tokenizer()), rows)
    assert found.num_rows == 1500
    assert not {"title", "body"} & set(found.column_names)
    assert without_texts(Texts(text(), tokenizer()), rows.slice(0, 0)).num_rows == 0
