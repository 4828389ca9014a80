"""Check that a network takes every id of its tokenizer, and that its text columns are text."""

import pyarrow as pa

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance import eager
from batch_scoring.inference.inputs.texts import read_tokenizer
from batch_scoring.inference.manifest import LoadedModel, Manifest


def check_texts(manifest: Manifest, rows: pa.Table) -> None:
    """Check the type of text columns.

    Raises:
        UnsoundError: one is missing, or is not text.
    """
    for name in manifest.text.columns if manifest.text else ():
        if name not in rows.column_names:
            raise UnsoundError(f"it has no column {name}, a text that the model needs")
        kind = rows[name].type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
            raise UnsoundError(f"column {name} is {kind}; expected text")


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
