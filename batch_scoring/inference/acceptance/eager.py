"""A network's own outputs: one plain forward pass in eager torch, independent of the scorer.

The scorer's outputs are compared with these: no grid, no padding, no packed layers, and a separate encoding of the
rows. It is meant for the rows of a bundle, not of a day.
"""

import bisect
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.errors import UnsoundError, is_out_of_memory
from batch_scoring.inference.inputs import parameters
from batch_scoring.inference.inputs.encoded import GRID
from batch_scoring.inference.inputs.own_encoder import OwnEncoder, checked
from batch_scoring.inference.inputs.ragged import widths
from batch_scoring.inference.inputs.texts import MOST_CHARACTERS, read_tokenizer
from batch_scoring.inference.inputs.transform import whole
from batch_scoring.inference.manifest import LoadedModel, Text

if TYPE_CHECKING:
    import torch

OWN_BYTES = 64 * 1024**2
"""Size of the arrays of the pipeline's own encoder that are made at once."""

ROWS = 16_384
"""Rows of one forward pass, at most, or tokens: a reference may have many."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of a network for some rows, by name."""

    matrices: dict[str, np.ndarray]
    """Those of one shape in all rows."""
    tokens: tuple[tuple[int, ...], ...] | None = None
    """The ids of each row's text, for a model of texts."""
    text: Text | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.matrices.values())))

    def take(self, order: np.ndarray) -> "Inputs":
        """The rows at some positions."""
        matrices = {name: values[order] for name, values in self.matrices.items()}
        return Inputs(matrices, self.tokens and tuple(self.tokens[row] for row in order), self.text)

    def replace(self, **matrices: np.ndarray) -> "Inputs":
        """The rows with other values in some matrices."""
        return Inputs({**self.matrices, **matrices}, self.tokens, self.text)

    def replace_tokens(self, tokens: Iterable[tuple[int, ...]]) -> "Inputs":
        """The rows with other texts."""
        return Inputs(self.matrices, tuple(tokens), self.text)

    def followed_by(self, other: "Inputs") -> "Inputs":
        """These rows, then those of another one."""
        both = {name: np.concatenate([values, other.matrices[name]]) for name, values in self.matrices.items()}
        return Inputs(both, self.tokens and (*self.tokens, *(other.tokens or ())), self.text)

    @property
    def names(self) -> list[str]:
        """The inputs that there are."""
        return [*self.matrices, *(["tokens"] if self.text else [])]

    @property
    def filled(self) -> list[str]:
        """Those that have columns."""
        columns = [name for name, values in self.matrices.items() if 0 not in values.shape[1:]]
        return [*columns, *(["tokens"] if self.text else [])]

    def blocks(self, *, wider: int = 0) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yield positions of rows that pass together, with their inputs.

        Texts of one width pass together, in multiples of the scorer's grid: padded with the last of them.

        Args:
            wider: by how many widths more than needed to pad a text.
        """
        if self.tokens is None or self.text is None:
            for start in range(0, len(self), ROWS):
                order = np.arange(start, min(start + ROWS, len(self)))
                yield order, {name: values[order] for name, values in self.matrices.items()}
            return
        steps = widths(self.text.longest, exact=self.text.exact).tolist()
        needed = [bisect.bisect_left(steps, len(ids)) + wider for ids in self.tokens]
        for step in sorted(set(needed)):
            alike = [row for row, each in enumerate(needed) if each == step]
            most = max(GRID, ROWS // steps[step] // GRID * GRID)
            for start in range(0, len(alike), most):
                order = np.array(alike[start : start + most])
                on_grid = np.append(order, np.full(-len(order) % GRID, order[-1]))
                tokens = np.array([_filled(self.tokens[row], steps[step], self.text.padding) for row in on_grid])
                yield order, {name: values[on_grid] for name, values in self.matrices.items()} | {"tokens": tokens}


def _filled(ids: tuple[int, ...], width: int, padding: int) -> list[int]:
    return [*ids, *[padding] * (width - len(ids))]


def outputs(model: LoadedModel, rows: pa.Table) -> np.ndarray:
    """The network's outputs (logits or values), float32[rows, outputs].

    Raises:
        UnsoundError: a column is missing or of another type, the network raises, or its output has another shape.
    """
    at_once = max(rows.num_rows, 1) if not model.encode else max(GRID, OWN_BYTES // max(model.encode.row_bytes, 1))
    parts = [np.empty((0, model.manifest.outputs), np.float32)]
    for start in range(0, rows.num_rows, at_once):
        parts.append(forward(model.network, inputs(model, rows.slice(start, at_once)), model.manifest.outputs))
    return np.concatenate(parts)


def inputs(model: LoadedModel, rows: pa.Table) -> Inputs:
    """`numeric` float32[rows, n] with NaN for missing values, `categorical` int64[rows, c], 0 if unknown or missing.

    And the ids of each row's text, for a model of texts.

    Raises:
        UnsoundError: a column is missing or of another type.
    """
    manifest = model.manifest
    if absent := [name for name in manifest.features if name not in rows.column_names]:
        raise UnsoundError(f"there is no column {', '.join(absent)}; there are {', '.join(rows.column_names)}")
    numeric = np.empty((rows.num_rows, len(manifest.numeric)), np.float32)
    for index, name in enumerate(manifest.numeric):
        numeric[:, index] = _numbers(name, rows[name])
    categorical = np.empty((rows.num_rows, len(manifest.categorical)), np.int64)
    for index, (name, vocabulary) in enumerate(manifest.categorical.items()):
        codes: dict[str | None, int] = {word: code for code, word in enumerate(vocabulary, 1)}
        categorical[:, index] = [codes.get(word, 0) for word in texts(name, rows[name]).to_pylist()]
    matrices = {"numeric": numeric, "categorical": categorical}
    if manifest.vectors:
        matrices["vectors"] = np.column_stack([_lists(rows[name], size) for name, size in manifest.vectors.items()])
    matrices |= _own(model, rows)
    if manifest.text is None:
        return Inputs(matrices)
    return Inputs(matrices, _tokens(manifest.text, model.tokenizer or b"", rows), manifest.text)


def _lists(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """A list column, one list at a time; NaN for a missing one, or a missing number."""
    found = np.full((len(column), size), np.nan, np.float32)
    for row, cell in enumerate(column.to_pylist()):
        if cell is not None:
            if len(cell) != size:
                raise UnsoundError(f"a list has {len(cell)} numbers, expected {size}")
            found[row] = [np.nan if number is None else number for number in cell]
    return found


def _own(model: LoadedModel, rows: pa.Table) -> dict[str, np.ndarray]:
    """What the pipeline's own encoder gives, one row at a time."""
    if not isinstance(model.encode, OwnEncoder):
        return {}
    encoder, parts = model.encode, []
    raw = encoder.input(whole(rows))
    for row in (raw.slice(start, 1) for start in range(raw.num_rows)):
        try:
            parts.append(checked(encoder.function(row, encoder.fitted), 1))
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise UnsoundError(f"features.encode raises {summary(error)}") from error
    blank = encoder.blank(0)
    return {name: np.concatenate([blank[name], *(part[name] for part in parts)]) for name in blank}


def _tokens(text: Text, tokenizer: bytes, rows: pa.Table) -> tuple[tuple[int, ...], ...]:
    """The ids of each row's text, one text at a time."""
    reader = read_tokenizer(tokenizer, text.longest)
    columns = [texts(name, rows[name]).to_pylist() for name in text.columns]
    joined = ("\n".join(part or "" for part in parts)[:MOST_CHARACTERS] for parts in zip(*columns, strict=True))
    return tuple(tuple(reader.encode(whole).ids) or (text.unknown,) for whole in joined)


def texts(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A categorical column as text.

    Raises:
        UnsoundError: it cannot be text.
    """
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise UnsoundError(f"column {name} is {column.type}; expected text") from error


def forward(network: "torch.nn.Module", given: Inputs, width: int, *, wider: int = 0) -> np.ndarray:
    """The network's outputs for some inputs, float32[rows, width]; `wider`: as for `Inputs.blocks`.

    Raises:
        UnsoundError: its parameters are not the inputs', it raises, or its output has another shape.
    """
    import torch

    names = parameters.order(network.forward, given.names, given.filled)
    found = np.empty((len(given), width), np.float32)
    with one_thread(), torch.inference_mode():
        for order, block in given.blocks(wider=wider):
            # a network may overwrite its inputs; and results are equal only in equally aligned memory
            tensors = [torch.from_numpy(block[name]).clone() for name in names]
            try:
                result = network(*tensors)
            except Exception as error:
                if is_out_of_memory(error):
                    raise  # the machine's fault, not the network's
                raise UnsoundError(f"the network raises {summary(error)}") from error
            found[order] = _checked(result, (len(tensors[0]), width))[: len(order)]
    return found


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
