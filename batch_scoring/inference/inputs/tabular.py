"""Numbers and categories of a table as matrices."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.inference.inputs.encoded import FailedRow, Tensors


class Tabular:
    """Numeric columns as float32[rows, n], NaN if missing; categorical ones as int64[rows, c], 0 if unknown."""

    def __init__(self, numeric: Sequence[str], categorical: Mapping[str, Sequence[str]]) -> None:
        """`categorical`: the vocabulary of each column."""
        self.numeric = tuple(numeric)
        self._vocabularies = {name: pa.array(words, pa.string()) for name, words in categorical.items()}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return (*self.numeric, *self._vocabularies)

    def blank(self, rows: int) -> Tensors:
        """Zeros for some rows."""
        return {
            "numeric": np.zeros((rows, len(self.numeric)), np.float32),
            "categorical": np.zeros((rows, len(self._vocabularies)), np.int64),
        }

    def encode(self, batch: pa.RecordBatch, tensors: Tensors) -> dict[str, dict[str, int]]:
        """Fill matrices of at least as many rows; return counts of unknown values by column."""
        rows = batch.num_rows
        with np.errstate(over="ignore"):  # `infinite` finds the rows
            for index, name in enumerate(self.numeric):
                tensors["numeric"][:rows, index] = numbers(batch.column(name))
        unknown: dict[str, dict[str, int]] = {}
        for index, (name, vocabulary) in enumerate(self._vocabularies.items()):
            found, strange = codes(batch.column(name), vocabulary)
            tensors["categorical"][:rows, index] = found
            if strange:
                unknown[name] = strange
        return unknown

    def infinite(self, batch: pa.RecordBatch, numeric: np.ndarray) -> list[FailedRow]:
        """Rows with a value that is infinite as float32."""
        rows = numeric[: batch.num_rows]
        if not np.isinf(rows).any():
            return []
        found: dict[int, FailedRow] = {}
        for row, column in zip(*np.nonzero(np.isinf(rows)), strict=True):
            name = self.numeric[column]
            detail = f"{name} is {batch.column(name)[int(row)].as_py()}, beyond float32"
            found.setdefault(int(row), FailedRow(int(row), "input_is_finite", detail))
        return list(found.values())


def numbers(column: pa.Array) -> np.ndarray:
    """A numeric column as NumPy array, NaN for missing values, without `to_numpy`'s loop over rows if some are missing.

    Integers are rounded to float32 directly, as they are if none is missing; `to_numpy` would make them float64.
    """
    if not column.null_count or pa.types.is_null(column.type):
        values: np.ndarray = column.to_numpy(zero_copy_only=False)
        return values
    if pa.types.is_floating(column.type):
        return numbers(pc.fill_null(column, float("nan")))
    filled = pc.fill_null(column, pa.scalar(0).cast(column.type)).to_numpy(zero_copy_only=False)
    return np.where(column.is_null().to_numpy(zero_copy_only=False), np.float32("nan"), filled.astype(np.float32))


def codes(column: pa.Array, vocabulary: pa.Array) -> tuple[np.ndarray, dict[str, int]]:
    """int64 codes (position in the vocabulary + 1, 0 if unknown or missing) and the counts of unknown values."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    words = column.dictionary.cast(pa.string())
    code_of = np.zeros(len(words) + 1, np.int64)  # the last place is that of a missing value
    code_of[:-1] = pc.fill_null(pc.index_in(words, value_set=vocabulary), -1).to_numpy() + 1
    places = pc.fill_null(column.indices.cast(pa.int64()), len(words)).to_numpy()
    strange = np.flatnonzero(code_of[:-1] == 0)
    counts = np.bincount(places, minlength=len(words) + 1) if len(strange) else None
    unknown = {str(words[int(place)]): int(counts[place]) for place in strange if counts is not None and counts[place]}
    return code_of[places], unknown
