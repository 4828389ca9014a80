"""Quantiles: a value for each of several levels, which say how sure the model is."""

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, Field

from batch_scoring.inference.heads.head import Head, finite
from batch_scoring.inference.heads.tolerance import OF_VALUES, Tolerance

if TYPE_CHECKING:
    import torch


def _ascending(levels: tuple[float, ...]) -> tuple[float, ...]:
    if any(low >= high for low, high in pairwise(levels)):
        raise ValueError(f"levels are {list(levels)}; expected ascending ones, in the order of the network's outputs")
    return levels


class Quantiles(Head):
    """Quantiles of a value: prediction, quantile_05, quantile_50 and so on."""

    kind: Literal["quantiles"] = "quantiles"
    levels: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], AfterValidator(_ascending)] = Field(
        min_length=2, description="ascending, each between 0 and 1, in the order of the network's outputs"
    )

    tolerance: ClassVar[Tolerance] = OF_VALUES
    has_quantiles: ClassVar[bool] = True

    @property
    def width(self) -> int:
        """A value for each level."""
        return len(self.levels)

    @property
    def of_levels(self) -> tuple[str, ...]:
        """The column of each level, named by its decimals, two at least: quantile_05 of 0.05, quantile_975 of 0.975."""
        return tuple(f"quantile_{_decimals(level):0<2}" for level in self.levels)

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """The median, or the middle level, and all quantiles."""
        return tuple(pa.field(name, pa.float64()) for name in ("prediction", *self.of_levels))

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The median, and the other quantiles."""
        return ("prediction", *(name for place, name in enumerate(self.of_levels) if place != self._middle))

    @property
    def confidence_column(self) -> str:
        """The median."""
        return "prediction"

    @property
    def _middle(self) -> int:
        return self.levels.index(0.5) if 0.5 in self.levels else len(self.levels) // 2

    def activate(self, raw: "torch.Tensor") -> "torch.Tensor":
        """The values as they are."""
        return raw

    def scores(self, block: np.ndarray) -> tuple[dict[str, pa.Array], np.ndarray]:
        """See `Head.scores`."""
        values = [pa.array(column) for column in block.astype(np.float64)]
        columns = {"prediction": values[self._middle], **dict(zip(self.of_levels, values, strict=True))}
        return columns, np.logical_not(np.isfinite(block).all(axis=0))

    def scores_of_eager(self, found: np.ndarray) -> dict[str, pa.Array]:
        """See `Head.scores_of_eager`."""
        own = pa.table(found.astype(np.float64).T.tolist(), names=list(self.of_levels))
        columns = {name: own[name].combine_chunks() for name in own.column_names}
        return {"prediction": columns[self.of_levels[self._middle]]} | columns

    def is_sound(self, scores: pa.RecordBatch) -> np.ndarray:
        """Whether all values are finite; their order is counted apart."""
        return finite(scores, self.columns)

    def is_crossed(self, scores: pa.RecordBatch) -> np.ndarray:
        """Whether a quantile is below that of a lower level."""
        block = np.array([scores.column(name).to_numpy() for name in self.of_levels])
        return np.asarray((block[1:] < block[:-1]).any(axis=0))


def _decimals(level: float) -> str:
    """The decimals of a level, without an exponent."""
    return np.format_float_positional(level, trim="-").partition(".")[2]
