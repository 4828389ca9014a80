"""The groups of rows that have equal values in a column."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MOST_NAMED = 200
"""Maximum number of groups that are counted by value. With more, the values are those of people, not of segments: they
do not belong into statistics, and the largest count is enough to see that a cap holds."""

NO_VALUE = "(no value)"
"""How the group of rows without a value is called among the counts."""


Encoded = tuple[np.ndarray, pa.Array]
"""int32[rows], the number of each row's group, and the values by number; the last group has no value."""


class GroupColumn:
    """A column, encoded a batch at a time."""

    def __init__(self) -> None:
        self._parts: list[pa.DictionaryArray] = []

    def add(self, column: pa.Array) -> None:
        """Append the column of a batch."""
        dense = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        if pa.types.is_floating(dense.type):
            dense = pc.add(dense, pa.scalar(0.0, dense.type))  # -0.0 equals 0.0, and has another code
        self._parts.append(dense.dictionary_encode())

    def encoded(self) -> Encoded:
        """Return the whole column."""
        if not self._parts:
            return np.zeros(0, np.int32), pa.array([NO_VALUE])
        parts = pa.chunked_array(self._parts).unify_dictionaries().chunks
        values = parts[0].dictionary
        codes = np.concatenate([part.indices.fill_null(len(values)).to_numpy() for part in parts])
        return codes, pa.concat_arrays([values.cast(pa.string()), pa.array([NO_VALUE])])


def encoded(column: pa.ChunkedArray) -> Encoded:
    """Return a column encoded."""
    groups = GroupColumn()
    for chunk in column.chunks:
        groups.add(chunk)
    return groups.encoded()


def counts(rows: np.ndarray, codes: np.ndarray, values: pa.Array) -> dict[str, int]:
    """Return the number of rows by value of a column, the largest groups first; of many groups only the largest count.

    Args:
        rows: positions of the rows that count.
        codes: number of every row's group.
        values: the values by number.
    """
    numbers = np.bincount(codes[rows], minlength=len(values))
    filled = np.flatnonzero(numbers)
    if len(filled) > MOST_NAMED:
        return {f"(largest of {len(filled)} groups)": int(numbers.max())}
    named = zip(numbers[filled].tolist(), values.take(pa.array(filled)).to_pylist(), strict=True)
    found: dict[str, int] = {}
    for count, value in sorted(named, key=lambda pair: (-pair[0], pair[1])):
        found.setdefault(value, count)  # a value may be called as the group without one is
    return found
