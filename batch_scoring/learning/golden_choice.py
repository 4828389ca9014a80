"""The choice of golden rows: as varied as those that a model will meet.

What a change breaks first is what a common row never shows: a missing value, a rare category, the largest number, the
longest and the empty text. The other rows are spread over the sample. The same rows give the same choice.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SPECIAL = 3 / 4
"""Share of the rows that may be chosen for what is rare in one column."""
RARE = 8
"""Rare words of a column, at most."""


def varied(rows: pa.Table, columns: Sequence[str], count: int) -> np.ndarray:
    """Positions of varied rows, ascending.

    Args:
        rows: of the training data, at least `count`.
        columns: inputs of the model.
        count: how many.
    """
    # in turn: what is rarest in each column, then what is next
    each = itertools.zip_longest(*(_telling(rows[name].combine_chunks()) for name in columns))
    rare = dict.fromkeys(row for row in itertools.chain.from_iterable(each) if row is not None)
    chosen = np.array(list(rare)[: int(count * SPECIAL)], np.int64)
    others = np.delete(np.arange(rows.num_rows), chosen)
    spread = np.linspace(0, len(others) - 1, count - len(chosen)).astype(np.int64)
    return np.sort(np.concatenate([chosen, others[spread]]))


def _telling(column: pa.Array) -> Iterator[int]:
    """Positions of rows that show what others do not, the rarest first."""
    if column.null_count:
        yield pc.index(column.is_null(), True).as_py()
    if pa.types.is_nested(column.type) or column.null_count == len(column):
        return
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        yield from _first(column, pc.min_max(column).values())
        return
    texts = column.cast(pa.string())
    counts = texts.drop_null().value_counts()
    rarest = pc.sort_indices(counts.field("counts"), sort_keys=[("", "ascending")]).slice(0, RARE)
    words = [*_first(texts, counts.field("values").take(rarest))]
    lengths = pc.utf8_length(texts)
    yield from words[:1]
    yield from _first(lengths, pc.min_max(lengths).values())
    yield from words[1:]


def _first(column: pa.Array, values: "Iterator[pa.Scalar] | pa.Array") -> Iterator[int]:
    """Where each value first occurs."""
    for value in values:
        yield pc.index(column, value).as_py()
