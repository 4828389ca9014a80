"""Columns of lists, such as embeddings of another model, as one matrix."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.inference.inputs.encoded import FailedRow
from batch_scoring.inference.inputs.tabular import numbers


class Vectors:
    """List columns as float32[rows, n], one after the other; NaN where a list or one of its numbers is missing."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        """`sizes`: how many numbers each column has."""
        self.sizes = dict(sizes)

    @property
    def width(self) -> int:
        """Numbers of all columns."""
        return sum(self.sizes.values())

    def encode(self, batch: pa.RecordBatch, found: np.ndarray) -> list[FailedRow]:
        """Fill float32[at least rows, n]; return the rows whose lists have another length, or hold infinity."""
        failed: dict[int, FailedRow] = {}
        start = 0
        for name, size in self.sizes.items():
            column = batch.column(name)
            lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
            is_whole = lengths == size
            block = found[: batch.num_rows, start : start + size]
            block[~is_whole] = np.nan
            whole = column if is_whole.all() else column.filter(pa.array(is_whole))
            with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite
                block[is_whole] = _flat(whole).reshape(-1, size)
            for row in np.flatnonzero(~is_whole & (lengths >= 0)):
                detail = f"{name} has {lengths[row]} numbers, expected {size}"
                failed.setdefault(int(row), FailedRow(int(row), "input_has_size", detail))
            for row in np.flatnonzero(np.isinf(block).any(axis=1)):
                detail = f"{name} has a number beyond float32"
                failed.setdefault(int(row), FailedRow(int(row), "input_is_finite", detail))
            start += size
        return list(failed.values())


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _flat(column: pa.Array) -> np.ndarray:
    """The numbers of all lists; NaN where one is missing."""
    return np.asarray(numbers(column.flatten()), np.float32)
