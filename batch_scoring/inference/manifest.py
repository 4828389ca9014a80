"""The manifest of a model bundle, and a loaded model. `bundle.py` reads bundles."""

import math
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

from batch_scoring.inference.heads.classification import MANY
from batch_scoring.inference.heads.names import Name, Names
from batch_scoring.inference.heads.task import Task, from_name
from batch_scoring.inference.heads.tolerance import ROUNDING, Tolerance

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pyarrow as pa
    import torch

FORMATS = (1, 2)
"""Formats that can be read; 2 is written. In format 1 the task was a name, with the classes beside it."""


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


Plain = Annotated[dict[str, Any], AfterValidator(_plain)]
AnyTolerance = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False), Tag("number")] | Annotated[Tolerance, Tag("object")],
    Discriminator(lambda value: "object" if isinstance(value, dict | Tolerance) else "number"),
]


VECTOR_DESCRIPTORS = ("vectors.norm", *(f"vectors.projection_{index}" for index in range(8)))
"""What is kept of vectors for drift: their length, and where they lie along eight fixed random directions."""

TEXT_DESCRIPTORS = ("text.characters", "text.tokens", "text.unknown_share", "text.is_empty")
"""What is kept of a text for drift: its length, the share of its tokens that are unknown, whether it is empty."""


class Text(BaseModel):
    """The text columns of a model, which its tokenizer turns into `tokens` int64[rows, width]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: Annotated[Names, Field(min_length=1)] = Field(
        description="columns of one text, in order, a line break between them"
    )
    longest: int = Field(ge=1, le=65_536, description="tokens that are kept of a text, special ones included")
    padding: int = Field(default=0, ge=0, description="id that fills a text up to the width of its group")
    unknown: int = Field(ge=0, description="id of an unknown token, which stands for an empty text")

    exact: bool = Field(
        default=False,
        description="whether texts of different lengths never pass together: a network that packs its sequences, as "
        "recurrent ones do, rounds differently beside longer or shorter ones",
    )

    @model_validator(mode="after")
    def _is_seen(self) -> Self:
        if self.unknown == self.padding:
            raise ValueError(
                f"unknown and padding are both {self.padding}: an empty text would be padding alone; expected another "
                "id for unknown tokens"
            )
        return self


class ArrayInput(BaseModel):
    """An input of the network that `features.encode` gives."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(description="of one row")
    type: Literal["float32", "int64", "int32", "uint8", "bool"]


class Manifest(BaseModel):
    """The content of `bundle.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1, 2] = 2
    name: Name
    version: Name
    task: Task = Field(description="what the network's outputs mean")
    arguments: Plain = Field(description="keyword arguments of the network's class")
    numeric: Names
    categorical: dict[str, Names] = Field(description="vocabulary of each column; code = position + 1, 0 is unknown")
    text: Text | None = Field(default=None, exclude_if=lambda value: value is None, description="text columns")
    vectors: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default={}, exclude_if=lambda value: not value, description="list columns, with the length of their lists"
    )
    arrays: dict[str, ArrayInput] = Field(
        default={}, exclude_if=lambda value: not value, description="inputs that features.encode gives"
    )
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

    @model_validator(mode="before")
    @classmethod
    def _from_format_1(cls, data: Any) -> Any:  # noqa: ANN401
        """Check the format, and turn a task's name and classes into its head."""
        if not isinstance(data, dict):
            return data
        if (found := data.get("format", FORMATS[-1])) not in FORMATS:
            raise ValueError(f"format is {found!r}; this version reads 1 and 2: update batch_scoring")
        if data.get("format") == 2 or not isinstance(data.get("task"), str):
            return data
        rest = {name: value for name, value in data.items() if name != "classes"}
        head = from_name(data["task"], classes := data.get("classes", ()))
        if data.get("format") == 1 and len(classes) > MANY:
            head["top"] = 0  # at that time each class had a column
        return rest | {"task": head}

    @property
    def tolerance(self) -> Tolerance:
        """How far golden outputs may differ."""
        stated = self.golden_tolerance
        return stated if isinstance(stated, Tolerance) else Tolerance(absolute=stated)

    @property
    def features(self) -> tuple[str, ...]:
        """The feature columns that the network needs."""
        return (*self.numeric, *self.categorical, *self.described)

    @property
    def compared_numeric(self) -> tuple[str, ...]:
        """The numbers that drift compares: features, and descriptors of texts and vectors, never these themselves."""
        texts, vectors = TEXT_DESCRIPTORS if self.text else (), VECTOR_DESCRIPTORS if self.vectors else ()
        return (*self.numeric, *texts, *vectors)

    @property
    def described(self) -> tuple[str, ...]:
        """The columns of which references and samples keep numbers that describe them, and not the cells."""
        return (*(self.text.columns if self.text else ()), *self.vectors)

    @property
    def outputs(self) -> int:
        """Columns of the network's output."""
        return self.task.width

    @property
    def output_columns(self) -> tuple[str, ...]:
        """The columns of the network's outputs in `golden.parquet`."""
        return tuple(f"output_{index}" for index in range(self.outputs))


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


class MakesArrays(Protocol):
    """What makes inputs by the pipeline's own function: `inputs/own_encoder.py`."""

    @property
    def reads(self) -> "pa.Schema":
        """The raw columns that it gets."""

    @property
    def row_bytes(self) -> int:
        """Size of a row's arrays."""

    def blank(self, rows: int) -> "dict[str, np.ndarray]":
        """Zeros for some rows."""

    def encode(self, batch: "pa.RecordBatch", found: "Mapping[str, np.ndarray]") -> "list[BrokenRow]":
        """Fill arrays of at least as many rows; return the rows for which the function raises."""


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
    tokenizer: bytes | None = None
    """The content of `tokenizer.json`, for a model of texts."""
    transform: "MakesFeatures | None" = None
    """Makes the engineered features of the rows, if the model has any."""
    encode: "MakesArrays | None" = None
    """Makes inputs of the network by a function of the pipeline's own, if it has one."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that rows to be scored need."""
        made = self.manifest.engineered if self.transform else ()
        raw = (name for name in self.manifest.features if name not in made)
        called = (part for part in (self.transform, self.encode) if part)
        return tuple(dict.fromkeys((*raw, *(name for part in called for name in part.reads.names))))

    def with_engineered(self, rows: "pa.Table") -> "pa.Table":
        """A small table, such as the golden rows, with the engineered features.

        Raises:
            ScoringError: see `Transform.applied`.
        """
        return self.transform.applied(rows) if self.transform else rows
