"""One line of a JSON Lines file in Python's eyes: its values, and why it cannot be read as declared.

Arrow decides which lines are read. This module only looks at lines that Arrow has refused, or that are among such.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa

from batch_scoring.ingest.schema import casting
from batch_scoring.runtime.printable import one_line

BLANKS = b" \t\r\n"
"""What JSON allows around values."""

_SHOWN = 60
"""Maximum number of characters of a value in a message."""

_TYPES = {
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "text": pa.string(),
    "array": pa.list_(pa.null()),
    "object": pa.struct([]),
}
"""The Arrow type of a column all of whose values are of a kind."""
_ACCEPTED = {"integer": ("integer",), "floating": ("integer", "number"), "boolean": ("boolean",)}
"""The kinds of values that a column takes, by the kind of its type; all others take text."""
_EXPECTED = {"integer": "a whole number", "floating": "a number", "boolean": "true or false"}
_LONGEST_INTEGER = len(str(-(2**63)))


class Number(str):
    """A number as it is written, also NaN and Infinity."""


class Fields(dict[str, Any]):
    """The fields of an object."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = [name for name, _ in pairs] if len(self) < len(pairs) else []
        """All names, if one of them stands more than once."""


_DECODER = json.JSONDecoder(object_pairs_hook=Fields, parse_int=Number, parse_float=Number, parse_constant=Number)


def parse(line: bytes) -> Fields:
    """Return the fields of the object on a line.

    Raises:
        ValueError: it is not one JSON object; the message says what it is.
    """
    text = line.decode("utf-8", "replace").strip(BLANKS.decode())
    if not text.startswith("{"):
        found = f"it begins with {one_line(text[:_SHOWN])!r}" if text else "it is blank"
        raise ValueError(f"{found}; expected one JSON object on each line")
    try:
        fields: Fields = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not one JSON object: {error.msg} (character {error.pos + 1})") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return fields


def kind_of(value: object) -> str:
    """Return the kind of a value: null, boolean, integer, number, text, array or object."""
    if isinstance(value, Number):
        return "integer" if re.fullmatch("-?[0-9]+", value) else "number"
    kinds = ((bool, "boolean"), (str, "text"), (list, "array"), (dict, "object"))
    return next((kind for python, kind in kinds if isinstance(value, python)), "null")


def inferred_types(lines: Iterable[bytes]) -> dict[str, pa.DataType]:
    """Return the fields of some lines with the type of their values; text where kinds are mixed, null if all are."""
    kinds: dict[str, set[str]] = {}
    for line in lines:
        try:
            fields = parse(line)
        except ValueError:
            continue
        for name, value in fields.items():
            kinds.setdefault(name, set()).add(kind_of(value))
    return {name: _common_type(found - {"null"}) for name, found in kinds.items()}


def _common_type(kinds: set[str]) -> pa.DataType:
    if len(kinds) < 2:
        return _TYPES[kinds.pop()] if kinds else pa.null()
    return pa.float64() if kinds == {"integer", "number"} else pa.string()


def misfits(fields: Fields, types: Mapping[str, pa.DataType]) -> list[str]:
    """Return the columns whose values Arrow certainly refuses to read as their types."""
    return [name for name, kind in types.items() if not _fits(fields.get(name), kind)]


def _fits(value: object, expected: pa.DataType) -> bool:
    if value is None:
        return True
    kind, wanted = kind_of(value), casting.kind_of(expected)
    accepted = ("array",) if pa.types.is_list(expected) else _ACCEPTED.get(wanted, ("text",))
    if kind == wanted == "integer":
        text = str(value)
        return len(text.lstrip("-").lstrip("0")) < _LONGEST_INTEGER and -(2**63) <= int(text) < 2**63
    return kind in accepted


def is_coercible(value: object, expected: pa.DataType) -> bool:
    """Whether a value of another kind may be read under coercion, as the same value in a Parquet file is."""
    kind = kind_of(value)
    return kind in _TYPES and casting.is_coercible(_TYPES[kind], expected)


def as_text(value: object, expected: pa.DataType) -> str | None:
    """Return a value as text that the contract casts to the expected type."""
    if isinstance(value, bool):
        return str(value) if casting.kind_of(expected) == "text" else str(int(value))
    return None if value is None else str(value)


def explain(line: bytes, types: Mapping[str, pa.DataType], coerced: Collection[str]) -> tuple[str, str]:
    """Return the rule that a line breaks, and how; the detail is empty if only Arrow sees it."""
    try:
        fields = parse(line)
    except ValueError as error:
        return "line_is_an_object", str(error)
    if twice := sorted({name for name in fields.twice if fields.twice.count(name) > 1 and name in types}):
        return "line_is_an_object", f"it has the field {', '.join(map(repr, twice))} more than once"
    for name in misfits(fields, types):
        value, expected = fields[name], types[name]
        can_coerce = name not in coerced and is_coercible(value, expected)
        if name not in coerced or not is_coercible(value, expected):
            advice = "; Field(coerce=True) in the schema accepts it" if can_coerce else ""
            wanted = _EXPECTED.get(casting.kind_of(expected), "text")
            return "fields_have_declared_types", f"{name} is {_shown(value)}; expected {wanted}{advice}"
    return ("line_is_an_object", "") if is_utf8(line) else ("is_utf8", "it is not UTF-8")


def is_utf8(line: bytes) -> bool:
    """Whether a line is valid text."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(value: object) -> str:
    kind, text = kind_of(value), one_line(str(value))
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    if kind in ("array", "object"):
        return f"an {kind}"
    return {"text": f'the text "{text}"', "boolean": text.lower()}.get(kind, f"the number {text}")
