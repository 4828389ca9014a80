"""The encoder of a model: from a record batch to the inputs of its network, by name."""

from typing import TYPE_CHECKING

import pyarrow as pa

from batch_scoring.errors import ScoringError
from batch_scoring.inference.inputs.encoded import Encoded, Tensors, single
from batch_scoring.inference.inputs.tabular import Tabular

if TYPE_CHECKING:
    from batch_scoring.inference.manifest import LoadedModel


class Encoder:
    """The inputs of one model; any number of threads may use it."""

    def __init__(self, model: "LoadedModel") -> None:
        manifest = model.manifest
        self.tabular = Tabular(manifest.numeric, manifest.categorical)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return self.tabular.columns

    def blank(self, rows: int) -> Tensors:
        """Zeros for some rows."""
        return self.tabular.blank(rows)

    def encode(self, batch: pa.RecordBatch) -> Encoded:
        """Encode the rows of a record batch.

        Raises:
            ScoringError: a column is missing.
        """
        if absent := [name for name in self.columns if name not in batch.schema.names]:
            raise ScoringError(f"the input has no column {', '.join(absent)}, which the model needs")
        tensors, unknown = self.tabular.encode(batch)
        failed = self.tabular.infinite(batch, tensors["numeric"])
        return Encoded(tuple(single(tensors, batch.num_rows)), tuple(failed), unknown)
