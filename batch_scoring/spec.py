"""What a team declares about a pipeline: the pydantic models of `pipeline.yaml`, every field with its meaning.

Only what one field can know of itself is decided here; `faults.py` says what is wrong in words, `pipeline.py` reads
the files.
"""

import re
from datetime import date
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


def _reachable(location: str) -> str:
    if "://" in location and not re.match(r"s3://[^/]", location):
        raise ValueError("no such kind of storage; expected a path or s3://bucket/prefix")
    if not location.startswith("/") and (".." in location.split("/") or "\\" in location):
        raise ValueError("leaves the data root; expected a path below it, an absolute path or s3://bucket/prefix")
    return location


Location = Annotated[str, AfterValidator(_reachable)]
Reference = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*:[A-Za-z_]\w*$")]


class Section(BaseModel):
    """A part of the spec: immutable, and a field it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Partitions(Section):
    """The days of the pipeline."""

    start: date = Field(description="first day, YYYY-MM-DD")
    timezone: str = Field(default="UTC", description="time zone in which a day begins, for example America/New_York")

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("not an IANA time zone; expected a name such as UTC or America/New_York") from None
        return value


class Csv(Section):
    """How CSV files are written. Parquet files need nothing of this."""

    delimiter: str = Field(
        default=",",
        min_length=1,
        max_length=1,
        pattern=r"^[\x00-\x7f]*$",
        description="one ASCII character between cells",
    )
    null_values: tuple[str, ...] = Field(default=("",), description="unquoted cells that mean: no value")


class Input(Section):
    """Where the day's files land and what names a row."""

    landing: Location = Field(
        default="", description="folder or s3:// prefix above dt=YYYY-MM-DD; <name>/landing if empty"
    )
    key: str = Field(min_length=1, description="the column that names a row; one row a key and day is scored")
    csv: Csv = Field(default=Csv(), description="the dialect of CSV files")
    deadline_hours: float | None = Field(
        default=None,
        ge=0,
        le=8760,
        description="hours from the day's midnight, by the wall clock, to when its files must be there; may exceed 24",
    )


class Features(Section):
    """The contract on the input's columns, and which of them the model sees."""

    contract: Reference = Field(
        alias="schema", description="the pandera model, module:class inside the pipeline's package"
    )
    numeric: tuple[str, ...] = Field(default=(), description="columns of the model's numeric matrix, in its order")
    categorical: tuple[str, ...] = Field(
        default=(), description="columns of the model's categorical matrix, in its order"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """All feature columns, numeric first, in the model's order."""
        return self.numeric + self.categorical

    @model_validator(mode="after")
    def _distinct(self) -> "Features":
        if not self.names:
            raise ValueError("no features; expected at least one column under numeric or categorical")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} named more than once; expected every feature once")
        return self


class Model(Section):
    """The trained model."""

    bundle: Location = Field(min_length=1, description="bundle folder or s3:// prefix of the version in force")
    network: Reference = Field(description="the torch.nn.Module, module:class inside the pipeline's package")


class Scoring(Section):
    """How a day is cut and fed to the model. None of it changes a score."""

    rows_per_shard: int = Field(default=1_000_000, ge=1, description="input rows of a file that make one shard")
    batch_rows: Literal["auto"] | Annotated[int, Field(ge=64)] = Field(
        default="auto", description="rows of one forward pass, or auto: what keeps activations in the cache"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="cpu, cuda, or auto: a GPU where there is one"
    )


class Alerts(Section):
    """What is told besides failed runs and failed checks."""

    on_success: bool = Field(default=False, description="whether a run that went well is told too")
    scored_hours: float | None = Field(
        default=None,
        ge=0,
        le=8760,
        description="hours from the day's midnight, by the wall clock, to when a landed day must be scored",
    )


class PipelineSpec(Section):
    """One pipeline, as `pipeline.yaml` declares it."""

    name: Name = Field(description="the folder's name; prefix of the assets and of the data folders")
    description: str = Field(min_length=1, description="what is scored, for whom, when")
    owners: tuple[str, ...] = Field(default=(), description="Dagster owners: e-mail addresses or team:name")
    partitions: Partitions
    input: Input
    features: Features
    model: Model
    scoring: Scoring = Scoring()
    alerts: Alerts = Alerts()
    output: Location = Field(
        default="", description="folder or s3:// prefix of tables, state and reports; <name> if empty"
    )

    @field_validator("owners")
    @classmethod
    def _owners(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for owner in value:
            if not re.fullmatch(r"team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+", owner):
                raise ValueError(f"{owner!r} is no owner; expected an e-mail address or team:name")
        return value
