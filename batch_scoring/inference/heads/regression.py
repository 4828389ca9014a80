"""Regression: a value for each row, or several with names."""

import re
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, Field

from batch_scoring.inference.heads.head import Head, finite
from batch_scoring.inference.heads.names import Names
from batch_scoring.inference.heads.tolerance import OF_VALUES, Tolerance

if TYPE_CHECKING:
    import torch


def _end_column_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check that names can be the end of a column's name."""
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise ValueError(f"{name!r} becomes part of a column's name; expected letters, digits and _")
        if name.startswith("prob"):
            raise ValueError(f"{name!r} would give the column prediction_{name}, which reads like prediction_proba")
    return names


class Regression(Head):
    """One value, prediction; or one for each target, prediction_<name>."""

    kind: Literal["regression"] = "regression"
    targets: Annotated[Names, AfterValidator(_end_column_names)] = Field(
        default=(), description="names of the values, in the order of the network's outputs; none if there is one value"
    )

    tolerance: ClassVar[Tolerance] = OF_VALUES

    @property
    def width(self) -> int:
        """A value for each target."""
        return max(len(self.targets), 1)

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """The values."""
        names = [f"prediction_{name}" for name in self.targets] or ["prediction"]
        return tuple(pa.field(name, pa.float64()) for name in names)

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The values."""
        return self.columns

    @property
    def confidence_column(self) -> str:
        """The first value."""
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
