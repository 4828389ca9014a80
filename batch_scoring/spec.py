"""What a team declares about a pipeline: the pydantic models of `pipeline.yaml`.

Reading a spec checks all that can be known without running anything: fields, files, references into the
pipeline's own package. Every fault of every spec is collected, so a deployment fails once with the whole list.
Nothing here opens a table, imports torch or talks to S3.
"""

import ast
import copy
import functools
import hashlib
import importlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from batch_scoring.storage import Folder, open_folder

PROJECT = Path(__file__).resolve().parent.parent
PIPELINES = Path(__file__).resolve().parent / "pipelines"

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


def _reachable(location: str) -> str:
    if "://" in location and not location.startswith("s3://"):
        raise ValueError("no such kind of storage; expected a path or s3://bucket/prefix")
    if not location.startswith("/") and (".." in location.split("/") or "\\" in location):
        raise ValueError("leaves the data root; expected a path below it, an absolute path or s3://bucket/prefix")
    return location


Location = Annotated[str, AfterValidator(_reachable)]
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

    landing: Location = Field(
        default="", description="folder or s3:// prefix above dt=YYYY-MM-DD; <name>/landing if empty"
    )
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

    bundle: Location = Field(min_length=1, description="bundle folder or s3:// prefix of the version in force")
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
        pipeline, wrong = _declared(file, root)
        faults += [f"{_shown(file)}: {fault}" for fault in (*wrong, *(_unmet(pipeline) if pipeline else ()))]
        pipelines += [pipeline] if pipeline else []
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
    pipeline, faults = _declared(file, data_root())
    if pipeline is None or faults:
        raise SpecError([f"{_shown(file)}: {fault}" for fault in faults])
    return pipeline


def _declared(file: Path, root: str) -> tuple[Pipeline | None, list[str]]:
    """The pipeline of a spec, and what is wrong with its fields; what they refer to may be missing.

    Where a field is wrong, the pipeline's spec has only the sections that are right; None if it is no YAML.
    """
    try:
        content = _read_yaml(file)
    except (yaml.YAMLError, OSError, UnicodeDecodeError, TypeError) as error:
        return None, [" ".join(str(error).split())]
    unset: dict[tuple[str, ...], str] = {}
    content = _expand(content, (), unset)
    faults = [f"{'.'.join(path)}: {fault}" for path, fault in unset.items()]
    try:
        spec = PipelineSpec.model_validate(content)
    except ValidationError as error:
        wrong = [fault for fault in error.errors(include_url=False) if tuple(map(str, fault["loc"])) not in unset]
        faults += _describe(wrong)
        spec = _right_part(content, error)
    faults += _clashes(spec)
    return Pipeline(spec, file.parent, f"batch_scoring.pipelines.{file.parent.name}", root), faults


def _shown(file: Path) -> str:
    """A spec's path as messages show it."""
    return os.path.relpath(file, PROJECT) if file.is_relative_to(PROJECT) else str(file)


def _read_yaml(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(f"is {type(content).__name__}; expected a mapping with name, description, partitions, …")
    return content


def _expand(value: Any, path: tuple[str, ...], unset: dict[tuple[str, ...], str]) -> Any:  # noqa: ANN401  (any YAML value)
    """Replace `${NAME}` and `${NAME:-default}` in every string below `value`; what is not set goes into `unset`."""
    if isinstance(value, dict):
        return {key: _expand(item, (*path, str(key)), unset) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, (*path, str(index)), unset) for index, item in enumerate(value)]

    def variable(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name) or default
        if found is None:
            unset[path] = f"{value!r}: the environment variable {name} is not set; set it or write ${{{name}:-default}}"
        return found or ""

    if isinstance(value, str):
        value = re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", variable, value)
    return None if path in unset else value  # no value at all, so that nobody takes it for one


def _describe(faults: Iterable[Any]) -> Iterator[str]:
    """One line a wrong field: its path, the value found, what is accepted. `faults`: as pydantic lists them."""

    def path_of(fault: Any) -> tuple[str, ...]:  # noqa: ANN401  (pydantic's own dictionary)
        # a field of two kinds is one field
        return tuple(str(part) for part in fault["loc"] if str(part) not in ("constrained-int", "literal['auto']"))

    for path, group in itertools.groupby(faults, path_of):
        fault, *others = group
        name = ".".join(path)
        value = "" if isinstance(fault["input"], dict) else f"{fault['input']!r}: "
        if fault["type"] == "extra_forbidden":
            yield f"{name}: unknown field; accepted here: {', '.join(_fields(path[:-1]))}"
        elif fault["type"] == "missing":
            yield f"{name}: missing; expected {_meaning(path)}"
        elif fault["type"] == "value_error":
            yield f"{name}: {value}{fault['msg'].removeprefix('Value error, ')}"
        else:
            messages = " or ".join(one["msg"][0].lower() + one["msg"][1:] for one in (fault, *others))
            yield f"{name}: {value}{messages}; expected {_meaning(path)}"


def _right_part(content: dict[str, Any], error: ValidationError) -> PipelineSpec:
    """The spec with those of its fields that are right, so that what they refer to can be looked at all the same."""
    content = copy.deepcopy(content)
    wrong = set()
    for fault in error.errors():
        *above, last = fault["loc"]
        if fault["type"] == "extra_forbidden":
            place: Any = content
            for part in above:
                place = place[part]
            place.pop(last, None)
        else:
            wrong.add(fault["loc"][0])
    right = {}
    for name, field in PipelineSpec.model_fields.items():
        if name in content and name not in wrong:
            is_section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            right[name] = field.annotation.model_validate(content[name]) if is_section else content[name]  # type: ignore[union-attr]
    return PipelineSpec.model_construct(**right)


def _clashes(spec: PipelineSpec) -> Iterator[str]:
    """Column names that the tables need themselves, or that name two things."""
    key, features = getattr(spec, "input", None), getattr(spec, "features", None)
    names = [("input.key", key.key)] if key else []
    if features:
        names += [("features.numeric", name) for name in features.numeric]
        names += [("features.categorical", name) for name in features.categorical]
    for field, name in names:
        if name in RESERVED or name.startswith("prob_class_"):
            yield f"{field}: {name!r} is a column of our tables; rename it, {', '.join(RESERVED)} are taken"
    if key and features and key.key in features.names:
        yield f"input.key: {key.key!r} is also a feature; expected a column of its own"


def _section(path: Sequence[str]) -> type[BaseModel]:
    model: type[BaseModel] = PipelineSpec
    for part in path:
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        model = field.annotation
    return model


def _fields(path: Sequence[str]) -> list[str]:
    return [field.alias or name for name, field in _section(path).model_fields.items()]


def _meaning(path: Sequence[str]) -> str:
    if path[-1].isdigit():  # an element of a list
        path = path[:-1]
    fields = _section(path[:-1]).model_fields
    field = next((f for n, f in fields.items() if path[-1] in (n, f.alias)), None)
    if field is None:
        return "a value"
    return field.description or f"a section with {', '.join(_fields(path))}"


def _unmet(pipeline: Pipeline) -> Iterator[str]:
    """What the spec refers to and is not there."""
    spec = pipeline.spec
    name, features, model = (getattr(spec, section, None) for section in ("name", "features", "model"))
    if name and name != pipeline.folder.name:
        yield f"name: {name!r}; expected the folder's name, {pipeline.folder.name!r}"
    references = [("features.schema", features.contract)] if features else []
    references += [("model.network", model.network)] if model else []
    for field, reference in references:
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
        except ValueError as error:
            yield f"{field}: {reference!r}: {module}.py is no Python: {error}"
            continue
        if attribute not in classes:
            there = ", ".join(classes) or "none"
            yield f"{field}: {reference!r}: {module}.py defines no class {attribute}; its classes: {there}"
        elif field == "features.schema":
            yield from _unknown_columns(spec, classes, attribute)
    if model is None:
        return
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
    source = getattr(spec, "input", None)
    for field, wanted in (
        ("input.key", (source.key,) if source else ()),
        ("features.numeric", spec.features.numeric),
        ("features.categorical", spec.features.categorical),
    ):
        for column in wanted:
            if column not in columns:
                yield f"{field}: {column!r} is no column of {spec.features.contract}; it has {', '.join(columns)}"
