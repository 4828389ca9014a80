"""The manifest of a model bundle, and a loaded model. `bundle.py` reads bundles."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    model_validator,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch

Task = Literal["classification", "regression"]


ROUNDING = 1e-5
"""How far float32 outputs of one network may differ by the order of sums alone: relative, or absolute for a logit."""


class Tolerance(BaseModel):
    """How far an output may differ from the recorded one: `absolute + relative * size`, for each value.

    The size of a value is its own magnitude or the typical one of its output (the median of those that are not 0),
    whichever is larger: sums round relative to their terms, and in some rows they cancel to nearly 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    absolute: float = Field(default=0.0, ge=0, description="in the unit of the output; a logit has none")
    relative: float = Field(default=0.0, ge=0, description="share of the value's size")

    @model_validator(mode="after")
    def _accepts_something(self) -> Self:
        if not self.absolute and not self.relative:
            raise ValueError("absolute and relative are both 0; no other machine rounds exactly the same way")
        return self

    def __str__(self) -> str:
        parts = f"{self.absolute:g}" * bool(self.absolute), f"{self.relative:g} of the size" * bool(self.relative)
        return " + ".join(filter(None, parts))

    @property
    def is_wide(self) -> bool:
        """Whether it accepts more than rounding errors."""
        return self.absolute > ROUNDING or self.relative > ROUNDING


GOLDEN_TOLERANCES: dict[Task, Tolerance] = {
    "classification": Tolerance(absolute=ROUNDING, relative=ROUNDING),
    "regression": Tolerance(absolute=1e-6, relative=ROUNDING),
}
"""How far outputs may differ between the machine that wrote the bundle and the one that loads it.

Between instruction sets (AVX-512, AVX2, SSE) the examples' outputs differ by 4e-7 of their size, those of regressions
around 12,000 and 1,000,000 by up to 8e-7: `python -m benchmarks.instruction_sets`. A logit, or a value such as a daily
return, may be near 0 in all rows and a sum of terms around 1 all the same: so there is an absolute part. It is left out
of a bundle whose values are so small that it would accept any (`agreement.usual`).
"""


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Check that all numbers are finite, at any depth."""
    try:
        bad = next(_not_finite(value), None)
    except RecursionError as error:
        raise ValueError("it contains itself, or is nested too deeply; expected plain JSON") from error
    if bad:
        raise ValueError(f"{bad}; expected finite numbers")
    return value


def _not_finite(value: object, where: str = "") -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where} is {value}"
    items: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    for name, inner in items:
        yield from _not_finite(inner, f"{where}.{name}" if where else str(name))


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check that no name occurs twice."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{', '.join(map(repr, twice[:5]))} occurs twice; expected every name once")
    return names


def _printable(name: str) -> str:
    """Check for characters that move a terminal's cursor, or that a database rejects."""
    if not name.isprintable():
        raise ValueError(f"{name[:80]!r} has characters that cannot be printed; expected a name such as 'v1'")
    return name


Plain = Annotated[dict[str, Any], AfterValidator(_plain)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Names = Annotated[tuple[str, ...], AfterValidator(_distinct)]
AnyTolerance = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False), Tag("number")] | Annotated[Tolerance, Tag("object")],
    Discriminator(lambda value: "object" if isinstance(value, dict | Tolerance) else "number"),
]


class Manifest(BaseModel):
    """The content of `bundle.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: Name
    version: Name
    task: Task
    arguments: Plain = Field(description="keyword arguments of the network's class")
    numeric: Names
    categorical: dict[str, Names] = Field(description="vocabulary of each column; code = position + 1, 0 is unknown")
    classes: Names = Field(description="meaning of prob_class_0 …; empty for a regression")
    training: Plain
    metrics: dict[str, FiniteFloat]
    engineered: dict[str, str] = Field(
        default={},
        exclude_if=lambda value: not value,
        description="Arrow type of each column that features.transform makes; absent without a transform",
    )
    golden_tolerance: AnyTolerance = Field(
        default=ROUNDING, description="how far golden outputs may differ; a number: absolute (as in older bundles)"
    )
    files: dict[str, str] = Field(description="sha256 of every other file of the bundle")

    @model_validator(mode="after")
    def _has_classes(self) -> Self:
        if self.task == "classification" and len(self.classes) < 2:
            raise ValueError(
                f"classes are {list(self.classes)}; a classification has at least two (one class has probability 1 in "
                "every row). A network with one output, a logit z, returns torch.cat([torch.zeros_like(z), z], dim=1)"
            )
        return self

    @property
    def tolerance(self) -> Tolerance:
        """How far golden outputs may differ."""
        stated = self.golden_tolerance
        return stated if isinstance(stated, Tolerance) else Tolerance(absolute=stated)

    @property
    def features(self) -> tuple[str, ...]:
        """The feature columns that the network needs."""
        return (*self.numeric, *self.categorical)

    @property
    def outputs(self) -> int:
        """Columns of the network's output: classes, or one value for a regression."""
        return len(self.classes) if self.task == "classification" else 1

    @property
    def output_columns(self) -> tuple[str, ...]:
        """The columns of the network's outputs in `golden.parquet`."""
        return tuple(f"output_{index}" for index in range(self.outputs))

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The columns of predictions that determine a score: with two classes one probability, else all of them."""
        if self.task == "regression":
            return ("prediction",)
        return tuple(f"prob_class_{index}" for index in range(1 if self.outputs == 2 else 0, self.outputs))

    @property
    def prediction_columns(self) -> tuple[str, ...]:
        """All columns of predictions that scoring adds."""
        probabilities = tuple(f"prob_class_{index}" for index in range(len(self.classes)))
        return ("prediction", "prediction_proba", *probabilities) if probabilities else ("prediction",)

    @property
    def confidence_column(self) -> str:
        """The column whose daily mean is monitored."""
        return "prediction" if self.task == "regression" else "prediction_proba"


class BrokenRow(NamedTuple):
    """A row without engineered features, or with impossible ones."""

    position: int
    rule: str
    column: str
    """The engineered column that breaks the rule; empty if the function raises."""
    detail: str


@dataclass(frozen=True)
class Transformed:
    """Rows with their engineered features."""

    rows: "pa.RecordBatch"
    """Those that have them, with all their other columns."""
    positions: "np.ndarray"
    """int64: the position of each in the batch that was given."""
    broken: tuple[BrokenRow, ...]
    """The others, by position."""


class MakesFeatures(Protocol):
    """What makes the engineered features of a model: `inputs/transform.py`."""

    @property
    def reads(self) -> "pa.Schema":
        """The raw columns that it gets."""

    @property
    def gives(self) -> "pa.Schema":
        """The engineered features."""

    def run(self, batch: "pa.RecordBatch", *, typed: bool = True) -> "tuple[pa.RecordBatch, list[BrokenRow]]":
        """The engineered features alone."""

    def apply(self, batch: "pa.RecordBatch") -> Transformed:
        """Rows with their engineered features, and those that have none."""

    def applied(self, rows: "pa.Table") -> "pa.Table":
        """A small table with its engineered features."""


@dataclass(frozen=True)
class LoadedModel:
    """A verified bundle with its network, ready to score."""

    manifest: Manifest
    sha256: str
    network: "torch.nn.Module"
    golden: "pa.Table | None" = None
    """Rows like those to be scored; on them the scorer proves its optimisations."""
    transform: "MakesFeatures | None" = None
    """Makes the engineered features of the rows, if the model has any."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that rows to be scored need."""
        return tuple(self.transform.reads.names) if self.transform else self.manifest.features

    def with_engineered(self, rows: "pa.Table") -> "pa.Table":
        """A small table, such as the golden rows, with the engineered features.

        Raises:
            ScoringError: see `Transform.applied`.
        """
        return self.transform.applied(rows) if self.transform else rows
