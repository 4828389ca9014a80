"""A pipeline: its spec with its place, and how the pipelines of the deployment are found.

A pipeline with a fault is left out of the deployment, and all of its faults are collected: the others are none of its
business. Nothing here opens a table, imports torch or talks to S3.
"""

import contextlib
import functools
import hashlib
import importlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from batch_scoring.config import own_code, spec_file
from batch_scoring.config.secret_names import is_secret_name, is_secret_value
from batch_scoring.config.spec import PipelineSpec
from batch_scoring.config.validation import clashes, describe, line_of, lines, place_of, right_part, unmet
from batch_scoring.errors import CodeError, SpecError, UnknownPipelineError
from batch_scoring.runtime import gc_freeze
from batch_scoring.storage.folders import Folder, open_folder

PROJECT = Path(__file__).resolve().parents[2]
PIPELINES = PROJECT / "batch_scoring" / "pipelines"

_EXPOSED = "a spec's values stand in Dagster's UI and database"


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
        """The object that a `module:attribute` reference of the spec names.

        Raises:
            CodeError: the module does not import, or has no such attribute.
        """
        module, attribute = reference.split(":")
        try:
            with gc_freeze.imports():
                return getattr(importlib.import_module(f"{self.package}.{module}"), attribute)
        except Exception as error:  # whatever a user's module may raise
            summary = f"{type(error).__name__}: {' '.join(str(error).split())}{place_of(error, self.folder)}"
            raise CodeError(f"{self.name}: {reference} cannot be loaded from {self.folder}: {summary}") from error

    @functools.cached_property
    def features_code(self) -> str:
        """Digest of all code and settings, besides the input, that decide which rows are accepted and how."""
        spec = self.spec
        settings = [spec.input.key, spec.input.csv, *self._columns, spec.scoring.rows_per_shard]
        return self._digest("features 3", self._source(spec.features.contract), settings)

    @functools.cached_property
    def scoring_code(self) -> str:
        """Digest of all code and settings, besides features and weights, that decide a score."""
        return self._digest("scoring 4", self._source(self.spec.model.network), [self.spec.input.key, *self._columns])

    @property
    def _columns(self) -> list[Any]:
        features = self.spec.features
        return [features.contract, features.numeric, features.categorical]

    def _place(self, location: str) -> Folder:
        return _place(location, self.data_root)

    def _source(self, reference: str) -> bytes:
        return own_code.source(self.folder, self.package, reference.split(":")[0])

    @staticmethod
    def _digest(engine: str, source: bytes, settings: list[Any]) -> str:
        """`engine` is raised by hand when our own code begins to give other results for the same input."""
        hasher = hashlib.sha256(engine.encode())
        hasher.update(source)
        for setting in settings:
            hasher.update((setting.model_dump_json() if isinstance(setting, BaseModel) else repr(setting)).encode())
        return hasher.hexdigest()[:32]


def _place(location: str, root: str) -> Folder:
    """A folder that a spec names; a relative one stands under the data root."""
    if location.startswith(("/", "s3://")):
        return open_folder(location)
    return open_folder(f"{root.rstrip('/')}/{location}")


def data_root() -> str:
    """The data root of this process: `BATCH_SCORING_DATA`, or `data/` beside the package.

    Raises:
        SpecError: it is neither a folder nor s3://bucket/prefix.
    """
    root = os.environ.get("BATCH_SCORING_DATA") or str(PROJECT / "data")
    if "://" not in root:
        return str(Path(root).expanduser().absolute())
    if not re.match(r"s3://[^/]", root):
        raise SpecError([f"BATCH_SCORING_DATA: {root!r}; expected a folder or s3://bucket/prefix"])
    return root


@dataclass(frozen=True)
class Broken:
    """A pipeline that is left out of the deployment until its faults are corrected."""

    name: str
    """Its folder's: what the spec says may be what is wrong."""
    faults: tuple[str, ...]
    """Each with its file, line and field."""
    output: Folder
    """Where its tables are, as far as its spec can be read."""


@dataclass(frozen=True)
class Survey:
    """What the specs of a deployment are worth."""

    sound: tuple[Pipeline, ...]
    """The pipelines without a fault."""
    broken: tuple[Broken, ...]
    """The others."""

    @property
    def faults(self) -> list[str]:
        """All faults of all specs."""
        return [fault for pipeline in self.broken for fault in pipeline.faults]

    @property
    def names(self) -> frozenset[str]:
        """Folders' names of all that there are."""
        return frozenset(pipeline.name for part in (self.sound, self.broken) for pipeline in part)

    def without(self, pipeline: Pipeline, fault: str) -> "Survey":
        """The same, with a fault of one more pipeline."""
        broken = Broken(pipeline.name, (_told(pipeline.folder / "pipeline.yaml", fault),), pipeline.output)
        return Survey(tuple(one for one in self.sound if one is not pipeline), (*self.broken, broken))

    def deployable(self) -> list[Pipeline]:
        """The pipelines that the deployment has.

        Raises:
            SpecError: none is left; listing every fault of every spec.
        """
        if not self.sound:
            raise SpecError(self.faults)
        return list(self.sound)


def load_pipelines(folder: Path = PIPELINES, root: str | None = None) -> list[Pipeline]:
    """The sound ones of all `<folder>/*/pipeline.yaml`.

    Args:
        folder: the folder of pipeline packages, itself importable as `batch_scoring.pipelines`.
        root: the data root; `data_root()` if None.

    Raises:
        SpecError: there is none; listing every fault of every spec.
    """
    return survey_pipelines(folder, root).deployable()


def survey_pipelines(folder: Path = PIPELINES, root: str | None = None) -> Survey:
    """Read every `<folder>/*/pipeline.yaml`, and say what is wrong instead of raising it.

    Args:
        folder: the folder of pipeline packages.
        root: the data root; `data_root()` if None.

    Raises:
        SpecError: there is no spec at all, or the data root itself is neither a folder nor s3://bucket/prefix.
    """
    root = root or data_root()
    pipelines: dict[str, Pipeline | None] = {}
    faults: dict[str, list[str]] = {}
    files = (place / "pipeline.yaml" for place in folder.iterdir())
    for file in sorted(file for file in files if os.path.lexists(file)):  # a link that leads nowhere is a fault
        pipelines[file.parent.name], faults[file.parent.name] = _examined(file, root)
    for file in folder.glob("*/pipeline.yml"):
        wrong = f"{_shown(file)}: no spec has this name; call it pipeline.yaml"
        faults.setdefault(file.parent.name, []).append(wrong)
    if not faults:
        raise SpecError([f"{folder}: no pipeline.yaml in any folder; expected at least one pipeline"])
    outputs = _outputs(pipelines, root)
    for name, wrong in _shared_outputs({name: outputs[name].uri for name in pipelines}, root):
        faults[name] += _placed(folder / name / "pipeline.yaml", [wrong])
    sound = (pipeline for name, pipeline in pipelines.items() if pipeline and not faults[name])
    broken = (
        Broken(name, tuple(found), outputs.get(name) or _place(name, root))
        for name, found in sorted(faults.items())
        if found
    )
    return Survey(tuple(sound), tuple(broken))


def faults_of(pipeline: Pipeline) -> list[str]:
    """What is wrong by now with the files of a pipeline that was sound when it was loaded."""
    return _examined(pipeline.folder / "pipeline.yaml", pipeline.data_root)[1]


def _examined(file: Path, root: str) -> tuple[Pipeline | None, list[str]]:
    """The pipeline of a spec, and all that is wrong with it and with what it refers to."""
    try:
        pipeline, faults = _declared(file, root)
        return pipeline, [*faults, *(_placed(file, _missing(pipeline)) if pipeline else ())]
    except Exception as error:  # whatever the files of one pipeline hold, the others go on
        return None, [_told(file, f"cannot be read: {type(error).__name__}: {' '.join(str(error).split())}")]


def _outputs(pipelines: Mapping[str, Pipeline | None], root: str) -> dict[str, Folder]:
    """Where each pipeline writes; one whose spec does not say so, where it would by default."""
    own = {name: getattr(pipeline.spec, "output", "") if pipeline else "" for name, pipeline in pipelines.items()}
    return {name: _place(output or name, root) for name, output in own.items()}


def _shared_outputs(places: Mapping[str, str], root: str) -> Iterator[tuple[str, str]]:
    """Pipelines that would take another one's tables for their own, and what is wrong with them.

    One that writes into the folder of its own name is in the right; where neither does, nobody knows whose it is.
    """
    for pair in itertools.combinations(places, 2):
        mine, theirs = (f"{places[name]}/" for name in pair)
        if not (mine.startswith(theirs) or theirs.startswith(mine)):
            continue
        at_home = [name for name in pair if places[name] == _place(name, root).uri]
        for name, other in (pair, pair[::-1]):
            if at_home != [name]:
                yield (
                    name,
                    f"output: {places[name]} is, or is within, the output of {other}, {places[other]} (or the other "
                    "way round); expected a folder of its own",
                )


def find_pipeline(name: str) -> Pipeline:
    """The pipeline of that name; what is wrong with others does not matter.

    Raises:
        UnknownPipelineError: no pipeline has the name.
        SpecError: it is left out of the deployment; listing its faults. Or there is no spec at all.
    """
    survey = survey_pipelines()
    for pipeline in survey.sound:
        if pipeline.name == name:
            return pipeline
    for broken in survey.broken:
        if broken.name == name:
            raise SpecError(list(broken.faults))
    raise UnknownPipelineError(f"no pipeline {name!r}; there are: {', '.join(sorted(survey.names))}")


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
        raise SpecError(faults)
    return pipeline


def _declared(file: Path, root: str) -> tuple[Pipeline | None, list[str]]:
    """The pipeline of a spec, and what is wrong with its fields; what they refer to may be missing.

    Where a field is wrong, the pipeline's spec has only the sections that are right; None if it is no YAML.
    """
    try:
        content, repeated = _read_yaml(file)
    except yaml.MarkedYAMLError as error:
        marks = [mark for mark in (error.problem_mark, error.context_mark) if mark]
        said = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        return None, [_told(file, f"is no YAML: {said}", marks[0].line + 1 if marks else None)]
    except (yaml.YAMLError, OSError, ValueError, TypeError) as error:  # ValueError: no UTF-8, or a day that is none
        return None, [_told(file, " ".join(str(error).split()))]
    refused: dict[tuple[str, ...], str] = {}
    content = _expand(content, (), refused)
    faults = repeated + [f"{'.'.join(path)}: {fault}" for path, fault in refused.items()]
    try:
        spec = PipelineSpec.model_validate(content)
    except ValidationError as error:
        wrong = [fault for fault in error.errors(include_url=False) if tuple(map(str, fault["loc"])) not in refused]
        faults += describe(wrong)
        spec = right_part(content, error)
    faults += clashes(spec)
    pipeline = Pipeline(spec, file.parent, f"batch_scoring.pipelines.{file.parent.name}", root)
    return pipeline, _placed(file, faults)


def _placed(file: Path, faults: Iterable[str]) -> list[str]:
    """Faults that begin with their fields, with the spec's path and the fields' lines."""
    found, known = list(faults), {}
    if found:
        with contextlib.suppress(OSError, ValueError):  # what is wrong is said all the same
            known = lines(file.read_text(encoding="utf-8"))
    return [_told(file, fault, line_of(fault.partition(": ")[0], known)) for fault in found]


def _told(file: Path, fault: str, line: int | None = None) -> str:
    return f"{_shown(file)}{f' line {line}' if line else ''}: {fault}"


def _shown(file: Path) -> str:
    """A spec's path as messages show it."""
    return os.path.relpath(file, PROJECT) if file.is_relative_to(PROJECT) else str(file)


def _read_yaml(file: Path) -> tuple[dict[str, Any], list[str]]:
    """The spec as it stands, and the keys that stand twice."""
    content, repeated = spec_file.parse(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(f"is {type(content).__name__}; expected a mapping with name, description, partitions, …")
    if odd := [key for key in content if not isinstance(key, str)]:  # YAML takes a bare on, off, yes or no for a bool
        raise TypeError(f"{odd[0]!r} is no field's name; a spec has name, description, partitions, …")
    return content, repeated


def _expand(value: Any, path: tuple[str, ...], refused: dict[tuple[str, ...], str]) -> Any:  # noqa: ANN401  (any YAML value)
    """Replace `${NAME}` and `${NAME:-default}` in every string below `value`.

    Args:
        value: of the YAML.
        path: where it stands.
        refused: is told of a variable that is not set, and of secrets, by path.
    """
    if isinstance(value, dict):
        return {key: _expand(item, (*path, str(key)), refused) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, (*path, str(index)), refused) for index, item in enumerate(value)]

    def variable(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name) or default
        if is_secret_name(name):
            refused[path] = f"{value!r}: {name} is a secret by its name, and {_EXPOSED}; if it holds none, rename it"
        elif found is None:
            refused[path] = (
                f"{value!r}: the environment variable {name} is not set; set it or write ${{{name}:-default}}"
            )
        return found or ""

    if isinstance(value, str):
        text, value = value, re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", variable, value)
        if path not in refused and is_secret_value(value):
            place = "it" if is_secret_value(text) else repr(text)
            refused[path] = f"{place} holds a password or a private key, and {_EXPOSED}; take it out"
    return None if path in refused else value  # no value at all, so that nobody takes it for one


def _missing(pipeline: Pipeline) -> Iterator[str]:
    """What the spec refers to and is not there."""
    has_bundle = hasattr(pipeline.spec, "model")
    return unmet(pipeline.spec, pipeline.folder, pipeline.bundle.uri if has_bundle else None)
