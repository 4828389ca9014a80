"""A network's own outputs: one plain forward pass in eager torch, independent of the scorer.

The scorer's outputs are compared with these: no grid, no padding, no packed layers, and a separate encoding of the
rows. It is meant for the rows of a bundle, not of a day.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.errors import UnsoundError, is_out_of_memory
from batch_scoring.inference.manifest import Manifest

if TYPE_CHECKING:
    import torch

ROWS = 16_384
"""Rows of one forward pass, at most: a reference may have many."""


def outputs(network: "torch.nn.Module", manifest: Manifest, rows: pa.Table) -> np.ndarray:
    """The network's outputs (logits or values), float32[rows, outputs].

    Raises:
        UnsoundError: a column is missing or of another type, the network raises, or its output has another shape.
    """
    return forward(network, *matrices(manifest, rows), manifest.outputs)


def matrices(manifest: Manifest, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """float32[rows, n] with NaN for missing values, int64[rows, c] with 0 for unknown or missing ones.

    Raises:
        UnsoundError: a column is missing or of another type.
    """
    if absent := [name for name in manifest.features if name not in rows.column_names]:
        raise UnsoundError(f"there is no column {', '.join(absent)}; there are {', '.join(rows.column_names)}")
    numeric = np.empty((rows.num_rows, len(manifest.numeric)), np.float32)
    for index, name in enumerate(manifest.numeric):
        numeric[:, index] = _numbers(name, rows[name])
    categorical = np.empty((rows.num_rows, len(manifest.categorical)), np.int64)
    for index, (name, vocabulary) in enumerate(manifest.categorical.items()):
        codes: dict[str | None, int] = {word: code for code, word in enumerate(vocabulary, 1)}
        categorical[:, index] = [codes.get(word, 0) for word in texts(name, rows[name]).to_pylist()]
    return numeric, categorical


def texts(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A categorical column as text.

    Raises:
        UnsoundError: it cannot be text.
    """
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise UnsoundError(f"column {name} is {column.type}; expected text") from error


def forward(network: "torch.nn.Module", numeric: np.ndarray, categorical: np.ndarray, width: int) -> np.ndarray:
    """The network's outputs for its two inputs, float32[rows, width].

    Raises:
        UnsoundError: the network raises, or its output has another shape.
    """
    import torch

    parts = [np.empty((0, width), np.float32)]
    with one_thread(), torch.inference_mode():
        for start in range(0, len(numeric), ROWS):
            # a network may overwrite its inputs; and results are equal only in equally aligned memory
            inputs = [torch.from_numpy(matrix[start : start + ROWS]).clone() for matrix in (numeric, categorical)]
            try:
                result = network(*inputs)
            except Exception as error:
                if is_out_of_memory(error):
                    raise  # the machine's fault, not the network's
                raise UnsoundError(f"the network raises {summary(error)}") from error
            parts.append(_checked(result, (len(inputs[0]), width)))
    return np.concatenate(parts)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread, as the scorer does: sums then have one order on every machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def summary(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


def _checked(result: object, expected: tuple[int, int]) -> np.ndarray:
    import torch

    if not isinstance(result, torch.Tensor):
        raise UnsoundError(f"the network returns a {type(result).__name__}; expected one tensor of shape {expected}")
    if not result.is_floating_point():
        raise UnsoundError(f"the network returns numbers of {result.dtype}; expected torch.float32")
    if expected[1] == 1 and result.ndim < 2 and result.numel() == expected[0]:  # after squeeze()
        result = result.reshape(expected)
    if tuple(result.shape) != expected:
        raise UnsoundError(
            f"the network's output has shape {tuple(result.shape)} for {expected[0]} rows; expected {expected}: a row "
            "for each row, a column for each output (one logit for two classes: say logits: 1)"
        )
    values: np.ndarray = result.float().numpy()
    return values


def _numbers(name: str, column: pa.ChunkedArray) -> np.ndarray:
    """A numeric column as float32; integers are rounded once, whether or not values are missing."""
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise UnsoundError(f"column {name} is {kind}; expected numbers")
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite; the row is reported elsewhere
        values: np.ndarray = pc.fill_null(column, 0).to_numpy().astype(np.float32)
    if column.null_count:
        values[pc.is_null(column).to_numpy()] = np.nan
    return values
