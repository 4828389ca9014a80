"""Validation errors of a spec: the field, the value found, what is accepted.

Everything that can be known without running code is checked: fields, clashes of names, files, references into the
pipeline's own package and the modules that it imports. These modules are parsed and not imported: that would import
torch and pandera whenever the deployment is loaded.
"""

import ast
import contextlib
import copy
import difflib
import importlib.util
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

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
"""Columns of the tables besides the pipeline's own."""
OF_DECISIONS = ("action", "reason", "arm", "rank", "score", "why", "decided_at")
"""Columns of the table of decisions, which a pipeline that has one cannot use itself."""


LIKE = 0.75
"""Similarity, from 0 to 1, above which an unknown field is taken for a misspelt one: sep and escape have 0.67."""


def field_errors(errors: Iterable[ErrorDetails]) -> Iterator[str]:
    """One line per wrong field, from pydantic's errors: its path, the value found, what is accepted."""

    def path_of(error: ErrorDetails) -> tuple[str, ...]:
        # pydantic lists a field of two types once per type
        return tuple(str(part) for part in error["loc"] if str(part) not in ("constrained-int", "literal['auto']"))

    errors = list(errors)
    meant = {path: _meant(path) for path in (path_of(error) for error in errors if error["type"] == "extra_forbidden")}
    for path, group in itertools.groupby(errors, path_of):
        error, *others = group
        name = ".".join(field_path(path))
        value = "" if isinstance(error["input"], dict) else f"{error['input']!r}: "
        if error["type"].startswith("union_tag") or error["type"] == "model_attributes_type":
            yield _kind_error(error, name, path)
        elif path[-1] == _KEY:
            yield f"{name}: {value}not a name; expected lower-case letters, digits and _, a letter first"
        elif error["type"] == "extra_forbidden":
            known = f"accepted here: {', '.join(_fields(path[:-1]))}"
            yield f"{name}: unknown field; {f'did you mean {meant[path]}?' if meant[path] else known}"
        elif error["type"] == "missing" and path[-1] in (meant[wrong] for wrong in meant if wrong[:-1] == path[:-1]):
            continue  # the unknown field is the missing one, misspelt
        elif error["type"] == "missing":
            yield f"{name}: missing; expected {_meaning(path)}"
        elif error["type"] == "value_error":
            yield f"{name}: {value}{error['msg'].removeprefix('Value error, ')}"
        else:
            messages = " or ".join(one["msg"][0].lower() + one["msg"][1:] for one in (error, *others))
            messages = _PYTHON_TYPE.sub(lambda found: _YAML_TYPES.get(found[0], "a section"), messages)
            yield f"{name}: {value}{messages}; expected {_meaning(path)}"


_PYTHON_TYPE = re.compile(r"a valid tuple|a valid dictionary or instance of \w+|a valid dictionary")
_YAML_TYPES = {"a valid tuple": "a list", "a valid dictionary": "a mapping"}
"""What pydantic calls by Python's names, and YAML by others; an instance is a section of the spec."""

_KEY = "[key]"
"""What pydantic adds to the path of a name that is wrong."""


def _kind_error(error: ErrorDetails, name: str, path: Sequence[str]) -> str:
    """An error about a section whose kind is not known, such as an export."""
    kinds = ", ".join(kind for option in _sections(_annotation(path)) for kind in _kinds(option))
    if error["type"] == "union_tag_invalid":
        return f"{name}.{_KIND}: {error['ctx']['tag']!r}; expected one of {kinds}"
    if error["type"] == "union_tag_not_found":
        return f"{name}.{_KIND}: missing; expected one of {kinds}"
    return f"{name}: {error['input']!r}; expected a section with {_KIND}: one of {kinds}"


def valid_part(content: dict[str, Any], error: ValidationError) -> PipelineSpec:
    """The spec with its valid sections only, so that what they refer to can be checked all the same."""
    content = copy.deepcopy(content)
    invalid = set()
    for one in error.errors():
        *above, last = field_path(one["loc"])
        if one["type"] == "extra_forbidden":
            place: Any = content
            for part in above:
                place = place[part]
            place.pop(last, None)
        else:
            invalid.add(one["loc"][0])
    valid: dict[str, Any] = {}
    for name, field in PipelineSpec.model_fields.items():
        if name in content and name not in invalid:
            with contextlib.suppress(ValidationError):  # without its unknown field it may be invalid in another way
                valid[name] = TypeAdapter(field.rebuild_annotation()).validate_python(content[name])
    spec = PipelineSpec.model_construct(**valid)
    if "decisions" in invalid:
        del spec.__dict__["decisions"]  # None would mean that the spec has none
    return spec


def name_clashes(spec: PipelineSpec) -> Iterator[str]:
    """Column names that the tables use themselves, or that the spec gives two roles."""
    key, features = getattr(spec, "input", None), getattr(spec, "features", None)
    names = [("input.key", key.key)] if key else []
    if features:
        names += [("features.numeric", name) for name in features.numeric]
        names += [("features.categorical", name) for name in features.categorical]
        names += [("features.text", name) for name in features.text]
        names += [("features.vectors", name) for name in features.vectors]
    attributes = key.attributes if key else ()
    names += [("input.attributes", name) for name in attributes]
    reserved = (*RESERVED, *OF_DECISIONS) if getattr(spec, "decisions", None) else RESERVED
    for field, name in names:
        if name in reserved or name.startswith("prob_class_"):
            yield f"{field}: {name!r} is a column of our tables; rename it: {', '.join(reserved)} are reserved"
    if key and features and key.key in features.inputs:
        yield f"input.key: {key.key!r} is also a feature; expected a column of its own"
    kept = [name for field, name in names if field != "input.attributes"]
    for name in dict.fromkeys(attributes):
        if name in kept or attributes.count(name) > 1:
            yield (
                f"input.attributes: {name!r} is kept already; expected every attribute once, and neither the key nor "
                "features: decisions and exports see those too"
            )


def _section(path: Sequence[str]) -> type[BaseModel]:
    """The innermost section on a path, which may lead through optional sections, sections by name, and their kinds."""
    sections = [kind for kind in _annotations(path) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return sections[-1]


def field_path(path: Sequence[Any]) -> list[Any]:
    """The fields on a path of pydantic's, which also has the kinds of sections and says which part is a key."""
    is_kind = (len(_sections(above)) > 1 for above in _annotations(path))
    return [part for part, skip in zip(path, is_kind, strict=False) if not skip and part != _KEY]


def _annotation(path: Sequence[str]) -> Any:  # noqa: ANN401  (an annotation)
    return list(_annotations(path))[-1]


def _annotations(path: Iterable[Any]) -> Iterator[Any]:
    """The annotations of the spec and of each part of a path; None where a part is in no section."""
    kind: Any = PipelineSpec
    yield kind
    for part in path:
        kind = _inner(kind, str(part))
        yield kind


_KIND = "to"
"""The field that says of which kind a section is."""


def _inner(kind: Any, part: str) -> Any:  # noqa: ANN401  (an annotation)
    """The annotation of a part of a value: a field of a section, the value of a name, or the section of a kind."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = next((f for n, f in kind.model_fields.items() if part in (n, f.alias)), None)
        found = field.annotation if field else None
    elif get_origin(kind) is dict:
        found = get_args(kind)[1]
    else:
        found = next((option for option in _sections(kind) if part in _kinds(option)), None)
    only = _sections(found)
    return only[0] if len(only) == 1 else found


def _sections(kind: Any) -> list[type[BaseModel]]:  # noqa: ANN401
    """The sections among the options of an annotation; none for sections by name, which have the name between."""
    if get_origin(kind) is dict:
        return []
    options = get_args(get_args(kind)[0] if get_origin(kind) is Annotated else kind)
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def _kinds(section: type[BaseModel]) -> tuple[str, ...]:
    """The kinds that a section is for."""
    return get_args(section.model_fields[_KIND].annotation)


def _fields(path: Sequence[str]) -> list[str]:
    return [field.alias or name for name, field in _section(path).model_fields.items()]


def _meant(path: Sequence[str]) -> str:
    """The field that an unknown one resembles; empty if none does."""
    return next(iter(difflib.get_close_matches(path[-1], _fields(path[:-1]), 1, LIKE)), "")


def _meaning(path: Sequence[str]) -> str:
    if path[-1].isdigit():  # an element of a list
        path = path[:-1]
    kind = _annotation(path)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"a section with {', '.join(_fields(path))}"
    fields = _section(path[:-1]).model_fields
    field = next((f for n, f in fields.items() if path[-1] in (n, f.alias)), None)
    return (field.description if field else None) or "a value"


_DEFINITIONS: dict[str, tuple[str, type[ast.ClassDef] | type[ast.FunctionDef]]] = {
    "class": ("classes", ast.ClassDef),
    "function": ("functions", ast.FunctionDef),
}
"""What a reference may be to: its plural, and its node in the syntax tree."""


def unmet_references(spec: PipelineSpec, folder: Path, bundle: str | None) -> Iterator[str]:
    """References of a spec to things that do not exist: the folder, modules, classes, functions, columns, the bundle.

    Args:
        spec: with its valid sections at least.
        folder: of the pipeline's package.
        bundle: path or s3:// address of the bundle folder, if the spec names one; S3 is not contacted.
    """
    name, features, model = (getattr(spec, section, None) for section in ("name", "features", "model"))
    if name and name != folder.name:
        yield f"name: {name!r}; expected the folder's name, {folder.name!r}"
    references = [("features.schema", "class", features.contract)] if features else []
    if features and features.transform:
        references.append(("features.transform", "function", features.transform))
    if features and features.engineered:
        references.append(("features.engineered", "class", features.engineered))
    if features and features.encode:
        references.append(("features.encode", "function", features.encode))
    references += [("model.network", "class", model.network)] if model else []
    if (decisions := getattr(spec, "decisions", None)) and decisions.function:
        references.append(("decisions.function", "function", decisions.function))
    pods = [spec.compute.of(asset) for asset in type(spec.compute).model_fields]
    has_images = any(pod.image for pod in pods)  # the steps' images may have other libraries than this process
    for field, what, reference in references:
        module, attribute = reference.split(":")
        file = folder / f"{module}.py"
        if not file.is_file():
            yield f"{field}: {reference!r}: there is no {module}.py beside the spec"
            continue
        if errors := list(_import_errors(file, libraries=not has_images)):
            yield from (f"{field}: {reference!r}: {error}" for error in errors)
            continue
        plural, node = _DEFINITIONS[what]
        names = list(_defined(file, node))
        if attribute not in names:
            there = ", ".join(names) or "none"
            yield f"{field}: {reference!r}: {module}.py defines no {what} {attribute}; its {plural}: {there}"
        elif field == "features.schema":
            yield from _unknown_columns(spec, folder)
    if bundle and not bundle.startswith("s3://") and not Path(bundle, "bundle.json").is_file():
        yield f"model.bundle: {spec.model.bundle!r}: there is no bundle.json in {bundle}; expected a bundle folder"


def _import_errors(file: Path, *, libraries: bool) -> Iterator[str]:
    """Import errors of a module of the pipeline's package that its source text shows.

    Args:
        file: the module; modules of the package that it imports are checked too.
        libraries: whether the libraries that it imports must be installed here.
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
            with warnings.catch_warnings(action="ignore"):  # the import shows them
                compile(tree, str(module), "exec", dont_inherit=True)  # a return outside of a function does parse
        except SyntaxError as error:
            yield f"{module.name} line {error.lineno} is not valid Python: {error.msg}"
            continue
        except ValueError as error:
            yield f"{module.name} is not valid Python: {error}"
            continue
        for line, name in _imports(tree, package):
            if name.startswith(f"{package}."):
                own = folder.joinpath(*name.removeprefix(f"{package}.").split("."))
                pending += [own.with_suffix(".py"), own / "__init__.py"]
                if not own.with_suffix(".py").is_file() and not own.is_dir():
                    yield f"{module.name} line {line} imports {name}, which does not exist"
            elif libraries and "sys.path" not in source and not _is_installed(name.partition(".")[0]):
                yield f"{module.name} line {line} imports {name}, which is not installed"


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Line and full name of the modules that a module imports at its top level; elsewhere they may be missing."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level <= 1:  # two dots leave the package
            yield node.lineno, ".".join(part for part in (package if node.level else "", node.module) if part)


def _is_installed(name: str) -> bool:
    """Whether a top-level module is installed, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # a module that was put into sys.modules by hand
        return True


Definition = TypeVar("Definition", bound=ast.ClassDef | ast.FunctionDef)


def _defined(file: Path, kind: type[Definition]) -> dict[str, Definition]:
    """The classes or functions that a module defines."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, kind)}


def _column(field: ast.AnnAssign) -> str:
    """Column of a field of a pandera model: its alias, else its name."""
    if isinstance(field.value, ast.Call):
        for argument in field.value.keywords:
            if argument.arg == "alias" and isinstance(argument.value, ast.Constant):
                return str(argument.value.value)
    return field.target.id if isinstance(field.target, ast.Name) else ""


def schema_columns(spec: PipelineSpec, folder: Path) -> list[str] | None:
    """The columns that a spec's schema declares; None if only its import would show them, or there is no schema."""
    return _declared_columns(spec.features.contract, folder)


def _declared_columns(reference: str, folder: Path) -> list[str] | None:
    """The columns of a pandera model; None if only its import would show them, or there is none."""
    module, name = reference.split(":")
    try:
        classes = _defined(folder / f"{module}.py", ast.ClassDef)
        pending = [classes[name]]
    except (OSError, SyntaxError, ValueError, KeyError):
        return None
    columns: list[str] = []
    while pending:
        node = pending.pop()
        columns += [_column(part) for part in node.body if isinstance(part, ast.AnnAssign)]
        for base in node.bases:
            base_name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
            if base_name in classes:
                pending.append(classes[base_name])
            elif base_name != "DataFrameModel":
                return None  # inherits from another module
    return columns


def _unknown_columns(spec: PipelineSpec, folder: Path) -> Iterator[str]:
    """Columns that the spec names and the schema does not declare."""
    columns, features = schema_columns(spec, folder), spec.features
    if columns is None:
        return
    source = getattr(spec, "input", None)
    of_rows = [("input.key", (source.key,)), ("input.attributes", source.attributes)] if source else []
    yield from _not_among(columns, of_rows, features.contract)
    where = features.contract
    if features.transform:
        made = _declared_columns(features.engineered, folder) if features.engineered else None
        if made is None:  # the transform alone knows
            return
        columns, where = [*columns, *made], f"{where} or {features.engineered}"
    of_model = [(f"features.{kind}", getattr(features, kind)) for kind in ("numeric", "categorical", "text", "vectors")]
    yield from _not_among(columns, of_model, where)


def _not_among(columns: list[str], named: list[tuple[str, tuple[str, ...]]], where: str) -> Iterator[str]:
    for field, wanted in named:
        for column in wanted:
            if column not in columns:
                yield f"{field}: {column!r} is not a column of {where}; it has {', '.join(columns)}"
