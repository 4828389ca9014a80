"""Finding and loading pipelines: every `pipelines/*/pipeline.yaml`, validated.

A pipeline with an error is left out of the deployment, and all of its errors are collected; the others are unaffected.
Nothing here opens a table, imports torch or contacts S3.
"""

import contextlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from batch_scoring.config.pipeline import Pipeline, locate
from batch_scoring.config.spec import PipelineSpec
from batch_scoring.config.validation import spec_file
from batch_scoring.config.validation.delivery_validation import misplaced_exports, unmet_names
from batch_scoring.config.validation.spec_validation import (
    field_errors,
    field_path,
    name_clashes,
    schema_columns,
    unmet_references,
    valid_part,
)
from batch_scoring.errors import SpecError, UnknownPipelineError
from batch_scoring.storage.folders.folder import Folder

PROJECT = Path(__file__).resolve().parents[2]
"""The checkout, or the folder that the package is installed into."""
PIPELINES = PROJECT / "batch_scoring" / "pipelines"


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
class BrokenPipeline:
    """A pipeline that is left out of the deployment until its errors are corrected."""

    name: str
    """Its folder's name: the name in the spec may be the error."""
    errors: tuple[str, ...]
    """Each with its file, line and field."""
    output: Folder
    """Where its tables are, if its spec says so legibly."""


@dataclass(frozen=True)
class Survey:
    """All pipelines of a deployment, valid and broken."""

    valid: tuple[Pipeline, ...]
    broken: tuple[BrokenPipeline, ...]

    @property
    def errors(self) -> list[str]:
        """All errors of all specs."""
        return [error for pipeline in self.broken for error in pipeline.errors]

    @property
    def names(self) -> frozenset[str]:
        """Names of all pipelines; a broken one has its folder's name."""
        return frozenset(pipeline.name for part in (self.valid, self.broken) for pipeline in part)

    def without(self, pipeline: Pipeline, error: str) -> "Survey":
        """The same survey with one more pipeline marked as broken."""
        broken = BrokenPipeline(pipeline.name, (_located(pipeline.folder / "pipeline.yaml", error),), pipeline.output)
        return Survey(tuple(one for one in self.valid if one is not pipeline), (*self.broken, broken))

    def deployable(self) -> list[Pipeline]:
        """The pipelines of the deployment.

        Raises:
            SpecError: none is left; lists every error of every spec.
        """
        if not self.valid:
            raise SpecError(self.errors)
        return list(self.valid)


def load_pipelines(folder: Path = PIPELINES, root: str | None = None) -> list[Pipeline]:
    """The valid pipelines among all `<folder>/*/pipeline.yaml`.

    Args:
        folder: the folder of pipeline packages, itself importable as `batch_scoring.pipelines`.
        root: the data root; `data_root()` if None.

    Raises:
        SpecError: there is none; lists every error of every spec.
    """
    return survey_pipelines(folder, root).deployable()


def survey_pipelines(folder: Path = PIPELINES, root: str | None = None) -> Survey:
    """Load every `<folder>/*/pipeline.yaml`; errors of a spec are returned, not raised.

    Args:
        folder: the folder of pipeline packages.
        root: the data root; `data_root()` if None.

    Raises:
        SpecError: there is no spec at all, or the data root itself is neither a folder nor s3://bucket/prefix.
    """
    root = root or data_root()
    pipelines: dict[str, Pipeline | None] = {}
    errors: dict[str, list[str]] = {}
    files = (place / "pipeline.yaml" for place in folder.iterdir())
    for file in sorted(file for file in files if os.path.lexists(file)):  # a dangling link is an error
        pipelines[file.parent.name], errors[file.parent.name] = _load(file, root)
    for file in folder.glob("*/pipeline.yml"):
        error = f"{_shown(file)}: not the name of a spec; rename it to pipeline.yaml"
        errors.setdefault(file.parent.name, []).append(error)
    if not errors:
        raise SpecError([f"{folder}: no pipeline.yaml in any folder; expected at least one pipeline"])
    outputs = _outputs(pipelines, root)
    for name, error in _shared_outputs({name: outputs[name].uri for name in pipelines}, root):
        errors[name] += _with_lines(folder / name / "pipeline.yaml", [error])
    valid = (pipeline for name, pipeline in pipelines.items() if pipeline and not errors[name])
    broken = (
        BrokenPipeline(name, tuple(found), outputs.get(name) or locate(name, root))
        for name, found in sorted(errors.items())
        if found
    )
    return Survey(tuple(valid), tuple(broken))


def find_pipeline(name: str) -> Pipeline:
    """Find a pipeline by name; errors of other pipelines do not matter.

    Raises:
        UnknownPipelineError: no pipeline has the name.
        SpecError: the pipeline is broken; lists its errors. Or there is no spec at all.
    """
    survey = survey_pipelines()
    for pipeline in survey.valid:
        if pipeline.name == name:
            return pipeline
    for broken in survey.broken:
        if broken.name == name:
            raise SpecError(list(broken.errors))
    raise UnknownPipelineError(f"no pipeline {name!r}; known pipelines: {', '.join(sorted(survey.names))}")


def declared_pipeline(name: str) -> Pipeline:
    """The pipeline as its YAML declares it, even without a bundle: for training and conversion.

    Raises:
        SpecError: there is no such spec, or one of its fields is wrong.
    """
    file = PIPELINES / name / "pipeline.yaml"
    if not file.is_file():
        raise SpecError([f"no pipeline {name!r}: there is no {_shown(file)}"])
    pipeline, errors = _declared(file, data_root())
    if pipeline is None or errors:
        raise SpecError(errors)
    return pipeline


def errors_of(pipeline: Pipeline) -> list[str]:
    """Current validation errors of a loaded pipeline's files."""
    return _load(pipeline.folder / "pipeline.yaml", pipeline.data_root)[1]


def _load(file: Path, root: str) -> tuple[Pipeline | None, list[str]]:
    """The pipeline of a spec, and all errors of the spec and of what it refers to."""
    try:
        pipeline, errors = _declared(file, root)
        return pipeline, [*errors, *(_with_lines(file, _unmet_references(pipeline)) if pipeline else ())]
    except Exception as error:  # whatever a pipeline's files contain, the other pipelines must load
        return None, [_located(file, f"cannot be read: {type(error).__name__}: {' '.join(str(error).split())}")]


def _declared(file: Path, root: str) -> tuple[Pipeline | None, list[str]]:
    """The pipeline of a spec, and the errors of its fields; what they refer to need not exist.

    With an invalid field, the pipeline's spec has only the valid sections; None if the file is not YAML.
    """
    try:
        content, errors = spec_file.read(file)
    except yaml.MarkedYAMLError as error:
        return None, [_located(file, *spec_file.problem_of(error))]
    except (yaml.YAMLError, OSError, ValueError, TypeError) as error:  # ValueError: not UTF-8, or an impossible date
        return None, [_located(file, " ".join(str(error).split()))]
    refused: spec_file.Refused = {}
    content = spec_file.expand(content, refused)
    errors += [f"{'.'.join(path)}: {error}" for path, error in refused.items()]
    try:
        spec = PipelineSpec.model_validate(content)
    except ValidationError as invalid:
        errors += field_errors(
            error
            for error in invalid.errors(include_url=False)
            if tuple(map(str, field_path(error["loc"]))) not in refused
        )
        spec = valid_part(content, invalid)
    errors += name_clashes(spec)
    pipeline = Pipeline(spec, file.parent, f"batch_scoring.pipelines.{file.parent.name}", root)
    return pipeline, _with_lines(file, errors)


def _unmet_references(pipeline: Pipeline) -> Iterator[str]:
    spec, folder = pipeline.spec, pipeline.folder
    yield from unmet_references(spec, folder, pipeline.bundle.uri if hasattr(spec, "model") else None)
    if hasattr(spec, "features") and hasattr(spec, "input"):
        yield from unmet_names(spec, schema_columns(spec, folder) or ())
    if hasattr(spec, "input"):
        yield from misplaced_exports(pipeline)


def _outputs(pipelines: Mapping[str, Pipeline | None], root: str) -> dict[str, Folder]:
    """Where each pipeline writes; the default where the spec cannot be read."""
    own = {name: getattr(pipeline.spec, "output", "") if pipeline else "" for name, pipeline in pipelines.items()}
    return {name: locate(output or name, root) for name, output in own.items()}


def _shared_outputs(places: Mapping[str, str], root: str) -> Iterator[tuple[str, str]]:
    """Pipelines whose output is within another one's, with the error.

    Of two pipelines, the one that writes into the folder of its own name is valid; if neither does, both have the
    error.
    """
    for pair in itertools.combinations(places, 2):
        mine, theirs = (f"{places[name]}/" for name in pair)
        if not (mine.startswith(theirs) or theirs.startswith(mine)):
            continue
        at_home = [name for name in pair if places[name] == locate(name, root).uri]
        for name, other in (pair, pair[::-1]):
            if at_home != [name]:
                yield (
                    name,
                    f"output: {places[name]} is, or is within, the output of {other}, {places[other]} (or the other "
                    "way round); expected a folder of its own",
                )


def _with_lines(file: Path, errors: Iterable[str]) -> list[str]:
    """Errors that begin with their fields, preceded by the spec's path and the fields' lines."""
    found, known = list(errors), {}
    if found:
        with contextlib.suppress(OSError, ValueError):  # the errors matter more than their lines
            known = spec_file.lines(file.read_text(encoding="utf-8"))
    return [_located(file, error, spec_file.line_of(error.partition(": ")[0], known)) for error in found]


def _located(file: Path, error: str, line: int | None = None) -> str:
    return f"{_shown(file)}{f' line {line}' if line else ''}: {error}"


def _shown(file: Path) -> str:
    """A spec's path as messages show it: relative to the project, if it is below."""
    return os.path.relpath(file, PROJECT) if file.is_relative_to(PROJECT) else str(file)
