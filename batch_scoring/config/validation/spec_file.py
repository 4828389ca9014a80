"""Reading a `pipeline.yaml`: duplicate keys, environment variables, secrets, and the line of every field.

`spec.py` defines the fields; `spec_validation.py` checks that what they name exists.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

_EXPOSED = "a spec's values appear in Dagster's UI and database"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_SECRET_WORD = re.compile(
    r"(^|_)(ALERT|AUTH|CREDENTIALS?|DSN|PASS|PASSPHRASE|PASSWD|PASSWORDS?|PRIVATE|SECRETS?|SIGNATURE|TOKENS?|WEBHOOK)(_|$)"
    r"|(^|_|API|ACCESS|SECRET)KEYS?(_ID)?$|(_PWD|CONNECTION_STRING|DATABASE_URL)$"
)
_HARMLESS_KEYS = frozenset({"ID_KEY", "INPUT_KEY", "LABEL_KEY", "PARTITION_KEY", "PRIMARY_KEY", "ROW_KEY", "TAINT_KEY"})
"""Names of keys, and endings of such names, that are not secrets."""
_SECRET_VALUE = re.compile(r"\w://[^/\s@]*:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY")
_REMEDIES = {
    "parsing a flow": "within {…} and […], put a text that has one of { } [ ] , in double quotes",
    "'\\t'": "indent with blanks, not with tabs",
}
"""What to do, by a part of the problem."""


def read(file: Path) -> tuple[dict[str, Any], list[str]]:
    """The content of a spec, and an error for each key that appears twice in a mapping.

    Raises:
        yaml.YAMLError: it is not YAML.
        OSError, ValueError: it cannot be read, or is not UTF-8.
        TypeError: it is not a mapping whose keys are names.
    """
    loader = _Loader(file.read_text(encoding="utf-8"))
    try:
        content = loader.get_single_data()
    finally:
        loader.dispose()
    if not isinstance(content, dict):
        found = "empty" if content is None else type(content).__name__
        raise TypeError(f"is {found}; expected a mapping with name, description, partitions, …")
    if odd := [key for key in content if not isinstance(key, str)]:  # YAML reads a bare on, off, yes or no as a bool
        raise TypeError(f"{odd[0]!r} is not a field name; a spec has name, description, partitions, …")
    return content, loader.repeated


def problem_of(error: yaml.MarkedYAMLError) -> tuple[str, int | None]:
    """What makes a file no YAML, with what to do about the usual reasons, and its line."""
    marks = [mark for mark in (error.problem_mark, error.context_mark) if mark]
    begun = f"begun on line {marks[1].line + 1}:" if marks[1:] and marks[0].line != marks[1].line else ""
    problem = " ".join(f"{error.context or ''} {begun} {error.problem or ''}".split())
    remedy = next((f"; {remedy}" for said, remedy in _REMEDIES.items() if said in problem), "")
    return f"is not valid YAML: {problem}{remedy}", marks[0].line + 1 if marks else None


class _Loader(yaml.SafeLoader):
    """Collects keys that appear twice in the file; a key may still override one that a merge (`<<`) brings."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[str] = []
        self._path: list[str] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401  (PyYAML's own)
        name = str(index.value if isinstance(index, yaml.Node) else index)
        self._path.append(name)
        try:
            return super().compose_node(parent, index)
        finally:
            self._path.pop()

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401
        node = super().compose_mapping_node(anchor)
        self.repeated += self._repeated_in(node)
        return node

    def _repeated_in(self, mapping: yaml.MappingNode) -> Iterator[str]:
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in mapping.value:
            before = first.setdefault((key.tag, str(key.value)), key)
            if before is not key:
                name = ".".join([*self._path[1:], str(key.value)])
                lines = f"line {before.start_mark.line + 1} and line {key.start_mark.line + 1}"
                yield f"{name}: appears twice, in {lines}; YAML would drop the first: expected once, with all content"


def lines(text: str) -> dict[str, int]:
    """The line of every field of a spec, by its dotted path; empty if it is not YAML."""
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


Refused = dict[tuple[str, ...], str]
"""Errors of values that were removed, by path."""


def expand(value: Any, refused: Refused, path: tuple[str, ...] = ()) -> Any:  # noqa: ANN401  (any YAML value)
    """Replace `${NAME}` and `${NAME:-default}` in every string below `value`.

    Args:
        value: from the YAML.
        refused: receives variables that are not set, and secrets; their values become None.
        path: the value's path in the spec.
    """
    if isinstance(value, dict):
        return {key: expand(item, refused, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, refused, (*path, str(index))) for index, item in enumerate(value)]

    def variable(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name) or default
        if _is_secret_name(name):
            refused[path] = f"{value!r}: {name} is a secret by its name, and {_EXPOSED}; if it holds none, rename it"
        elif found is None:
            refused[path] = (
                f"{value!r}: the environment variable {name} is not set; set it or write ${{{name}:-default}}"
            )
        return found or ""

    if isinstance(value, str):
        text, value = value, _VARIABLE.sub(variable, value)
        if path not in refused and _SECRET_VALUE.search(value):
            place = "it" if _SECRET_VALUE.search(text) else repr(text)
            refused[path] = f"{place} holds a password or a private key, and {_EXPOSED}; remove it"
    return None if path in refused else value


def _is_secret_name(name: str) -> bool:
    """Whether a variable of that name holds a secret by convention: ALERT_URLS, AWS_SECRET_ACCESS_KEY, DB_PASSWORD."""
    upper = name.upper()
    if any(upper == key or upper.endswith(f"_{key}") for key in _HARMLESS_KEYS):
        return False
    return bool(_SECRET_WORD.search(upper))
