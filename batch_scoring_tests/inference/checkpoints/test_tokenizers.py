"""What a tokenizer.json says about its texts is taken from it; the rest is asked for."""

import tokenizers
from tokenizers import models

from batch_scoring.inference.checkpoints.tokenizers import text_of
from batch_scoring.inference.manifest import Text


def content(model: models.Model, **settings: dict[str, object]) -> bytes:
    found = tokenizers.Tokenizer(model)
    if "truncation" in settings:
        found.enable_truncation(**settings["truncation"])
    if "padding" in settings:
        found.enable_padding(**settings["padding"])
    return found.to_str().encode()


def test_length_padding_and_the_unknown_token_are_the_tokenizers_own() -> None:
    model = models.WordLevel({"a": 0, "<pad>": 5, "what": 7}, unk_token="what")
    data = content(model, truncation={"max_length": 48}, padding={"pad_id": 5, "pad_token": "<pad>"})
    assert text_of(["title"], data, {}) == Text(columns=("title",), longest=48, padding=5, unknown=7)


def test_what_is_given_counts_first() -> None:
    data = content(models.WordLevel({"a": 1, "b": 2}, unk_token="a"), truncation={"max_length": 48})
    given = {"longest": 16, "unknown": 2, "exact": True}
    assert text_of(["a", "b"], data, given) == Text(columns=("a", "b"), longest=16, unknown=2, exact=True)


def test_other_kinds_of_models_name_their_unknown_token_in_their_way() -> None:
    usual = models.BPE({"<unk>": 3, "a": 0}, [])
    assert text_of(["t"], content(usual), {"longest": 8}) == Text(columns=("t",), longest=8, unknown=3)
    unigram = models.Unigram([("<pad>", 0.0), ("a", -1.0), ("?", -2.0)], 2, False)
    assert text_of(["t"], content(unigram), {"longest": 8}) == Text(columns=("t",), longest=8, unknown=2)


def test_a_table_without_texts_has_no_tokenizer() -> None:
    assert text_of([], None, {}) is None
