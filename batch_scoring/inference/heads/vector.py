"""Vector: an embedding of each row, for a search or another model."""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from batch_scoring.inference.heads.head import Head, finite, list_of, lists
from batch_scoring.inference.heads.tolerance import OF_VALUES, Tolerance

if TYPE_CHECKING:
    import torch


class Vector(Head):
    """The numbers that the network gives, in one column: embedding, norm."""

    kind: Literal["vector"] = "vector"
    size: int = Field(ge=1, description="numbers of an embedding, the network's outputs")

    tolerance: ClassVar[Tolerance] = OF_VALUES

    @property
    def width(self) -> int:
        """The numbers of an embedding."""
        return self.size

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """The embedding and its Euclidean length."""
        return pa.field("embedding", list_of(pa.float32())), pa.field("norm", pa.float32())

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The length."""
        return ("norm",)

    @property
    def confidence_column(self) -> str:
        """The length."""
        return "norm"

    def activate(self, raw: "torch.Tensor") -> "torch.Tensor":
        """The numbers as they are."""
        return raw

    def scores(self, block: np.ndarray) -> tuple[dict[str, pa.Array], np.ndarray]:
        """See `Head.scores`."""
        # a number at a time: numpy sums a single row in another order
        squares = np.zeros(block.shape[1], np.float64)
        for column in block:
            squares += np.square(column, dtype=np.float64)
        with np.errstate(over="ignore"):
            norm = np.sqrt(squares).astype(np.float32)
        return {"embedding": lists(block.T), "norm": pa.array(norm)}, np.logical_not(np.isfinite(norm))

    def scores_of_eager(self, found: np.ndarray) -> dict[str, pa.Array]:
        """See `Head.scores_of_eager`."""
        norms = np.linalg.norm(found.astype(np.float64), axis=1)
        return {"embedding": pa.array(found.tolist(), list_of(pa.float32())), "norm": pa.array(norms, pa.float32())}

    def is_sound(self, scores: pa.RecordBatch) -> np.ndarray:
        """Whether the length, and so every number, is finite."""
        return finite(scores, ("norm",))
