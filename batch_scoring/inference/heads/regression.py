"""Regression: a value for each row."""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa

from batch_scoring.inference.heads.head import Head, finite
from batch_scoring.inference.heads.tolerance import OF_VALUES, Tolerance

if TYPE_CHECKING:
    import torch


class Regression(Head):
    """One value: prediction."""

    kind: Literal["regression"] = "regression"

    rule: ClassVar[str] = "all values are finite"
    broken: ClassVar[str] = "are not finite"
    tolerance: ClassVar[Tolerance] = OF_VALUES

    @property
    def width(self) -> int:
        """One value."""
        return 1

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """The value."""
        return (pa.field("prediction", pa.float64()),)

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The value."""
        return self.columns

    @property
    def confidence_column(self) -> str:
        """The value."""
        return self.columns[0]

    def activate(self, raw: "torch.Tensor") -> "torch.Tensor":
        """The values as they are."""
        return raw

    def scores(self, block: np.ndarray) -> tuple[dict[str, pa.Array], np.ndarray]:
        """See `Head.scores`."""
        values = block.astype(np.float64)
        columns = {name: pa.array(column) for name, column in zip(self.columns, values, strict=True)}
        return columns, np.logical_not(np.isfinite(values).all(axis=0))

    def scores_of_eager(self, found: np.ndarray) -> dict[str, pa.Array]:
        """See `Head.scores_of_eager`."""
        return {name: pa.array(found[:, place].astype(np.float64)) for place, name in enumerate(self.columns)}

    def is_sound(self, scores: pa.RecordBatch) -> np.ndarray:
        """Whether all values are finite."""
        return finite(scores, self.columns)
