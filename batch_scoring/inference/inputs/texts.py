"""Text columns as ids of tokens, by the tokenizer in the bundle."""

import itertools
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.inputs.ragged import Ragged, widths

if TYPE_CHECKING:
    import tokenizers

    from batch_scoring.inference.manifest import Text

BETWEEN = "\n"
"""What stands between the texts of two columns."""

MOST_CHARACTERS = 1_000_000
"""Characters that are read of a text: tokenizing it takes 60 times its memory, however few tokens are kept."""

_AT_ONCE, _CHARACTERS_AT_ONCE = 512, 2**20
"""Texts that are tokenized in one call, and their characters together, unless one alone has more."""

_RANDOM = ("dropout", "alpha", "nbest_size")
"""Settings with which a tokenizer cuts a text another way each time, as in training."""


class Texts:
    """The ids of rows' texts; any number of threads may use it, each with a tokenizer of its own.

    A shared tokenizer raises "Already borrowed" where threads change its settings.
    """

    def __init__(self, text: "Text", tokenizer: bytes) -> None:
        self.text = text
        self.widths = widths(text.longest, exact=text.exact)
        """The widths that texts are padded to."""
        self._content = tokenizer
        self._lane = threading.local()
        added = self._tokenizer().num_special_tokens_to_add(is_pair=False)
        if added >= text.longest:
            raise UnsoundError(
                f"longest is {text.longest}, and the tokenizer adds {added} special tokens to every text; expected more"
            )

    def encode(self, batch: pa.RecordBatch) -> Ragged:
        """The ids of each row, at most `longest` and at least one: an empty text is one unknown token."""
        tokenizer = self._tokenizer()
        parts, lengths = [np.empty(0, np.int64)], [np.zeros(1, np.int64)]
        for texts in self._texts(batch):
            ids = [found.ids or [self.text.unknown] for found in tokenizer.encode_batch_fast(texts)]
            lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))
            parts.append(np.fromiter(itertools.chain.from_iterable(ids), np.int64, int(lengths[-1].sum())))
        return Ragged(np.concatenate(parts), np.cumsum(np.concatenate(lengths)))

    def _texts(self, batch: pa.RecordBatch) -> Iterator[list[str]]:
        """The rows' texts, as many as are tokenized in one call."""
        for start in range(0, batch.num_rows, _AT_ONCE):
            found = joined(batch.slice(start, _AT_ONCE), self.text.columns).to_pylist()
            yield from _by_size([text[:MOST_CHARACTERS] for text in found])

    def _tokenizer(self) -> "tokenizers.Tokenizer":
        if not hasattr(self._lane, "tokenizer"):
            self._lane.tokenizer = read_tokenizer(self._content, self.text.longest)
        tokenizer: tokenizers.Tokenizer = self._lane.tokenizer
        return tokenizer


def read_tokenizer(content: bytes, longest: int) -> "tokenizers.Tokenizer":
    """The tokenizer of a tokenizer.json, which cuts a text to `longest` ids, its special tokens included.

    Raises:
        UnsoundError: it is none, or the package `tokenizers` is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # our threads are as many as there are cores
    try:
        import tokenizers
    except ImportError as error:
        raise UnsoundError("texts need the package tokenizers: pip install -c constraints.txt -e '.[text]'") from error
    try:
        found = tokenizers.Tokenizer.from_str(content.decode())
    except Exception as error:  # of a Rust library: Exception itself
        raise UnsoundError(f"tokenizer.json is no tokenizer: {' '.join(str(error).split())[:200]}") from error
    for name in _RANDOM:
        if getattr(found.model, name, None) is not None:
            setattr(found.model, name, None)
    found.no_padding()
    found.enable_truncation(longest, direction=(found.truncation or {}).get("direction", "right"))
    return found


def _by_size(texts: list[str]) -> Iterator[list[str]]:
    """Yield texts in pieces of `_CHARACTERS_AT_ONCE`."""
    start = size = 0
    for place, text in enumerate(texts):
        if size and size + len(text) > _CHARACTERS_AT_ONCE:
            yield texts[start:place]
            start, size = place, 0
        size += len(text)
    yield texts[start:]


def joined(rows: pa.RecordBatch | pa.Table, columns: tuple[str, ...]) -> pa.Array | pa.ChunkedArray:
    """The text of each row: its columns, a line break between them, a missing one empty."""
    texts = [rows.column(name).cast(pa.string()) for name in columns]
    if len(texts) == 1:
        return pc.fill_null(texts[0], "")
    return pc.binary_join_element_wise(*texts, BETWEEN, null_handling="replace", null_replacement="")
