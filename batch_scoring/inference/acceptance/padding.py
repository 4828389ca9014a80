"""Check that a network of texts does not read what a text is padded with, nor round by the lengths beside it.

A text is padded to the width of its group. A network that reads the padding gives other scores for another width, and
others than in training, where texts were padded to something else.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance import agreement, eager
from batch_scoring.inference.acceptance.eager import Inputs
from batch_scoring.inference.inputs.ragged import widths
from batch_scoring.inference.manifest import LoadedModel

_SHARES = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
"""Shares of the rows that pass in another order, one after the other: small ones are mostly alone in their width."""

LONG = 128
"""Tokens to which texts are repeated, at most, to see whether a network rounds by the lengths beside a text."""


def check_padding_is_not_read(model: LoadedModel, golden: pa.Table) -> None:
    """Pad the golden texts to the width that they need, and to the next one, and compare.

    Texts that need the last width are cut to the one before: a network may have no positions beyond its longest text.

    Raises:
        UnsoundError: a row's outputs differ by more than rounding.
    """
    manifest = model.manifest
    if manifest.text is None:
        return
    steps = widths(manifest.text.longest, exact=manifest.text.exact)
    if len(steps) == 1:  # all texts have one width, in training and here
        return
    given = eager.inputs(model, golden)
    rows = given.replace_tokens(ids[: steps[-2]] for ids in given.tokens or ())
    expected = eager.forward(model.network, rows, manifest.outputs)
    found = eager.forward(model.network, rows, manifest.outputs, wider=1)
    seen = agreement.worst(found, expected, agreement.usual(manifest.task.tolerance, expected))
    if not seen.is_accepted:
        tokens = len((rows.tokens or ())[seen.row])
        place = int(np.searchsorted(steps, tokens))
        raise UnsoundError(
            f"the network reads padding: golden row {seen.row}, a text of {tokens} tokens, gives {seen.expected:.6g} "
            f"when it is padded to {steps[place]} and {seen.found:.6g} when it is padded to {steps[place + 1]}. Leave "
            f"out what is {manifest.text.padding} in forward(): a mask of tokens != {manifest.text.padding} for "
            "attention, means and maxima; the lengths for an RNN (pack_padded_sequence, enforce_sorted=False)"
        )


def rounds_by_lengths(model: LoadedModel, rows: pa.Table) -> bool:
    """Whether a text's outputs differ, in the last bits, beside texts of other lengths that share its width.

    A network that packs its sequences multiplies, at each step, only the texts that reach so far; and sums of another
    number of rows are computed in another order. Every other text is cut or
    repeated: those of a sample may all have one length.

    Args:
        model: of texts.
        rows: with texts, the longer the better.

    Raises:
        UnsoundError: the network raises, or its output has another shape.
    """
    given, random = eager.inputs(model, rows), np.random.default_rng(0)
    given = given.replace_tokens(_of_other_lengths(given, random))
    expected = eager.forward(model.network, given, model.manifest.outputs)
    for share in _SHARES:
        order = random.permutation(len(given))[: max(1, round(share * len(given)))]
        found = eager.forward(model.network, given.take(order), model.manifest.outputs)
        if not np.array_equal(found, expected[order], equal_nan=True):
            return True
    return False


def _of_other_lengths(given: Inputs, random: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """The texts, every other one cut or repeated to a length by chance."""
    longest = min(given.text.longest if given.text else 1, LONG)
    for row, ids in enumerate(given.tokens or ()):
        length = int(random.integers(1, longest + 1)) if row % 2 else len(ids)
        yield (ids * -(-length // len(ids)))[:length]
