"""The text of a new pipeline's files, with a comment on every line that a person must confirm.

`network.py` takes any mix of columns, `train.py` trains it; both are meant to be replaced by the team's own. They are
made of the texts in `templates/`.
"""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from keyword import iskeyword
from pathlib import Path
from string import Template

from batch_scoring.cli.new.columns import Column, Label, Roles, bounds
from batch_scoring.cli.new.sample import Sample
from batch_scoring.cli.new.weights import Weights
from batch_scoring.runtime.printable import one_line, some

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
_NAME_SHOWN = 60
"""Maximum number of characters of a weight's name."""
_WEIGHTS_SHOWN = 100
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
    elif column.kind == "list[float]":
        found = f"{column.length:.0f} numbers"
    elif column.is_prose:
        found = f"text, {column.length:.0f} words on average"
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
            *_listed("text", roles.text),
            *_listed("vectors", roles.vectors),
            *(f"  # left out: {one_line(column) or 'a column'}: {why}" for column, why in roles.left_out),
            "model:",
            f"  bundle: {pipeline}/models/v1  # below the data root; a new model gets a folder of its own",
            '  network: "network:Network"',
            "",
        ]
    )


def _csv(roles: Roles, sample: Sample) -> str:
    settings = []
    if sample.csv.delimiter != ",":
        settings.append(f"delimiter: {json.dumps(sample.csv.delimiter)}")
    if sample.csv.newlines:
        settings.append("newlines: true")
    if sample.csv.quote == "none":
        settings.append("quote: none")
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


def network(pipeline: str, roles: Roles) -> str:
    """Return the text of `network.py`; it has the parts for texts and vectors only if there are some."""
    is_regression = roles.label is not None and not roles.label.classes
    extras = [name for name, columns in (("tokens", roles.text), ("vectors", roles.vectors)) if columns]
    parts = [_NETWORK_PARTS[name] for name in extras]
    sizes = "".join(f"{name}: int, " for name in extras)
    tensors = "".join(f", {name}: torch.Tensor" for name in extras)
    embedded = "embeddings" if roles.text else "embeddings of categories"
    return _filled(
        "network",
        pipeline,
        outputs="1, the predicted value" if is_regression else "number of classes; each has a logit",
        inputs=f"{embedded}, numbers{', vectors' * bool(roles.vectors)}",
        init=_def("__init__", f"numeric: int, categories: list[int], {sizes}outputs: int, hidden: int = 64", "None"),
        forward=_def("forward", f"numeric: torch.Tensor, categorical: torch.Tensor{tensors}", "torch.Tensor"),
        **{field: "".join(part[field] for part in parts) for field in _NETWORK_PARTS["tokens"]},
    )


_NETWORK_PARTS = {
    "tokens": {
        "described": "        tokens: number of the tokenizer's tokens.\n",
        "layers": "        self.tokens = nn.Embedding(tokens, 32, padding_idx=0)\n",
        "width": " + 32",
        "tensors": "            tokens: int64[rows, longest]; 0 is padding.\n",
        "read": "        length = (tokens != 0).sum(dim=1, keepdim=True).clamp(min=1)\n"
        "        text = self.tokens(tokens).sum(dim=1) / length\n",
        "parts": ", text",
    },
    "vectors": {
        "described": "        vectors: number of numbers in the lists of all vector features.\n",
        "layers": "        self.vectors = nn.LayerNorm(vectors)\n",
        "width": " + vectors",
        "tensors": "            vectors: float32[rows, v]; NaN where a list is missing.\n",
        "read": "        vector = self.vectors(vectors.nan_to_num(0.0))\n",
        "parts": ", vector",
    },
}
"""What the network needs for more than numbers and categories, by input and place in the template."""


def _def(name: str, parameters: str, returns: str) -> str:
    """Return the first line of a method, on as many lines as it needs."""
    own = ["self", *filter(None, parameters.split(", "))]
    line = f"    def {name}({', '.join(own)}) -> {returns}:"
    if len(line) <= WIDTH:
        return line
    inner = f"        {', '.join(own)}"
    inner = inner if len(inner) <= WIDTH else "\n".join(f"        {each}," for each in own)
    return f"    def {name}(\n{inner}\n    ) -> {returns}:"


def network_of(pipeline: str, roles: Roles, weights: Weights) -> str:
    """Return the text of `network.py` for weights: their outline, and where the owner's class goes."""
    inputs = {"numeric": roles.numeric, "categorical": roles.categorical, "tokens": roles.text}
    filled = {name: columns for name, columns in (inputs | {"vectors": roles.vectors}).items() if columns}
    arguments = ", ".join(f"{name}: {_annotation(value)}" for name, value in weights.arguments.items())
    return _filled(
        "network_of_weights",
        pipeline,
        typing="from typing import Any\n\n" if "Any" in arguments else "",
        file=_plain(weights.file.name),
        outline="\n".join(f"#     {line}".rstrip() for line in _outline(weights)),
        init=_def("__init__", arguments, "None"),
        forward=_def("forward", ", ".join(f"{name}: torch.Tensor" for name in filled), "torch.Tensor"),
        inputs="\n".join(line for name, columns in filled.items() for line in _described(name, columns)),
        outputs=weights.outputs,
    )


def _outline(weights: Weights) -> Iterator[str]:
    """Yield what a file of weights tells, in lines."""
    names = [one_line(name) for name in weights.shapes]
    width = min(max(map(len, names)), _NAME_SHOWN)
    for name, shape in zip(names[:_WEIGHTS_SHOWN], weights.shapes.values(), strict=False):
        yield f"{name[:_NAME_SHOWN]:{width}}  {shape}"
    if (more := len(names) - _WEIGHTS_SHOWN) > 0:
        yield f"and {more} more"
    notes = {
        "in the file's entry": weights.entry,
        "also in": some(weights.others),
        "before each name": weights.prefix,
        "not of the network": some(weights.left_out),
        "built with": json.dumps(dict(weights.arguments)) if weights.arguments else "",
    }
    said = [f"{name}: {one_line(value)}" for name, value in notes.items() if value]
    yield from ("",) * bool(said)
    for note in said:
        yield from textwrap.wrap(note, YAML_WIDTH, subsequent_indent="    ")


def _annotation(value: object) -> str:
    """Return the annotation of an argument, by the file's value of it."""
    kinds = {bool: "bool", int: "int", float: "float", str: "str"}
    if isinstance(value, list | tuple):
        inner = {kinds.get(type(item), "Any") for item in value}
        return f"list[{inner.pop() if len(inner) == 1 else 'Any'}]"
    return kinds.get(type(value), "Any")


def _described(name: str, columns: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of a docstring that say which columns an input has, in order."""
    names = ", ".join(map(one_line, columns)).replace("\\", "/").replace('"', "'")
    yield from textwrap.wrap(
        f"{name}: {_INPUTS[name].format(count=len(columns))}: {names}.",
        WIDTH,
        initial_indent=" " * 12,
        subsequent_indent=" " * 16,
        break_on_hyphens=False,
    )


_INPUTS = {
    "numeric": "float32[rows, {count}], NaN is a missing value",
    "categorical": "int64[rows, {count}], 0 is a missing or unknown word, 1 the first of vocabulary.json "
    "(if training counted from 0: categorical.clamp(min=1) - 1)",
    "tokens": "int64[rows, longest], of the texts",
    "vectors": "float32[rows, v], NaN is a missing list",
}
"""What each input is."""


def training(pipeline: str, label: Label, roles: Roles) -> str:
    """Return the text of `train.py`."""
    kind, classes = ("classes", _classes(label.classes)) if label.classes else ("numbers", "")
    parts = dict(_PLAIN_TRAINING)
    if roles.vectors:
        parts["arguments"] = '        "vectors": data.tensors["vectors"].shape[1],\n'
    if roles.text:
        parts = _TEXT_TRAINING | {"arguments": '        "tokens": data.vocabulary_size,\n'}
        if roles.vectors:
            parts["arguments"] += '        "vectors": next(data.batches(1))[0]["vectors"].shape[1],\n'
    return _filled(f"train_{kind}", pipeline, label=_literal(label.name), classes=classes, **parts)


_PLAIN_TRAINING = {"settings": "", "learned": "", "arguments": "", "numeric": 'data.tensors["numeric"]'}
_TEXT_TRAINING = {
    "settings": 'TOKENS = 4_000\n"""Pieces of words that the tokenizer learns, at most."""\n',
    "learned": "    data.train_tokenizer(TOKENS)\n",
    "numeric": 'torch.cat([tensors["numeric"] for tensors, _ in data.batches(BATCH_ROWS)])',
}
"""Parts of the script with and without text: `data.tensors` would have all texts in the width of the longest."""


def _filled(template: str, pipeline: str, **parts: object) -> str:
    text = (_TEMPLATES / f"{template}.py.txt").read_text(encoding="utf-8")
    return Template(text).substitute(name=pipeline, **parts)


def _classes(names: tuple[str, ...]) -> str:
    """Return the assignment of the classes, on as many lines as it needs."""
    texts = list(map(_literal, names))
    line = f"CLASSES = [{', '.join(texts)}]"
    return line if len(line) <= WIDTH else "\n".join(["CLASSES = [", *(f"    {text}," for text in texts), "]"])
