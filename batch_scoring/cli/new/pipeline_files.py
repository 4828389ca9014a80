"""The text of a new pipeline's files, with a comment on every line that a person must confirm.

`network.py` takes any mix of columns, `train.py` trains it; both are meant to be replaced by the team's own. They are
made of the texts in `templates/`.
"""

import json
import re
from collections.abc import Iterable, Iterator
from keyword import iskeyword
from pathlib import Path
from string import Template

from batch_scoring.cli.new.columns import Column, Label, Roles, bounds
from batch_scoring.cli.new.sample import Sample
from batch_scoring.runtime.printable import one_line

WIDTH = 120
"""Maximum length of a line of code."""
YAML_WIDTH = 100

YEARS_BACK = 2
"""Years before the sample's whose days may be scored too."""

_TEMPLATES = Path(__file__).parent / "templates"

_OF_PANDERA = (
    *("Config", "build_schema_", "empty", "example", "from_json", "from_yaml", "get_metadata", "pydantic_validate"),
    *("strategy", "to_json", "to_json_schema", "to_schema", "to_yaml", "validate"),
)
"""Attributes of a pandera model: a column of that name has a field of another one."""
_WORDS_SHOWN = 60
"""Maximum number of characters of a comment's words."""


def class_name(pipeline: str) -> str:
    """Return the name of a pipeline's schema class: `customer_churn` -> `CustomerChurn`."""
    return "".join(part.capitalize() for part in pipeline.split("_"))


def schema(pipeline: str, roles: Roles, sample: Sample) -> str:
    """Return the text of `schema.py`."""
    source = f"{_plain(sample.file.name)} ({len(sample.rows):,} rows)"
    fields = "\n".join(_fields(roles, sample))
    return f'''"""The contract on the rows of {pipeline}; a row that breaks it is quarantined.

Written by `batch-scoring new` from {source}.
Types and ranges are guesses from this file alone: confirm each line, or correct it, and delete its comment. Columns
that are not listed are ignored.
"""

import pandera.pandas as pa


class {class_name(pipeline)}(pa.DataFrameModel):
    """One row of the table on one day."""

{fields}
'''


def _fields(roles: Roles, sample: Sample) -> Iterator[str]:
    taken: set[str] = set()
    for column in (roles.key, *roles.features):
        name = _attribute(column.name, taken)
        taken.add(name)
        settings = list(_settings(column, roles.key))
        if name != column.name:
            settings.append(f"alias={_literal(column.name)}")
        code = f"    {name}: {column.kind}" + (f" = pa.Field({', '.join(settings)})" if settings else "")
        if len(code) > WIDTH:
            code = f"    {name}: {column.kind} = pa.Field(\n        {', '.join(settings)}\n    )"
        comment = "  # the key" if column is roles.key else f"  # {_seen(column, len(sample.rows))}"
        if len(code + comment) <= WIDTH and "\n" not in code:
            yield code + comment
        else:
            yield f"    #{comment.removeprefix('  #')}\n{code}"


def _attribute(column: str, taken: set[str]) -> str:
    """Return the name of a column's field: the column's own, if Python and pandera take it."""
    name = re.sub(r"\W+", "_", column).strip("_") or "column"
    name = f"column_{name}" if name[0].isdigit() else name
    while iskeyword(name) or name in taken or name in _OF_PANDERA:
        name += "_"
    return name


def _settings(column: Column, key: Column) -> Iterator[str]:
    """Yield the arguments of a column's field."""
    if column.kind in ("int", "float") and column is not key:
        low, high = (column.low, column.high) if column.distinct <= 2 else bounds(column)
        yield f"ge={low:.15g}"
        yield f"le={high:.15g}"
    if column.missing:
        yield "nullable=True"
    if column.is_text:
        yield "coerce=True"


def _seen(column: Column, rows: int) -> str:
    """Return what the sample has in a column."""
    if column.kind in ("int", "float"):
        found = f"{column.low:.6g} to {column.high:.6g}"
    elif column.kind == "bool":
        found = "true or false"
    else:
        found = _shortened(column.words)
    words = f" ({', '.join(map(_quoted, column.nulls))} too)" if column.nulls else ""
    return f"{found}; {column.missing:,} of {rows:,} missing{words}" if column.missing else found


def _shortened(words: Iterable[str]) -> str:
    text = ", ".join(one_line(word) for word in words)
    return text if len(text) <= _WORDS_SHOWN else f"{text[:_WORDS_SHOWN].rsplit(', ', 1)[0]}, …"


def spec(pipeline: str, roles: Roles, sample: Sample, first: str) -> str:
    """Return the text of `pipeline.yaml`; `first`: the sample's first day."""
    name, start = class_name(pipeline), f"{int(first[:4]) - YEARS_BACK}-01-01"
    what = "A score"
    if roles.label:
        what = f"The {'probability' if roles.label.classes else 'value'} of {roles.label.name}"
    csv = _csv(roles, sample)
    return "\n".join(
        [
            f"name: {pipeline}",
            f"description: {_quoted(f'{what}, every day, for each {roles.key.name}.')}  # confirm: and for whom",
            f'partitions: {{start: "{start}", timezone: UTC}}  # confirm: the first day, and where days begin',
            "input:",
            f"  key: {_yaml(roles.key.name)}  # one row a day is scored for each",
            *([f"  csv: {{{csv}}}"] if csv else []),
            "features:",
            f'  schema: "schema:{name}"',
            *_listed("numeric", roles.numeric),
            *_listed("categorical", roles.categorical),
            *(f"  # left out: {one_line(column) or 'a column'}: {why}" for column, why in roles.left_out),
            "model:",
            f"  bundle: {pipeline}/models/v1  # below the data root; a new model gets a folder of its own",
            '  network: "network:Network"',
            "",
        ]
    )


def _csv(roles: Roles, sample: Sample) -> str:
    settings = []
    if sample.delimiter != ",":
        settings.append(f"delimiter: {json.dumps(sample.delimiter)}")
    if roles.nulls and sample.is_text:
        settings.append(f"null_values: {json.dumps(['', *roles.nulls])}")
    return ", ".join(settings)


def _listed(field: str, names: Iterable[str]) -> Iterator[str]:
    """Yield a list of the spec, in as many lines as it needs."""
    items = list(map(_yaml, names))
    if not items:
        return
    if len(line := f"  {field}: [{', '.join(items)}]") <= YAML_WIDTH:
        yield line
        return
    yield f"  {field}:"
    line = "    ["
    for position, item in enumerate(items):
        item += "," if position < len(items) - 1 else "]"
        if len(line) + len(item) + 1 > YAML_WIDTH:
            yield line.rstrip()
            line = "     "
        line += f"{item} "
    yield line.rstrip()


def _yaml(name: str) -> str:
    """Return a name in YAML: as it is, if nothing else can be meant."""
    is_plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.lower() not in _YAML_WORDS
    return name if is_plain else _quoted(name)


_YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


def _plain(name: str) -> str:
    """Return a file's name for a docstring."""
    return re.sub(r"[^\w .()-]", "_", name)


def _literal(text: str) -> str:
    """Return a text as ruff writes it in Python."""
    return _quoted(text) if '"' not in text or "'" in text else repr(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def network(pipeline: str, label: Label | None) -> str:
    """Return the text of `network.py`."""
    is_regression = label is not None and not label.classes
    outputs = "1, the predicted value" if is_regression else "number of classes; each has a logit"
    return _filled("network", pipeline, outputs=outputs)


def training(pipeline: str, label: Label) -> str:
    """Return the text of `train.py`."""
    kind, classes = ("classes", _classes(label.classes)) if label.classes else ("numbers", "")
    return _filled(f"train_{kind}", pipeline, label=_literal(label.name), classes=classes)


def _filled(template: str, pipeline: str, **parts: str) -> str:
    text = (_TEMPLATES / f"{template}.py.txt").read_text(encoding="utf-8")
    return Template(text).substitute(name=pipeline, **parts)


def _classes(names: tuple[str, ...]) -> str:
    """Return the assignment of the classes, on as many lines as it needs."""
    texts = list(map(_literal, names))
    line = f"CLASSES = [{', '.join(texts)}]"
    return line if len(line) <= WIDTH else "\n".join(["CLASSES = [", *(f"    {text}," for text in texts), "]"])
