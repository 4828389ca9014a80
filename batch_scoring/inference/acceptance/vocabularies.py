"""Check that a model's vocabularies and tokenizer fit the network's embeddings and the words of real rows."""

import bisect
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance import eager
from batch_scoring.inference.inputs.texts import read_tokenizer
from batch_scoring.inference.manifest import LoadedModel, Manifest

if TYPE_CHECKING:
    pass

HARDLY = 0.002
"""Least share of a column's rows with a word of its vocabulary: some vocabularies name rare words alone."""

OFTEN = 0.02
"""Share of a column's rows with an unknown or missing word from which its spelling is checked."""

NOTHING = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>", "nat"})
"""What libraries write for a missing value that they treat as text."""


def check_codes(model: LoadedModel, rows: pa.Table) -> None:
    """Check that the network accepts every code of every vocabulary, and 0 for unknown, beside the numbers of one row.

    Raises:
        UnsoundError: it raises for a code: the vocabulary is longer than its embedding.
    """
    network, manifest = model.network, model.manifest
    first = eager.inputs(model, rows.slice(0, 1))
    categorical = np.zeros_like(first.matrices["categorical"])
    sizes = np.array([len(words) for words in manifest.categorical.values()], np.int64)

    def refusal(codes: np.ndarray) -> UnsoundError | None:
        try:
            rows_of_codes = first.take(np.zeros(len(codes), np.int64)).replace(categorical=codes)
            eager.forward(network, rows_of_codes, manifest.outputs)
        except UnsoundError as error:
            return error
        return None

    if not len(sizes) or refusal(categorical):  # an error even without categories has another cause
        return
    error = refusal(np.minimum(np.arange(sizes.max() + 1)[:, None], sizes))
    if not error:
        return
    for name, alone in zip(manifest.categorical, np.eye(len(sizes), dtype=np.int64), strict=True):
        size = len(manifest.categorical[name])
        refused = bisect.bisect(range(size + 1), 0, key=partial(_is_refused, refusal, alone))
        if refused <= size:
            raise UnsoundError(
                f"the vocabulary of {name} has {size} words, so its codes are 0 (unknown) to {size}; the network "
                f"accepts codes to {refused - 1} ({error}). Its embedding needs {size + 1} rows, or the vocabulary "
                "belongs to another model"
            )
    raise UnsoundError(f"the network does not accept the codes of all words together: {error}")


def _is_refused(refusal: Callable[[np.ndarray], object], alone: np.ndarray, code: int) -> int:
    return int(refusal(alone[None] * code) is not None)


def check_tokens(model: LoadedModel, rows: pa.Table) -> None:
    """Check that the network accepts the largest id of the tokenizer, and the ids of padding and of unknown tokens.

    Raises:
        UnsoundError: it raises for one: the tokenizer has more tokens than the network's embedding.
    """
    text = model.manifest.text
    if text is None:
        return
    first = eager.inputs(model, rows.slice(0, 1))
    tokenizer = read_tokenizer(model.tokenizer or b"", text.longest)
    largest = max(tokenizer.get_vocab().values(), default=0)
    for what, token in (("its largest id", largest), ("unknown", text.unknown), ("padding", text.padding)):
        try:
            eager.forward(
                model.network, first.replace_tokens([(text.unknown, token)[: text.longest]]), model.manifest.outputs
            )
        except UnsoundError as error:
            raise UnsoundError(
                f"the tokenizer has {tokenizer.get_vocab_size()} tokens, and the network does not accept token {token} "
                f"({what}): {error}. Expected an embedding of at least {max(largest, token) + 1} rows"
            ) from error


def check_words(manifest: Manifest, rows: pa.Table) -> None:
    """Check the vocabularies against the words of real rows.

    A rare word may be unknown, and a vocabulary may name the frequent ones alone. Errors are a column in which hardly
    any row has a known word, frequent words that differ from unused ones only in spelling, and a word for missing
    values where the rows have none: that is code 0.

    Raises:
        UnsoundError: a vocabulary is not that of its column.
    """
    for name, vocabulary in manifest.categorical.items():
        counts = eager.texts(name, rows[name]).value_counts().to_pylist()
        seen = Counter({item["values"]: item["counts"] for item in counts if item["values"] is not None})
        words = set(vocabulary)
        unknown = Counter({word: count for word, count in seen.items() if word not in words})
        meant = {_bare(word): word for word in vocabulary if word not in seen}
        twins = [
            (word, meant[_bare(word)])
            for word, count in unknown.most_common()
            if count >= OFTEN * seen.total() and _bare(word) in meant
        ]
        known = seen.total() - unknown.total()
        missing = rows[name].null_count
        nothing = [word for bare, word in meant.items() if bare in NOTHING]
        if nothing and missing >= OFTEN * rows.num_rows:
            raise UnsoundError(
                f"the vocabulary of {name} has {nothing[0]!r}, which no row has: {missing} of {rows.num_rows} rows "
                "have no value there, and that is code 0 to the network. Train a missing value as code 0 and leave the "
                "word out, or write the word into the rows"
            )
        if twins:
            pairs = ", ".join(f"{_quoted(ours)} in place of {_quoted(theirs)}" for theirs, ours in twins[:5])
            raise UnsoundError(
                f"the vocabulary of {name} has {pairs}: {known} of {seen.total()} rows have a known word. Spell "
                "the vocabulary as the rows are spelled"
            )
        if unknown and known < HARDLY * seen.total():
            raise UnsoundError(
                f"the vocabulary of {name} is not that of the rows: {known} of {seen.total()} have a known word. They "
                f"have {_listed(unknown)}; the vocabulary has {_listed(vocabulary)}"
            )


def _bare(word: str) -> str:
    """A word normalised for comparison: without blanks, upper case, composed letters, a number's extra zeros."""
    bare = unicodedata.normalize("NFKC", word).strip().casefold()
    whole, _, decimals = bare.partition(".")
    if not whole.lstrip("+-").isdecimal() or decimals.strip("0"):
        return bare
    return whole.lstrip("+0") or "0"


def _quoted(word: str) -> str:
    """A word in quotes; with code points if it is not normalised."""
    return repr(word) if unicodedata.is_normalized("NFKC", word) else ascii(word)


def _listed(words: Iterable[str]) -> str:
    """The first words, in quotes, shortened if long."""
    found = list(words)
    shown = ", ".join(repr(word if len(word) <= 40 else f"{word[:40]}…") for word in found[:5])
    return shown + (", …" if len(found) > 5 else "")
