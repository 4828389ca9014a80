"""What a team declares about a pipeline: the pydantic models of `pipeline.yaml`.

Reading a spec checks all that can be known without running anything: fields, files, references into the
pipeline's own package. Every fault of every spec is collected, so a deployment fails once with the whole list.
Nothing here opens a table, imports torch or talks to S3.
"""

import ast
import functools
import hashlib
import importlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from batch_scoring.storage import Folder, open_folder

PROJECT = Path(__file__).resolve().parent.parent
PIPELINES = Path(__file__).resolve().parent / "pipelines"

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Reference = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*:[A-Za-z_]\w*$")]


RESERVED = (
    "dt", "stage", "rule", "column", "value", "source_file", "row_number", "raw",
    "prediction", "prediction_proba", "model_version", "scored_at",
)  # fmt: skip
"""Column names that the tables use themselves."""


class SpecError(ValueError):
    """One or more specs are wrong; the message lists every fault with its file, field and value."""

    def __init__(self, faults: list[str]) -> None:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n  ".join([f"{count} in the pipelines' specs:", *faults]))
        self.faults = faults


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

    delimiter: str = Field(default=",", min_length=1, max_length=1, description="one character between cells")
    null_values: tuple[str, ...] = Field(default=("",), description="unquoted cells that mean: no value")


class Input(Section):
    """Where the day's files land and what names a row."""

    landing: str = Field(default="", description="folder or s3:// prefix above dt=YYYY-MM-DD; <name>/landing if empty")
    key: str = Field(min_length=1, description="the column that names a row; one row a key and day is scored")
    csv: Csv = Field(default=Csv(), description="the dialect of CSV files")


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

    bundle: str = Field(min_length=1, description="bundle folder or s3:// prefix of the version in force")
    network: Reference = Field(description="the torch.nn.Module, module:class inside the pipeline's package")


class Scoring(Section):
    """How a day is cut and fed to the model. None of it changes a score."""

    rows_per_shard: int = Field(default=1_000_000, ge=1, description="input rows of a file that make one shard")
    batch_rows: Literal["auto"] | Annotated[int, Field(ge=64)] = Field(
        default="auto", description="rows of one forward pass, or auto: what keeps activations in the cache"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto takes a GPU where there is one")


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
    output: str = Field(default="", description="folder or s3:// prefix of tables, state and reports; <name> if empty")

    @field_validator("owners")
    @classmethod
    def _owners(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for owner in value:
            if not re.fullmatch(r"team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+", owner):
                raise ValueError(f"{owner!r} is no owner; expected an e-mail address or team:name")
        return value

    @model_validator(mode="after")
    def _names_are_free(self) -> "PipelineSpec":
        for name in (self.input.key, *self.features.names):
            if name in RESERVED or name.startswith("prob_class_"):
                raise ValueError(f"{name!r} is a column of our tables; rename it, {', '.join(RESERVED)} are taken")
        if self.input.key in self.features.names:
            raise ValueError(f"the key {self.input.key!r} is also a feature; expected a column of its own")
        return self


@dataclass(frozen=True)
class Pipeline:
    """A spec with its place: the package its code lives in and the root its relative paths stand under."""

    spec: PipelineSpec
    folder: Path
    package: str
    data_root: str

    @property
    def name(self) -> str:
        """The pipeline's name: prefix of its assets, job and folders."""
        return self.spec.name

    @property
    def landing(self) -> Folder:
        """The folder above the days' input files."""
        return self._place(self.spec.input.landing or f"{self.name}/landing")

    @property
    def output(self) -> Folder:
        """The folder of tables, state and reports."""
        return self._place(self.spec.output or self.name)

    @property
    def bundle(self) -> Folder:
        """The bundle that the spec names: the model that the next run puts in force."""
        return self._place(self.spec.model.bundle)

    def load(self, reference: str) -> Any:  # noqa: ANN401  (a class of the user's)
        """The object that a `module:attribute` reference of the spec names."""
        module, attribute = reference.split(":")
        return getattr(importlib.import_module(f"{self.package}.{module}"), attribute)

    @functools.cached_property
    def features_code(self) -> str:
        """Digest of all code and settings, besides the input, that decide which rows are accepted and how."""
        spec = self.spec
        settings = [spec.input.key, spec.input.csv, spec.features, spec.scoring.rows_per_shard]
        return self._digest("features 1", self._source(spec.features.contract), settings)

    @functools.cached_property
    def scoring_code(self) -> str:
        """Digest of all code and settings, besides features and weights, that decide a score."""
        return self._digest(
            "scoring 1", self._source(self.spec.model.network), [self.spec.input.key, self.spec.features]
        )

    def _place(self, location: str) -> Folder:
        if location.startswith(("/", "s3://")):
            return open_folder(location)
        return open_folder(f"{self.data_root.rstrip('/')}/{location}")

    def _source(self, reference: str) -> bytes:
        return (self.folder / f"{reference.split(':')[0]}.py").read_bytes()

    @staticmethod
    def _digest(engine: str, source: bytes, settings: list[Any]) -> str:
        """`engine` is raised by hand when our own code begins to give other results for the same input."""
        hasher = hashlib.sha256(engine.encode())
        hasher.update(source)
        for setting in settings:
            hasher.update((setting.model_dump_json() if isinstance(setting, BaseModel) else repr(setting)).encode())
        return hasher.hexdigest()[:32]


def data_root() -> str:
    """The data root of this process: `BATCH_SCORING_DATA`, or `data/` beside the package."""
    root = os.environ.get("BATCH_SCORING_DATA") or str(PROJECT / "data")
    return root if root.startswith("s3://") else str(Path(root).expanduser().absolute())


def load_pipelines(folder: Path = PIPELINES, root: str | None = None) -> list[Pipeline]:
    """Read every `<folder>/*/pipeline.yaml`.

    Args:
        folder: the folder of pipeline packages, itself importable as `batch_scoring.pipelines`.
        root: the data root; `data_root()` if None.

    Raises:
        SpecError: listing every fault of every spec.
    """
    root = root or data_root()
    pipelines: list[Pipeline] = []
    faults: list[str] = []
    for file in sorted(folder.glob("*/pipeline.yaml")):
        try:
            pipeline = _declared(file, root)
            pipelines.append(pipeline)
            faults += [f"{_shown(file)}: {fault}" for fault in _unmet(pipeline)]
        except SpecError as error:
            faults += error.faults
    if not faults and not pipelines:
        faults = [f"{folder}: no pipeline.yaml in any folder; expected at least one pipeline"]
    if faults:
        raise SpecError(faults)
    return pipelines


def find_pipeline(name: str) -> Pipeline:
    """The pipeline of that name.

    Raises:
        SpecError: no pipeline has the name, or a spec is wrong.
    """
    pipelines = {pipeline.name: pipeline for pipeline in load_pipelines()}
    if name not in pipelines:
        raise SpecError([f"no pipeline {name!r}; there are: {', '.join(pipelines)}"])
    return pipelines[name]


def declared_pipeline(name: str) -> Pipeline:
    """The pipeline as its YAML declares it, before its first bundle is there: what training and conversion need.

    Raises:
        SpecError: there is no such spec, or a field of it is wrong.
    """
    file = PIPELINES / name / "pipeline.yaml"
    if not file.is_file():
        raise SpecError([f"no pipeline {name!r}: there is no {_shown(file)}"])
    return _declared(file, data_root())


def _declared(file: Path, root: str) -> Pipeline:
    """The pipeline of a spec whose fields are right; what they refer to may be missing."""
    try:
        spec = PipelineSpec.model_validate(_read_yaml(file))
    except ValidationError as error:
        raise SpecError([f"{_shown(file)}: {fault}" for fault in _describe(error)]) from error
    except (yaml.YAMLError, _UnsetVariable, OSError, UnicodeDecodeError, TypeError) as error:
        raise SpecError([f"{_shown(file)}: {' '.join(str(error).split())}"]) from error
    return Pipeline(spec, file.parent, f"batch_scoring.pipelines.{file.parent.name}", root)


def _shown(file: Path) -> str:
    """A spec's path as messages show it."""
    return os.path.relpath(file, PROJECT) if file.is_relative_to(PROJECT) else str(file)


class _UnsetVariable(ValueError):
    """A spec names an environment variable that is not set and gives no default."""


def _read_yaml(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(f"is {type(content).__name__}; expected a mapping with name, description, partitions, …")
    return {key: _expand(value) for key, value in content.items()}


def _expand(value: Any) -> Any:  # noqa: ANN401  (any YAML value)
    """Replace `${NAME}` and `${NAME:-default}` in every string below `value`."""
    if isinstance(value, dict):
        return {key: _expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item) for item in value]
    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", _variable, value) if isinstance(value, str) else value


def _variable(match: re.Match[str]) -> str:
    name, default = match.groups()
    found = os.environ.get(name) or default
    if found is None:
        raise _UnsetVariable(
            f"${{{name}}}: the environment variable {name} is not set; set it or write ${{{name}:-default}}"
        )
    return found


def _describe(error: ValidationError) -> Iterator[str]:
    """One line a fault: the field's path, the value found, what is accepted."""
    for fault in error.errors(include_url=False):
        path = [str(part) for part in fault["loc"] if str(part) not in ("constrained-int", "literal['auto']")]
        if fault["type"] == "extra_forbidden":
            accepted = ", ".join(_fields(path[:-1]))
            yield f"{'.'.join(path)}: unknown field; accepted here: {accepted}"
        elif fault["type"] == "missing":
            yield f"{'.'.join(path)}: missing; expected {_meaning(path)}"
        else:
            message = fault["msg"].removeprefix("Value error, ")
            value = "" if isinstance(fault["input"], dict) else f"{fault['input']!r}: "
            yield f"{'.'.join(path) or 'pipeline'}: {value}{message}"


def _section(path: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = PipelineSpec
    for part in path:
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        model = field.annotation
    return model


def _fields(path: list[str]) -> list[str]:
    return [field.alias or name for name, field in _section(path).model_fields.items()]


def _meaning(path: list[str]) -> str:
    fields = _section(path[:-1]).model_fields
    field = next((f for n, f in fields.items() if path[-1] in (n, f.alias)), None)
    if field is None:
        return "a value"
    return field.description or f"a section with {', '.join(_fields(path))}"


def _unmet(pipeline: Pipeline) -> Iterator[str]:
    """What the spec refers to and is not there."""
    spec = pipeline.spec
    if spec.name != pipeline.folder.name:
        yield f"name: {spec.name!r}; expected the folder's name, {pipeline.folder.name!r}"
    for field, reference in (
        ("features.schema", spec.features.contract),
        ("model.network", spec.model.network),
    ):
        module, attribute = reference.split(":")
        file = pipeline.folder / f"{module}.py"
        if not file.is_file():
            yield f"{field}: {reference!r}: there is no {module}.py beside the spec"
            continue
        try:
            classes = _classes(file)
        except SyntaxError as error:
            yield f"{field}: {reference!r}: {module}.py line {error.lineno} is no Python: {error.msg}"
            continue
        if attribute not in classes:
            there = ", ".join(classes) or "none"
            yield f"{field}: {reference!r}: {module}.py defines no class {attribute}; its classes: {there}"
        elif field == "features.schema":
            yield from _unknown_columns(spec, classes, attribute)
    bundle = pipeline.bundle
    if not bundle.uri.startswith("s3://") and not (Path(bundle.uri) / "bundle.json").is_file():
        yield f"model.bundle: {spec.model.bundle!r}: there is no bundle.json in {bundle.uri}; expected a bundle folder"


def _classes(file: Path) -> dict[str, ast.ClassDef]:
    """The classes that a module defines, read without importing it (its imports are heavy)."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _column(field: ast.AnnAssign) -> str:
    """The column that a field of a pandera model declares: its alias, else its name."""
    if isinstance(field.value, ast.Call):
        for argument in field.value.keywords:
            if argument.arg == "alias" and isinstance(argument.value, ast.Constant):
                return str(argument.value.value)
    return field.target.id if isinstance(field.target, ast.Name) else ""


def _unknown_columns(spec: PipelineSpec, classes: dict[str, ast.ClassDef], name: str) -> Iterator[str]:
    columns: list[str] = []
    pending = [classes[name]]
    while pending:
        node = pending.pop()
        columns += [_column(part) for part in node.body if isinstance(part, ast.AnnAssign)]
        for base in node.bases:
            base_name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
            if base_name in classes:
                pending.append(classes[base_name])
            elif base_name != "DataFrameModel":
                return  # inherits from elsewhere: the columns are known when the schema is loaded
    for field, wanted in (
        ("input.key", (spec.input.key,)),
        ("features.numeric", spec.features.numeric),
        ("features.categorical", spec.features.categorical),
    ):
        for column in wanted:
            if column not in columns:
                yield f"{field}: {column!r} is no column of {spec.features.contract}; it has {', '.join(columns)}"
