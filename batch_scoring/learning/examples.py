"""Rows with the inputs that the network gets for them, as training code wants them."""

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.inputs.ragged import Ragged, by_width
from batch_scoring.inference.inputs.texts import Texts
from batch_scoring.inference.inputs.transform import whole
from batch_scoring.learning.state import LearnedState, Prepared

if TYPE_CHECKING:
    import torch

_FORWARD_ROWS = 1_024
"""Rows of a forward pass of `Examples.outputs`."""


class Examples:
    """Rows of a sample with the inputs that the network gets for them."""

    def __init__(self, state: LearnedState, prepared: Prepared) -> None:
        self._state, self._prepared = state, prepared
        self._parameters: dict[str, str] | None = None
        """The inputs by the names of the network's parameters, once they are known."""

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.rows.num_rows)

    @property
    def rows(self) -> pa.Table:
        """The accepted rows with all their columns, the label and engineered features among them."""
        return self._prepared.rows

    @property
    def rejected(self) -> pa.Table:
        """The other rows with their reasons, as in the quarantine."""
        return self._prepared.rejected

    @functools.cached_property
    def tensors(self) -> "dict[str, torch.Tensor]":
        """The inputs of all rows by the names of forward's parameters; texts are padded to the longest of them."""
        return self._tensors(np.arange(len(self)), max(self._widths, default=0))

    def labels(self, column: str, classes: Sequence[object] | None = None) -> "torch.Tensor":
        """A column as what the network shall give.

        Args:
            column: of the rows.
            classes: the values in the order of the network's outputs. Without them, the column's numbers.

        Returns:
            int64[rows], positions of the classes; or float32[rows].

        Raises:
            UnsoundError: there is no such column, or a row has no value, or another one than the classes.
        """
        import torch

        if column not in self.rows.column_names:
            raise UnsoundError(f"the sample has no column {column}; it has {', '.join(self.rows.column_names)}")
        values = self.rows[column].combine_chunks()
        if values.null_count:
            raise UnsoundError(
                f"{values.null_count} of {len(self)} rows have no {column}; leave them out of the sample"
            )
        if classes is None:
            return torch.from_numpy(_numbers(values, column).astype(np.float32))
        known = {str(each): code for code, each in enumerate(classes)} | {
            each: code for code, each in enumerate(classes)
        }
        codes = [known.get(value, known.get(str(value))) for value in values.to_pylist()]
        if None in codes:
            strange = sorted(
                {str(value) for value, code in zip(values.to_pylist(), codes, strict=True) if code is None}
            )
            raise UnsoundError(
                f"{column} has {', '.join(map(repr, strange[:5]))}; the classes are {', '.join(map(repr, classes))}"
            )
        return torch.tensor(codes)

    def batches(self, size: int, *, seed: int = 0) -> "Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]":
        """Yield all rows once, shuffled; texts of one batch are padded to one width.

        Args:
            size: rows of a batch, at most.
            seed: of the order; give each epoch another one.

        Yields:
            The inputs of some rows, as in `tensors`, and int64[rows], their positions among all rows.
        """
        random = np.random.default_rng(seed)
        parts = [part for group in self._by_width() for part in _pieces(random.permutation(group[1]), size, group[0])]
        for place in random.permutation(len(parts)):
            yield self._batch(*parts[place])

    def outputs(self, network: "torch.nn.Module") -> "torch.Tensor":
        """The network's outputs for all rows, in their order and in evaluation mode: float32[rows, outputs]."""
        import torch

        was_training, device = network.training, next((one.device for one in network.parameters()), None)
        network.eval()
        found, order = [], []
        with torch.inference_mode():
            for width, group in self._by_width():
                for part in _pieces(group, _FORWARD_ROWS, width):
                    tensors, rows = self._batch(*part)
                    result = network(**{name: values.to(device) for name, values in tensors.items()})
                    found.append(result.float().cpu().reshape(len(rows), -1))
                    order.append(rows)
        network.train(was_training)
        return torch.cat(found)[torch.cat(order).argsort()]

    @functools.cached_property
    def _tokens(self) -> tuple[Texts, Ragged] | None:
        texts = self._state.texts()
        return (texts, texts.encode(whole(self.rows.select(texts.text.columns)))) if texts else None

    def _by_width(self) -> list[tuple[int, np.ndarray]]:
        """The rows in groups whose inputs have one shape: the width of their texts, and their positions."""
        if self._tokens is None:
            return [(0, np.arange(len(self)))]
        texts, ids = self._tokens
        return list(by_width(ids.lengths, texts.widths))

    @property
    def _widths(self) -> list[int]:
        return [width for width, _ in self._by_width()]

    def _batch(self, width: int, positions: np.ndarray) -> "tuple[dict[str, torch.Tensor], torch.Tensor]":
        import torch

        return self._tensors(positions, width), torch.from_numpy(positions)

    def _tensors(self, positions: np.ndarray, width: int) -> "dict[str, torch.Tensor]":
        import torch

        inputs = {name: values[positions] for name, values in self._prepared.inputs.items()}
        if self._tokens:
            texts, ids = self._tokens
            inputs["tokens"] = ids.matrix(positions, len(positions), width, texts.text.padding)
        if self._parameters is None:
            self._parameters = self._state.parameters(inputs)
        return {name: torch.from_numpy(inputs[own]) for name, own in self._parameters.items()}


def _numbers(values: pa.Array, column: str) -> np.ndarray:
    try:
        found: np.ndarray = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return found
    except pa.ArrowException as error:
        raise UnsoundError(
            f"{column} is {values.type}; expected numbers, or the classes that its values mean"
        ) from error


def _pieces(positions: np.ndarray, size: int, width: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(positions), size):
        yield width, positions[start : start + size]
