"""The encoder of a model: from a record batch to the inputs of its network, by name."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from batch_scoring.errors import ScoringError
from batch_scoring.inference.inputs.encoded import Encoded, FailedRow, Group, Tensors, pad, padded, single, taken
from batch_scoring.inference.inputs.ragged import by_width
from batch_scoring.inference.inputs.tabular import Tabular
from batch_scoring.inference.inputs.texts import Texts
from batch_scoring.inference.inputs.vectors import Vectors

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
        self._vectors = Vectors(manifest.vectors)
        self._texts = Texts(manifest.text, model.tokenizer or b"") if manifest.text else None
        self._own = model.encode
        own = self._own.reads.names if self._own else []
        self.columns = tuple(dict.fromkeys((*manifest.features, *own)))
        """The columns that it reads."""

    @property
    def is_ragged(self) -> bool:
        """Whether rows differ in length."""
        return self._texts is not None

    @property
    def row_bytes(self) -> int:
        """Size of a row's arrays of the pipeline's own encoder."""
        return self._own.row_bytes if self._own else 0

    def blank(self, rows: int) -> Tensors:
        """Inputs of some rows that say nothing: zeros, and the shortest texts."""
        tensors = self._dense(rows)
        if self._texts:
            tensors["tokens"] = np.full((rows, self._texts.widths[0]), self._texts.text.unknown, np.int64)
        return tensors

    def encode(self, batch: pa.RecordBatch) -> Encoded:
        """Encode the rows of a record batch.

        Raises:
            ScoringError: a column is missing, or the pipeline's own encoder is at fault.
        """
        if absent := [name for name in self.columns if name not in batch.schema.names]:
            raise ScoringError(f"the input has no column {', '.join(absent)}, which the model needs")
        tensors = self._dense(padded(batch.num_rows))
        unknown = self._tabular.encode(batch, tensors)
        failed: list[FailedRow] = self._tabular.infinite(batch, tensors["numeric"])
        if self._vectors.width:
            failed += self._vectors.encode(batch, tensors["vectors"])
        if self._own:
            failed += [FailedRow(row.position, row.rule, row.detail) for row in self._own.encode(batch, tensors)]
        groups = _by_length(self._texts, batch, tensors) if self._texts else single(tensors, batch.num_rows)
        return Encoded(tuple(groups), tuple(failed), unknown)

    def _dense(self, rows: int) -> Tensors:
        """Zeros for the inputs of one shape in all rows."""
        tensors = self._tabular.blank(rows)
        if self._vectors.width:
            tensors["vectors"] = np.zeros((rows, self._vectors.width), np.float32)
        return tensors | (self._own.blank(rows) if self._own else {})


def _by_length(texts: Texts, batch: pa.RecordBatch, tensors: Tensors) -> Iterator[Group]:
    """The rows in groups of one width; `tensors`: those that have one shape in all of them."""
    ids = texts.encode(batch)
    for width, positions in by_width(ids.lengths, texts.widths):
        rows = len(positions)
        group = taken(tensors, rows, positions)
        group["tokens"] = ids.matrix(positions, padded(rows), width, texts.text.padding)
        pad(group, rows)
        yield Group(group, rows, positions, width)
