"""The encoder of a model: from a record batch to the inputs of its network, by name."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from batch_scoring.errors import ScoringError
from batch_scoring.inference.inputs.encoded import Encoded, Group, Tensors, pad, padded, single, taken
from batch_scoring.inference.inputs.ragged import by_width
from batch_scoring.inference.inputs.tabular import Tabular
from batch_scoring.inference.inputs.texts import Texts

if TYPE_CHECKING:
    from batch_scoring.inference.manifest import LoadedModel


class Encoder:
    """The inputs of one model; any number of threads may use it."""

    def __init__(self, model: "LoadedModel") -> None:
        """Prepare the inputs that the model's manifest names.

        Raises:
            UnsoundError: the tokenizer is none.
        """
        manifest = model.manifest
        self._tabular = Tabular(manifest.numeric, manifest.categorical)
        self._texts = Texts(manifest.text, model.tokenizer or b"") if manifest.text else None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return (*self._tabular.columns, *(self._texts.text.columns if self._texts else ()))

    @property
    def is_ragged(self) -> bool:
        """Whether rows differ in length."""
        return self._texts is not None

    def blank(self, rows: int) -> Tensors:
        """Inputs of some rows that say nothing: zeros, and the shortest texts."""
        tensors = self._tabular.blank(rows)
        if self._texts:
            tensors["tokens"] = np.full((rows, self._texts.widths[0]), self._texts.text.unknown, np.int64)
        return tensors

    def encode(self, batch: pa.RecordBatch) -> Encoded:
        """Encode the rows of a record batch.

        Raises:
            ScoringError: a column is missing.
        """
        if absent := [name for name in self.columns if name not in batch.schema.names]:
            raise ScoringError(f"the input has no column {', '.join(absent)}, which the model needs")
        tensors, unknown = self._tabular.encode(batch)
        failed = self._tabular.infinite(batch, tensors["numeric"])
        groups = _by_length(self._texts, batch, tensors) if self._texts else single(tensors, batch.num_rows)
        return Encoded(tuple(groups), tuple(failed), unknown)


def _by_length(texts: Texts, batch: pa.RecordBatch, tensors: Tensors) -> Iterator[Group]:
    """The rows in groups of one width; `tensors`: those that have one shape in all of them."""
    ids = texts.encode(batch)
    for width, positions in by_width(ids.lengths, texts.widths):
        rows = len(positions)
        group = taken(tensors, rows, positions)
        group["tokens"] = ids.matrix(positions, padded(rows), width, texts.text.padding)
        pad(group, rows)
        yield Group(group, rows, positions, width)
