"""Vocabularies are the words of the training rows, and vectors as long as most of them."""

import pyarrow as pa
import pytest

from batch_scoring.errors import UnsoundError
from batch_scoring.learning import vocabulary


def test_a_vocabulary_is_the_sorted_words_of_the_sample_without_missing_ones() -> None:
    rows = pa.table({"c": ["b", "a", None, "b"], "n": [10, 2, 2, None], "f": [True, None, False, True]})
    assert vocabulary.vocabularies(rows, ["c", "n", "f"]) == {"c": ["a", "b"], "n": ["10", "2"], "f": ["false", "true"]}
    coded = rows.set_column(0, "c", rows["c"].dictionary_encode())
    assert vocabulary.vocabularies(coded, ["c"]) == {"c": ["a", "b"]}


def test_of_too_many_words_the_most_frequent_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "MOST_WORDS", 2)
    assert vocabulary.vocabularies(pa.table({"c": ["d", "c", "c", "b", "a", "b"]}), ["c"]) == {"c": ["b", "c"]}
    assert vocabulary.vocabularies(pa.table({"c": ["d", "c", "b", "a"]}), ["c"]) == {"c": ["a", "b"]}


def test_words_that_are_given_are_taken_as_they_are() -> None:
    rows = pa.table({"c": ["b", "a"], "d": ["x", "y"]})
    assert vocabulary.vocabularies(rows, ["c", "d"], {"c": ["z", "a"]}) == {"c": ["z", "a"], "d": ["x", "y"]}
    with pytest.raises(UnsoundError, match=r"given for e; features.categorical of the spec names c, d"):
        vocabulary.vocabularies(rows, ["c", "d"], {"e": []})
    with pytest.raises(UnsoundError, match="c has no value in the sample"):
        vocabulary.vocabularies(pa.table({"c": pa.nulls(3, pa.string())}), ["c"])


def test_vectors_have_as_many_numbers_as_most_lists_of_their_column() -> None:
    rows = pa.table({"v": [[1.0, 2.0], None, [1.0], [3.0, 4.0], []], "w": [[1.0]] * 5, "e": pa.array([[]] * 5)})
    assert vocabulary.vector_sizes(rows, ["v", "w"]) == {"v": 2, "w": 1}
    with pytest.raises(UnsoundError, match="e has no list of numbers in the sample"):
        vocabulary.vector_sizes(rows, ["e"])
