"""What is wrong with a spec, in words: field, value found, what is accepted.

Everything that can be known without running anything is looked at: fields, clashes of names, files, references into
the pipeline's own package (read as syntax: importing it would import torch and pandera), modules that it imports.
"""

import ast
import contextlib
import copy
import importlib.util
import itertools
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from batch_scoring.config.spec import PipelineSpec

RESERVED = (
    "dt",
    "stage",
    "rule",
    "column",
    "value",
    "source_file",
    "row_number",
    "raw",
    "prediction",
    "prediction_proba",
    "model_version",
    "scored_at",
)
"""Column names that the tables use themselves."""


def lines(text: str) -> dict[str, int]:
    """The line of every field of a spec, by its dotted path; of none if it is no YAML."""
    found: dict[str, int] = {}

    def walk(node: yaml.Node | None, path: str) -> None:
        children: Iterable[tuple[str, yaml.Node, yaml.Node]] = ()
        if isinstance(node, yaml.MappingNode):
            children = [(str(key.value), key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            children = [(str(index), item, item) for index, item in enumerate(node.value)]
        for name, place, value in children:
            found[path + name] = place.start_mark.line + 1
            walk(value, f"{path}{name}.")

    with contextlib.suppress(yaml.YAMLError):
        walk(yaml.compose(text, yaml.SafeLoader), "")
    return found


def line_of(field: str, known: dict[str, int]) -> int | None:
    """The line of a field, or of the section that lacks it."""
    while field and field not in known:
        field = field.rpartition(".")[0]
    return known.get(field)


def place_of(error: BaseException, folder: Path) -> str:
    """The line of a pipeline's own code that has raised an error while it was imported, as messages end with it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({Path(error.filename).name} line {error.lineno})"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == folder]
    return f" ({Path(own[-1].filename).name} line {own[-1].lineno})" if own else ""


def describe(faults: Iterable[Any]) -> Iterator[str]:
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
            messages = messages.replace("a valid tuple", "a list")  # YAML's word for it
            yield f"{name}: {value}{messages}; expected {_meaning(path)}"


def right_part(content: dict[str, Any], error: ValidationError) -> PipelineSpec:
    """The spec with those of its sections that are right, so that what they refer to can be looked at all the same."""
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
    right: dict[str, Any] = {}
    for name, field in PipelineSpec.model_fields.items():
        if name in content and name not in wrong:
            section = field.annotation
            if isinstance(section, type) and issubclass(section, BaseModel):
                with contextlib.suppress(ValidationError):  # without its unknown field it is wrong in another way
                    right[name] = section.model_validate(content[name])
            else:
                right[name] = content[name]
    return PipelineSpec.model_construct(**right)


def clashes(spec: PipelineSpec) -> Iterator[str]:
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


def unmet(spec: PipelineSpec, folder: Path, bundle: str | None) -> Iterator[str]:
    """What a spec refers to and is not there.

    Args:
        spec: with at least those of its sections that are right.
        folder: of the pipeline's package.
        bundle: path or s3:// address of the bundle folder, if the spec names one; s3:// is not looked at here.
    """
    name, features, model = (getattr(spec, section, None) for section in ("name", "features", "model"))
    if name and name != folder.name:
        yield f"name: {name!r}; expected the folder's name, {folder.name!r}"
    references = [("features.schema", features.contract)] if features else []
    references += [("model.network", model.network)] if model else []
    pods = [spec.compute.of(asset) for asset in type(spec.compute).model_fields]
    has_images = any(pod.image for pod in pods)  # besides the code location's; they may have other libraries
    for field, reference in references:
        module, attribute = reference.split(":")
        file = folder / f"{module}.py"
        if not file.is_file():
            yield f"{field}: {reference!r}: there is no {module}.py beside the spec"
            continue
        if trouble := list(_trouble(file, libraries=not has_images)):
            yield from (f"{field}: {reference!r}: {one}" for one in trouble)
            continue
        classes = _classes(file)
        if attribute not in classes:
            there = ", ".join(classes) or "none"
            yield f"{field}: {reference!r}: {module}.py defines no class {attribute}; its classes: {there}"
        elif field == "features.schema":
            yield from _unknown_columns(spec, classes, attribute)
    if bundle and not bundle.startswith("s3://") and not Path(bundle, "bundle.json").is_file():
        yield f"model.bundle: {spec.model.bundle!r}: there is no bundle.json in {bundle}; expected a bundle folder"


def _trouble(file: Path, *, libraries: bool) -> Iterator[str]:
    """What keeps a module of the pipeline's package from being imported, as far as its text tells.

    Args:
        file: the module; those of the package that it imports are looked at too.
        libraries: whether what it imports from elsewhere must be installed here.
    """
    folder, package = file.parent, f"batch_scoring.pipelines.{file.parent.name}"
    pending, seen = [folder / "__init__.py", file], set[Path]()
    while pending:
        module = pending.pop()
        if module in seen or not module.is_file():
            continue
        seen.add(module)
        try:
            source = module.read_text(encoding="utf-8")
            tree = ast.parse(source)
            with warnings.catch_warnings(action="ignore"):  # the import gives them
                compile(tree, str(module), "exec", dont_inherit=True)  # a return outside of a function parses
        except SyntaxError as error:
            yield f"{module.name} line {error.lineno} is no Python: {error.msg}"
            continue
        except ValueError as error:
            yield f"{module.name} is no Python: {error}"
            continue
        for line, name in _imports(tree, package):
            if name.startswith(f"{package}."):
                own = folder.joinpath(*name.removeprefix(f"{package}.").split("."))
                pending += [own.with_suffix(".py"), own / "__init__.py"]
                if not own.with_suffix(".py").is_file() and not own.is_dir():
                    yield f"{module.name} line {line} imports {name}, which is not there"
            elif libraries and "sys.path" not in source and not _is_there(name.partition(".")[0]):
                yield f"{module.name} line {line} imports {name}, which is not installed"


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Line and full name of the modules that a module imports; within if, try and functions they may be missing."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level <= 1:  # two dots leave the package
            yield node.lineno, ".".join(part for part in (package if node.level else "", node.module) if part)


def _is_there(name: str) -> bool:
    """Whether a top-level module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # of a module that somebody has put there by hand
        return True


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
