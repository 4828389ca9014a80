"""A network's own outputs: one plain forward pass in eager torch, independent of the scorer.

The scorer's outputs are compared with these: no grid, no padding, no packed layers, and a separate encoding of the
rows. It is meant for the rows of a bundle, not of a day.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.errors import UnsoundError, is_out_of_memory
from batch_scoring.inference.inputs import parameters
from batch_scoring.inference.manifest import LoadedModel, Manifest

if TYPE_CHECKING:
    import torch

ROWS = 16_384
"""Rows of one forward pass, at most: a reference may have many."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of a network for some rows, by name."""

    matrices: dict[str, np.ndarray]

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.matrices.values())))

    def take(self, order: np.ndarray) -> "Inputs":
        """The rows at some positions."""
        return Inputs({name: values[order] for name, values in self.matrices.items()})

    def replace(self, **matrices: np.ndarray) -> "Inputs":
        """The rows with other values in some matrices."""
        return Inputs({**self.matrices, **matrices})

    def followed_by(self, other: "Inputs") -> "Inputs":
        """These rows, then those of another one."""
        return Inputs({name: np.concatenate([values, other.matrices[name]]) for name, values in self.matrices.items()})

    @property
    def filled(self) -> list[str]:
        """Those inputs that have columns."""
        return [name for name, values in self.matrices.items() if values[:1].size or values.shape[1:] != (0,)]


def outputs(model: LoadedModel, rows: pa.Table) -> np.ndarray:
    """The network's outputs (logits or values), float32[rows, outputs].

    Raises:
        UnsoundError: a column is missing or of another type, the network raises, or its output has another shape.
    """
    return forward(model.network, inputs(model.manifest, rows), model.manifest.outputs)


def inputs(manifest: Manifest, rows: pa.Table) -> Inputs:
    """`numeric` float32[rows, n] with NaN for missing values, `categorical` int64[rows, c], 0 if unknown or missing.

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
    return Inputs({"numeric": numeric, "categorical": categorical})


def texts(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A categorical column as text.

    Raises:
        UnsoundError: it cannot be text.
    """
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise UnsoundError(f"column {name} is {column.type}; expected text") from error


def forward(network: "torch.nn.Module", given: Inputs, width: int) -> np.ndarray:
    """The network's outputs for some inputs, float32[rows, width].

    Raises:
        UnsoundError: its parameters are not the inputs', it raises, or its output has another shape.
    """
    import torch

    parts = [np.empty((0, width), np.float32)]
    with one_thread(), torch.inference_mode():
        for start in range(0, len(given), ROWS):
            passed = tensors(network, given.take(np.arange(start, min(start + ROWS, len(given)))))
            try:
                result = network(*passed)
            except Exception as error:
                if is_out_of_memory(error):
                    raise  # the machine's fault, not the network's
                raise UnsoundError(f"the network raises {summary(error)}") from error
            parts.append(_checked(result, (len(passed[0]), width)))
    return np.concatenate(parts)


def tensors(network: "torch.nn.Module", given: Inputs) -> "list[torch.Tensor]":
    """Copies of the inputs, in the order of the network's parameters.

    A network may overwrite its inputs; and results are equal only in equally aligned memory.

    Raises:
        UnsoundError: its parameters are not the inputs'.
    """
    import torch

    names = parameters.order(network.forward, given.matrices, given.filled)
    return [torch.from_numpy(given.matrices[name]).clone() for name in names]


def scores(manifest: Manifest, found: np.ndarray) -> dict[str, pa.Array]:
    """The columns of predictions, by name, from float32[rows, outputs]."""
    import torch

    if manifest.task == "regression":
        return {"prediction": pa.array(found[:, 0].astype(np.float64))}
    probabilities = torch.softmax(torch.from_numpy(found), dim=1).numpy()
    columns = {
        "prediction": pa.array(found.argmax(axis=1), pa.int64()),
        "prediction_proba": pa.array(probabilities.max(axis=1)),
    }
    return columns | {f"prob_class_{index}": pa.array(column) for index, column in enumerate(probabilities.T)}


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
    if tuple(result.shape) != expected:
        raise UnsoundError(
            f"the network's output has shape {tuple(result.shape)} for {expected[0]} rows; expected {expected}: a row "
            "for each row, a logit for each class (a regression: one column, without squeeze())"
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
