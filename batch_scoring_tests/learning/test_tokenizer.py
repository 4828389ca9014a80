"""A learned tokenizer is the same in every process, and what is read of one is its own."""

import hashlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import tokenizers

from batch_scoring.config.loader import PROJECT
from batch_scoring.errors import UnsoundError
from batch_scoring.inference.inputs.texts import Texts
from batch_scoring.learning import tokenizer as trained
from batch_scoring_tests.text_models import letters, tokenizer

ROWS = pa.Table.from_batches([letters(400)])
COLUMNS = ("title", "body")


def texts() -> list[str]:
    return [row["body"] or "" for row in ROWS.to_pylist()]


PROGRAM = """
import hashlib
from batch_scoring_tests.learning.test_tokenizer import texts, trained
print(hashlib.sha256(trained.train(texts(), 100)).hexdigest())
"""


def test_a_tokenizer_has_the_same_bytes_in_every_process() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(trained.train(texts(), 100)).hexdigest()


def test_a_trained_tokenizer_reads_pieces_of_words_whatever_the_case_and_the_blanks() -> None:
    content = trained.train(texts(), 200)
    found = tokenizers.Tokenizer.from_str(content.decode())
    assert found.encode("The  CAT\nsat ").tokens == ["the", "cat", "sat"]
    assert found.encode("cats, ﬁﬁ Straße").tokens == ["cat", "##s", "[UNK]", "[UNK]", "straße"]
    assert found.encode("[PAD] [UNK]").ids != [0, 1] and 0 not in found.encode("[PAD]").ids
    assert [found.id_to_token(number) for number in (0, 1)] == ["[PAD]", "[UNK]"]
    assert trained.size_of(content) == found.get_vocab_size() <= 200
    assert trained.size_of(trained.train(texts(), 60)) == 60


def test_of_a_large_alphabet_rare_letters_are_unknown() -> None:
    signs = [chr(0x4E00 + number) for number in range(500)]
    found = tokenizers.Tokenizer.from_str(trained.train([" ".join(signs), " ".join(signs[:90] * 2)], 400).decode())
    assert found.get_vocab_size() <= 400
    assert found.encode(signs[5]).tokens == [signs[5]] and found.encode(signs[400]).tokens == ["[UNK]"]


def test_padding_and_unknown_are_the_tokenizer_s_own_and_most_texts_are_kept_whole() -> None:
    text = trained.text_of(tokenizer(), ROWS, COLUMNS)
    assert (text.padding, text.unknown, text.columns) == (0, 1, COLUMNS)
    lengths = Texts(text.model_copy(update={"longest": 512}), tokenizer()).encode(ROWS.combine_chunks().to_batches()[0])
    assert text.longest == 96 > np.quantile(lengths.lengths, 0.99) > 48
    assert trained.text_of(tokenizer(), ROWS, COLUMNS, 20).longest == 20
    other = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "<unk>": 1, "<pad>": 2}, unk_token="<unk>"))
    found = trained.text_of(other.to_str().encode(), ROWS, COLUMNS)
    assert (found.padding, found.unknown) == (2, 1)


def test_a_tokenizer_without_padding_is_refused_with_what_to_do() -> None:
    other = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(UnsoundError, match=r"no token for padding; expected .PAD. or <pad>"):
        trained.text_of(other.to_str().encode(), ROWS, COLUMNS)
    with pytest.raises(UnsoundError, match=r"tokenizer.json is no tokenizer"):
        trained.text_of(b"{}", ROWS, COLUMNS)
