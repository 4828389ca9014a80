"""What a model bundle says of itself, and a model as the engine takes it. Reading bundles is `bundle.py`'s business."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

GOLDEN_TOLERANCE = 1e-5
"""Largest absolute difference of an output between the machine that wrote the bundle and the one that loads it."""


class Manifest(BaseModel):
    """The content of `bundle.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    task: Literal["classification", "regression"]
    arguments: dict[str, Any] = Field(description="keyword arguments of the network's class")
    numeric: tuple[str, ...]
    categorical: dict[str, tuple[str, ...]] = Field(
        description="vocabulary a column; code = position + 1, 0 is unknown"
    )
    classes: tuple[str, ...] = Field(description="meaning of prob_class_0 …; empty for a regression")
    training: dict[str, Any]
    metrics: dict[str, float]
    golden_tolerance: float = Field(default=GOLDEN_TOLERANCE, gt=0)
    files: dict[str, str] = Field(description="sha256 of every other file of the bundle")

    @property
    def outputs(self) -> int:
        """Columns of the network's output: classes, or one value for a regression."""
        return len(self.classes) if self.task == "classification" else 1

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The columns of predictions that say all of a score: with two classes one probability, else all of them."""
        if self.task == "regression":
            return ("prediction",)
        return tuple(f"prob_class_{index}" for index in range(1 if self.outputs == 2 else 0, self.outputs))

    @property
    def confidence_column(self) -> str:
        """The column whose mean over a day is watched."""
        return "prediction" if self.task == "regression" else "prediction_proba"


@dataclass(frozen=True)
class LoadedModel:
    """A verified bundle with its network, ready to score."""

    manifest: Manifest
    sha256: str
    network: "torch.nn.Module"
    golden: "pa.Table | None" = None
    """Rows like those that it will score; on them the engine proves what it does for speed."""
