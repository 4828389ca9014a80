"""The words of categorical columns, and the length of vectors, as the training rows have them."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.errors import UnsoundError

MOST_WORDS = 10_000
"""Words of a vocabulary, the most frequent ones."""


def vocabularies(
    rows: pa.Table, columns: Sequence[str], given: Mapping[str, Sequence[str]] | None = None
) -> dict[str, list[str]]:
    """The words of each categorical column, sorted.

    Args:
        rows: of the training data.
        columns: the categorical ones.
        given: words that the training code has chosen itself, by column.

    Raises:
        UnsoundError: words are given for another column, or a column has no value.
    """
    given = given or {}
    if strange := [name for name in given if name not in columns]:
        raise UnsoundError(
            f"vocabularies are given for {', '.join(strange)}; features.categorical of the spec names "
            f"{', '.join(columns) or 'no columns'}"
        )
    return {name: [*given[name]] if name in given else _words(name, rows[name]) for name in columns}


def _words(name: str, column: pa.ChunkedArray) -> list[str]:
    counts = column.cast(pa.string()).value_counts().to_pylist()
    found = sorted((-each["counts"], each["values"]) for each in counts if each["values"] is not None)
    if not found:
        raise UnsoundError(
            f"{name} has no value in the sample; leave it out of features.categorical, or give its words"
        )
    return sorted(word for _, word in found[:MOST_WORDS])


def vector_sizes(rows: pa.Table, columns: Sequence[str]) -> dict[str, int]:
    """How many numbers the lists of each column have: as many as most of them.

    Raises:
        UnsoundError: no list of a column has any.
    """
    found: dict[str, int] = {}
    for name in columns:
        counts = pc.list_value_length(rows[name]).value_counts().to_pylist()
        sizes = {each["values"]: each["counts"] for each in counts if each["values"]}
        if not sizes:
            raise UnsoundError(f"{name} has no list of numbers in the sample; leave it out of features.vectors")
        found[name] = max(sizes, key=lambda size: (sizes[size], size))
    return found
