"""Inputs that the pipeline's own function makes of rows: images, spectra, whatever is one array a row.

    def encode(rows: pa.RecordBatch, fitted: dict) -> dict:     # {"image": float32[rows, 3, 32, 32]}

It gets the raw columns and what `fit` has learned, as a transform does. A row for which it raises is found by halves.
`acceptance/functions/own_encoders.py` proves that what it gives for a row depends on that row alone.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa

from batch_scoring.errors import ScoringError, is_out_of_memory
from batch_scoring.inference.manifest import ArrayInput, BrokenRow

Function = Callable[[pa.RecordBatch, Any], object]

NAME = "features.encode"
"""The function as messages name it: by the field of the spec."""

MOST_RAISING = 100
"""Rows of one record batch for which it may raise; more of them mean a broken function, not broken rows."""

TYPES = ("float32", "int64", "int32", "uint8", "bool")
"""Types of arrays that networks take. float64 would double what they compute; uint8 is for images."""


@dataclass(frozen=True)
class OwnEncoder:
    """A function with its fitted state and the arrays it gives."""

    function: Function
    fitted: Mapping[str, Any]
    reads: pa.Schema
    """The raw columns, in the order and the types in which the function gets them."""
    gives: Mapping[str, ArrayInput]

    @classmethod
    def learn(cls, function: Function, fitted: Mapping[str, Any], rows: pa.RecordBatch) -> Self:
        """Learn which arrays the function gives, from rows of the training data.

        Raises:
            ScoringError: it raises for one of them, or returns something else than arrays with a row for each row.
        """
        first = cls(function, fitted, rows.schema.remove_metadata(), {})
        try:
            found = first._called(rows)
        except ScoringError:
            raise
        except Exception as error:  # whatever a user's function may raise
            raise ScoringError(f"{NAME} raises for the golden rows: {_summary(error)}") from error
        gives = {
            name: ArrayInput.model_validate({"shape": values.shape[1:], "type": str(values.dtype)})
            for name, values in found.items()
        }
        return cls(function, fitted, first.reads, gives)

    @property
    def row_bytes(self) -> int:
        """Size of a row's arrays."""
        return sum(int(np.prod(each.shape)) * np.dtype(each.type).itemsize for each in self.gives.values())

    def blank(self, rows: int) -> dict[str, np.ndarray]:
        """Zeros for some rows."""
        return {name: np.zeros((rows, *each.shape), each.type) for name, each in self.gives.items()}

    def encode(self, batch: pa.RecordBatch, found: Mapping[str, np.ndarray]) -> list[BrokenRow]:
        """Fill arrays of at least as many rows; return the rows for which the function raises, which stay zero.

        Raises:
            ScoringError: it returns other arrays than when the bundle was written, or raises for more than
                `MOST_RAISING` rows.
        """
        failed: list[BrokenRow] = []
        for start, arrays in self._halved(self.input(batch), 0, failed):
            for name, values in arrays.items():
                found[name][start : start + len(values)] = values
        return failed

    def input(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The raw columns, in their types."""
        columns = []
        for field in self.reads:
            values = batch.column(field.name)
            try:
                columns.append(values if values.type == field.type else values.cast(field.type))
            except pa.ArrowException as error:
                raise ScoringError(
                    f"column {field.name} is {values.type}, and {NAME} has got it as {field.type} when the bundle was "
                    f"written: {_summary(error)}"
                ) from error
        return pa.RecordBatch.from_arrays(columns, schema=self.reads)

    def _halved(
        self, rows: pa.RecordBatch, start: int, failed: list[BrokenRow]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yield where arrays begin, and the arrays, for all rows for which the function does not raise."""
        if not rows.num_rows:
            return
        try:
            arrays = self._called(rows)
        except ScoringError:
            raise
        except Exception as error:  # whatever a user's function may raise
            if is_out_of_memory(error):
                raise  # the machine's fault, not the row's
            if rows.num_rows > 1:
                half = rows.num_rows // 2
                yield from self._halved(rows.slice(0, half), start, failed)
                yield from self._halved(rows.slice(half), start + half, failed)
                return
            failed.append(BrokenRow(start, "encode_raises", "", _summary(error)))
            if len(failed) > MOST_RAISING:
                raise ScoringError(
                    f"{NAME} raises for more than {MOST_RAISING} rows of a record batch: the function is at fault; "
                    f"for one of them: {failed[0].detail}"
                ) from error
            return
        if (found := described(arrays)) != (wanted := declared(self.gives)):
            raise ScoringError(
                f"{NAME} returned {found}; when the bundle was written, {wanted}: give every row one shape and type"
            )
        yield start, arrays

    def _called(self, rows: pa.RecordBatch) -> dict[str, np.ndarray]:
        return checked(self.function(rows, self.fitted), rows.num_rows)


def checked(result: object, rows: int) -> dict[str, np.ndarray]:
    """What a function returned, as arrays with a row for each row.

    Raises:
        ScoringError: it is something else.
    """
    if not isinstance(result, Mapping) or not result or not all(isinstance(name, str) for name in result):
        raise ScoringError(
            f"{NAME} returned a {type(result).__name__}; expected a dict of arrays by the names of forward's parameters"
        )
    found = {}
    for name, values in result.items():
        try:
            array = np.asarray(values)  # also of a torch tensor on the CPU
        except Exception as error:
            raise ScoringError(f"{NAME} returned {name}, which is no array: {_summary(error)}") from error
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        if str(array.dtype) not in TYPES or array.ndim < 1:
            raise ScoringError(
                f"{NAME} returned {name} as {array.dtype} with the shape {list(array.shape)}; expected numbers "
                f"({', '.join(TYPES)}) with a row for each row, all of one shape"
            )
        if len(array) != rows:
            raise ScoringError(f"{NAME} returned {len(array)} rows of {name} for {rows} rows; expected one for each")
        found[name] = array
    return found


def described(arrays: Mapping[str, np.ndarray]) -> str:
    """Arrays in words."""
    return ", ".join(f"{name} {arrays[name].dtype}[rows{_shape(arrays[name].shape[1:])}]" for name in sorted(arrays))


def declared(gives: Mapping[str, ArrayInput]) -> str:
    """What a manifest says about arrays, in the same words."""
    return ", ".join(f"{name} {gives[name].type}[rows{_shape(gives[name].shape)}]" for name in sorted(gives))


def _shape(shape: tuple[int, ...]) -> str:
    return "".join(f", {size}" for size in shape)


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
