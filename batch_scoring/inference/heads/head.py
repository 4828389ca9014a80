"""The head of a model: what its outputs mean, and the columns of predictions that they become."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from batch_scoring.inference.heads.tolerance import Tolerance

if TYPE_CHECKING:
    import torch

Gives = Literal["logits", "probabilities", "values"]


class Head(BaseModel, ABC):
    """A task; its fields are the entry `task` of a manifest.

    Scores pass through it in two steps, so that a row's bits never depend on the rows beside it: `activate` has all
    functions that round by their place in memory, and sees padded blocks on the device; `scores` has elementwise sums
    and comparisons, and sees the rows alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str

    tolerance: ClassVar[Tolerance]
    """How far golden outputs may differ on another machine, unless the bundle says more."""
    is_exclusive: ClassVar[bool] = False
    """Whether a row is of one class, so that probabilities sum to 1."""
    has_quantiles: ClassVar[bool] = False
    """Whether a row's values have an order, which `is_crossed` tests."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Columns of the network's output."""

    @property
    def values(self) -> int:
        """Columns after the activation."""
        return self.width

    @property
    def gives(self) -> Gives:
        """What the network's outputs are."""
        return "values"

    @property
    def rule(self) -> str:
        """What holds for the scores of every row: what `scores_are_probabilities` expects."""
        return "all values are finite"

    @property
    def broken(self) -> str:
        """What rows are that break the rule, after `3 of 100 scored rows`."""
        return "are not finite"

    @property
    @abstractmethod
    def fields(self) -> tuple[pa.Field, ...]:
        """The columns of predictions, without the key, model_version and scored_at."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(field.name for field in self.fields)

    @property
    def measured(self) -> tuple[str, ...]:
        """The columns with a number for each row that can be averaged, explained and decided on."""
        return tuple(field.name for field in self.fields if not pa.types.is_nested(field.type))

    @property
    def probabilities(self) -> tuple[str, ...]:
        """Those of them that lie between 0 and 1."""
        return ()

    @property
    def expected_columns(self) -> tuple[str, ...]:
        """The columns that the training code can be compared with."""
        return self.measured

    @property
    @abstractmethod
    def score_columns(self) -> tuple[str, ...]:
        """The columns that determine a score, the first of which must vary: drift looks at them."""

    @property
    @abstractmethod
    def confidence_column(self) -> str:
        """The column whose daily mean is monitored."""

    @property
    def telling_column(self) -> str:
        """The column that a chart of a day or a month shows."""
        return self.confidence_column

    @property
    def class_names(self) -> tuple[str, ...]:
        """What a prediction may be: classes or labels, by position; empty if it is a value."""
        return ()

    @abstractmethod
    def activate(self, raw: "torch.Tensor") -> "torch.Tensor":
        """float32[values, rows] from the network's float32[width, rows], for a padded block on its device."""

    @abstractmethod
    def scores(self, block: np.ndarray) -> tuple[dict[str, pa.Array], np.ndarray]:
        """The columns of predictions, and bool[rows] of rows without a finite output, from float32[values, rows]."""

    @abstractmethod
    def scores_of_eager(self, found: np.ndarray) -> dict[str, pa.Array]:
        """The columns of predictions from float32[rows, width], another way: the truth that `scores` is tested with."""

    @abstractmethod
    def is_sound(self, scores: pa.RecordBatch) -> np.ndarray:
        """bool[rows]: whether scores are as `rule` says."""

    def is_crossed(self, scores: pa.RecordBatch) -> np.ndarray:
        """bool[rows]: whether quantiles are not in the order of their levels."""
        return np.zeros(scores.num_rows, bool)

    def class_counts(self, scores: pa.RecordBatch | pa.Table) -> np.ndarray:
        """int64[classes]: how often each class or label is predicted; a reference has scores without lists."""
        return np.bincount(scores.column("prediction").to_numpy(), minlength=len(self.class_names))

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write what differs from the defaults, so that a manifest is short."""
        defaults = {name: field.default for name, field in type(self).model_fields.items() if name != "kind"}
        return {name: value for name, value in dump(self).items() if getattr(self, name) != defaults.get(name, ...)}


def list_of(kind: pa.DataType) -> pa.DataType:
    """The type of a column of lists: Delta has none of a fixed size, and calls what a list holds `element`."""
    return pa.list_(pa.field("element", kind))


def lists(values: np.ndarray) -> pa.Array:
    """A column of lists of equal length from [rows, length]."""
    rows, length = values.shape
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * length)
    return pa.ListArray.from_arrays(offsets, flat, type=list_of(flat.type))


def finite(scores: pa.RecordBatch, columns: tuple[str, ...]) -> np.ndarray:
    """bool[rows]: whether all of some columns are finite numbers."""
    found = np.ones(scores.num_rows, bool)
    for name in columns:
        found &= np.isfinite(scores.column(name).to_numpy())
    return found
