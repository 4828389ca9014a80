"""The tokenizer of a model's texts: learned from training rows, or read."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.inputs.ragged import widths
from batch_scoring.inference.inputs.texts import joined, read_tokenizer
from batch_scoring.inference.manifest import Text

if TYPE_CHECKING:
    import tokenizers

LONGEST = 512
"""Tokens that are kept of a text, at most, unless the training code says otherwise."""
USUAL_SHARE = 0.99
"""Share of the texts that are kept whole."""
_LETTERS = 4
"""Tokens for each letter, at least: of large alphabets, rare letters are unknown."""
MEASURED = 10_000
"""Texts whose lengths decide how many tokens are kept."""

PADDING, UNKNOWN = ("[PAD]", "<pad>", "<|padding|>"), ("[UNK]", "<unk>")
"""Names of these two tokens in common tokenizers."""


def train(texts: Sequence[str], size: int) -> bytes:
    """Learn a tokenizer, the content of a tokenizer.json; the same texts give the same bytes.

    Pieces of words (WordPiece), in lower case; id 0 is padding, 1 an unknown word. Byte pair encoding reads texts a
    third slower.

    Args:
        texts: of the training data.
        size: tokens at most.

    Raises:
        UnsoundError: the package is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import trainers
    except ImportError as error:
        raise UnsoundError("texts need the package tokenizers: pip install -c constraints.txt -e '.[text]'") from error
    found = _pieces({})
    counts = Counter(letter for text in texts for letter in found.normalizer.normalize_str(text) if letter.strip())
    letters = sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[: size // _LETTERS])
    # left to itself, the trainer numbers the inner letters differently in each process, and breaks ties by number
    first = [PADDING[0], UNKNOWN[0], *letters, *(f"##{letter}" for letter in letters)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=first, limit_alphabet=len(letters), show_progress=False
    )
    found.train_from_iterator(texts, trainer)
    return str(_pieces(found.get_vocab()).to_str()).encode()  # without special tokens: a text may say [PAD]


def _pieces(vocabulary: dict[str, int]) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    found = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN[0]))
    found.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return found


def text_of(tokenizer: bytes, rows: pa.Table, columns: tuple[str, ...], longest: int | None = None) -> Text:
    """How texts become tokens: the ids that the tokenizer has for padding and unknown, and how many are kept.

    Args:
        tokenizer: the content of a tokenizer.json.
        rows: of the training data.
        columns: with texts.
        longest: tokens that are kept of a text; as many as 99 % of the texts have, 512 at most, if None.

    Raises:
        UnsoundError: it is no tokenizer, or has no token for one of the two.
    """
    reader = read_tokenizer(tokenizer, longest or LONGEST)
    ids = reader.get_vocab()
    own = getattr(reader.model, "unk_token", None)
    padding, unknown = _id(ids, "padding", PADDING), _id(ids, "unknown words", (*([own] if own else []), *UNKNOWN))
    if longest is None:
        sample = joined(rows, columns).take(_spread(len(rows), MEASURED)).to_pylist()
        lengths = [len(found.ids) for found in reader.encode_batch_fast(sample)]
        usual = int(np.quantile(lengths, USUAL_SHARE, method="higher")) if lengths else 1
        longest = int(next(width for width in widths(LONGEST) if width >= usual))
    return Text(columns=columns, longest=longest, padding=padding, unknown=unknown)


def size_of(tokenizer: bytes) -> int:
    """Rows that an embedding of a tokenizer's ids needs."""
    return max(read_tokenizer(tokenizer, 1).get_vocab().values(), default=0) + 1


def _id(ids: Mapping[str, int], what: str, names: Sequence[str]) -> int:
    for name in names:
        if name in ids:
            return ids[name]
    raise UnsoundError(
        f"the tokenizer has no token for {what}; expected {' or '.join(dict.fromkeys(names))}: "
        f'tokenizer.add_special_tokens(["{names[-1]}"])'
    )


def _spread(count: int, most: int) -> pa.Array:
    """At most so many positions, evenly spread."""
    return pa.array(
        np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)) if count else [], pa.int64()
    )
