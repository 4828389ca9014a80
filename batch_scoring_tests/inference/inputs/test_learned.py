"""What an encoder learns: the words of the sample, and a tokenizer that is the same in every process."""

import hashlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import tokenizers

from batch_scoring.config.loader import PROJECT
from batch_scoring.errors import UnsoundError
from batch_scoring.inference.inputs import learned
from batch_scoring.inference.inputs.texts import Texts
from batch_scoring_tests.text_models import letters, tokenizer

ROWS = pa.Table.from_batches([letters(400)])
COLUMNS = ("title", "body")


def texts() -> list[str]:
    return [row["body"] or "" for row in ROWS.to_pylist()]


def test_a_vocabulary_is_the_sorted_words_of_the_sample_without_missing_ones() -> None:
    rows = pa.table({"c": ["b", "a", None, "b"], "n": [10, 2, 2, None], "f": [True, None, False, True]})
    assert learned.vocabularies(rows, ["c", "n", "f"]) == {"c": ["a", "b"], "n": ["10", "2"], "f": ["false", "true"]}
    coded = rows.set_column(0, "c", rows["c"].dictionary_encode())
    assert learned.vocabularies(coded, ["c"]) == {"c": ["a", "b"]}


def test_of_too_many_words_the_most_frequent_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "MOST_WORDS", 2)
    assert learned.vocabularies(pa.table({"c": ["d", "c", "c", "b", "a", "b"]}), ["c"]) == {"c": ["b", "c"]}
    assert learned.vocabularies(pa.table({"c": ["d", "c", "b", "a"]}), ["c"]) == {"c": ["a", "b"]}


def test_words_that_are_given_are_taken_as_they_are() -> None:
    rows = pa.table({"c": ["b", "a"], "d": ["x", "y"]})
    assert learned.vocabularies(rows, ["c", "d"], {"c": ["z", "a"]}) == {"c": ["z", "a"], "d": ["x", "y"]}
    with pytest.raises(UnsoundError, match=r"given for e; features.categorical of the spec names c, d"):
        learned.vocabularies(rows, ["c", "d"], {"e": []})
    with pytest.raises(UnsoundError, match="c has no value in the sample"):
        learned.vocabularies(pa.table({"c": pa.nulls(3, pa.string())}), ["c"])


PROGRAM = """
import hashlib
from batch_scoring_tests.inference.inputs.test_learned import learned, texts
print(hashlib.sha256(learned.train_tokenizer(texts(), 60)).hexdigest())
"""


def test_a_tokenizer_has_the_same_bytes_in_every_process() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(learned.train_tokenizer(texts(), 60)).hexdigest()


def test_a_trained_tokenizer_reads_pieces_of_words_whatever_the_case_and_the_blanks() -> None:
    content = learned.train_tokenizer(texts(), 200)
    found = tokenizers.Tokenizer.from_str(content.decode())
    assert found.encode("The  CAT\nsat ").tokens == ["▁the", "▁cat", "▁sat"]
    assert found.encode("cats!").tokens[0] == "▁cat" and "[UNK]" in found.encode("cats!").tokens
    assert found.encode("ﬁﬁ Straße").tokens[-1] == "▁straße"
    assert learned.size_of(content) == found.get_vocab_size() <= 200
    assert learned.size_of(learned.train_tokenizer(texts(), 30)) == 30


def test_padding_and_unknown_are_the_tokenizer_s_own_and_most_texts_are_kept_whole() -> None:
    text = learned.text_of(tokenizer(), ROWS, COLUMNS)
    assert (text.padding, text.unknown, text.columns) == (0, 1, COLUMNS)
    lengths = Texts(text.model_copy(update={"longest": 512}), tokenizer()).encode(ROWS.combine_chunks().to_batches()[0])
    assert text.longest == 96 > np.quantile(lengths.lengths, 0.99) > 48
    assert learned.text_of(tokenizer(), ROWS, COLUMNS, 20).longest == 20
    other = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "<unk>": 1, "<pad>": 2}, unk_token="<unk>"))
    found = learned.text_of(other.to_str().encode(), ROWS, COLUMNS)
    assert (found.padding, found.unknown) == (2, 1)


def test_a_tokenizer_without_padding_is_refused_with_what_to_do() -> None:
    other = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(UnsoundError, match=r"no token for padding; expected .PAD. or <pad>"):
        learned.text_of(other.to_str().encode(), ROWS, COLUMNS)
    with pytest.raises(UnsoundError, match=r"tokenizer.json is no tokenizer"):
        learned.text_of(b"{}", ROWS, COLUMNS)
