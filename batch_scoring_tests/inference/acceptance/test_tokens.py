"""The tokenizer and the network belong together."""

import pyarrow as pa
import pytest
import tokenizers

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance.tokens import check_texts, check_tokens
from batch_scoring.inference.manifest import LoadedModel
from batch_scoring_tests.text_models import READERS, WORDS, Bag, Reader, letters, manifest, model_of, tokenizer

GOLDEN = pa.Table.from_batches([letters(64, seed=99)])


@pytest.mark.parametrize("kind", READERS)
def test_a_network_takes_all_ids_of_its_tokenizer(kind: type[Reader]) -> None:
    check_tokens(model_of(kind), GOLDEN)


def test_a_tokenizer_of_another_network_is_refused() -> None:
    larger = tokenizers.Tokenizer.from_str(tokenizer().decode())
    larger.add_tokens(["one", "more"])
    model = LoadedModel(manifest(), "", Bag().eval(), GOLDEN, larger.to_str().encode())
    with pytest.raises(
        UnsoundError,
        match=rf"the tokenizer has {len(WORDS) + 4} tokens, and the network does not accept token {len(WORDS) + 3} "
        rf"\(its largest id\): the network raises IndexError.+an embedding of at least {len(WORDS) + 4} rows",
    ):
        check_tokens(model, GOLDEN)


def test_text_columns_are_text() -> None:
    check_texts(manifest(), GOLDEN)
    with pytest.raises(UnsoundError, match="it has no column body, a text that the model needs"):
        check_texts(manifest(), GOLDEN.drop_columns("body"))
    with pytest.raises(UnsoundError, match="column title is int64; expected text"):
        check_texts(manifest(), GOLDEN.set_column(1, "title", pa.array([1] * 64)))
