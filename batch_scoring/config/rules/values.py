"""The values of a rule: columns and literals as Arrow reads them, and operations on them.

Left alone, Arrow raises for a large integer beside a fraction or for nanoseconds beside microseconds, and takes NaN for
a value: a rule that is right for a thousand days must not fail on the next one.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["number", "text", "bool", "date", "timestamp"]
KINDS: dict[Kind, str] = {
    "number": "a number",
    "text": "text",
    "bool": "true or false",
    "date": "a date",
    "timestamp": "a time",
}
"""How messages call them."""
Array: TypeAlias = Any
"""An Arrow array, or a scalar that stands for a column of one value."""
Evaluate = Callable[[pa.RecordBatch], Array]

_TIMESTAMP = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Part:
    """A compiled part of a rule."""

    kind: Kind
    evaluate: Evaluate
    literal: Any = None
    """The value of a literal; None for anything else."""
    is_whole: bool = False
    """Whether it is a number that an integer of 64 bits holds."""


def column(name: str, declared: pa.DataType) -> Part | None:
    """A column, missing where it is NaN; None if it has a type that no rule can be about."""
    if pa.types.is_dictionary(declared):
        inner = column(name, declared.value_type)
        return inner and replace(inner, evaluate=lambda batch: batch.column(name).dictionary_decode())
    found = _reading(declared)
    if found is None:
        return None
    kind, read = found
    is_whole = pa.types.is_integer(declared) and declared != pa.uint64()
    return Part(kind, lambda batch: read(batch.column(name)), is_whole=is_whole)


def _reading(declared: pa.DataType) -> tuple[Kind, Callable[[pa.Array], pa.Array]] | None:
    """The kind of a column, and how to read it."""
    types = pa.types
    if types.is_boolean(declared):
        return "bool", _as_it_is
    if types.is_floating(declared):
        return "number", lambda values: pc.if_else(pc.is_nan(values), pa.scalar(None, declared), values)
    if types.is_decimal(declared) or types.is_integer(declared):
        return "number", _as_it_is
    if types.is_string(declared) or types.is_large_string(declared):
        return "text", _as_it_is
    if types.is_date(declared):
        return "date", lambda values: values.cast(pa.date32())
    if types.is_timestamp(declared):
        in_zone = pa.timestamp("us", declared.tz)
        return "timestamp", lambda values: values.cast(in_zone, safe=False).cast(_TIMESTAMP)
    return None


def _as_it_is(values: pa.Array) -> pa.Array:
    return values


def literal(value: float | str) -> Part:
    """A literal: a number, text, True or False."""
    kind: Kind = "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
    scalar = pa.scalar(value)
    return Part(kind, lambda _: scalar, value, is_whole=isinstance(value, int))


def moment(kind: Kind, text: Part) -> Part:
    """A date or a time that a literal names; a time without a zone is in UTC.

    Raises:
        ValueError: it names none.
    """
    if not isinstance(text.literal, str):
        raise ValueError("no literal")
    if kind == "date":
        scalar = pa.scalar(date.fromisoformat(text.literal))
    else:
        found = datetime.fromisoformat(text.literal)
        scalar = pa.scalar((found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC), _TIMESTAMP)
    return Part(kind, lambda _: scalar, text.literal)


def alike(one: Part, other: Part) -> tuple[Part, Part]:
    """Two parts in types that Arrow compares: integers exactly, other numbers as float64, a date as its midnight."""
    kinds = {one.kind, other.kind}
    if kinds == {"number"} and not (one.is_whole and other.is_whole):
        return _cast(one, "number", pa.float64()), _cast(other, "number", pa.float64())
    if kinds == {"date", "timestamp"}:
        return _cast(one, "timestamp", _TIMESTAMP), _cast(other, "timestamp", _TIMESTAMP)
    return one, other


def compared(function: str, one: Part, other: Part) -> Part:
    """A comparison by a function of Arrow's."""
    left, right = alike(one, other)
    return _called(getattr(pc, function), left, right)


def is_one_of(values: Part, others: Sequence[Part]) -> Part:
    """Whether a value is one of several literals of its kind."""
    literals = [other.literal for other in others]
    if values.kind == "text":
        known = pa.array(literals, pa.string())
        return Part("bool", lambda batch: _in(values.evaluate(batch), known))
    if values.is_whole and all(other.is_whole for other in others):
        numbers = pa.array(literals, pa.int64())
        return Part("bool", lambda batch: _in(values.evaluate(batch).cast(pa.int64()), numbers))
    # numbers of different types have no common list
    return all_of("or", [compared("equal", values, other) for other in others])


def _in(values: Array, known: pa.Array) -> Array:
    found = pc.is_in(values, value_set=known.cast(values.type))
    return pc.if_else(pc.is_valid(values), found, pa.scalar(None, pa.bool_()))


def all_of(word: Literal["and", "or"], parts: Sequence[Part]) -> Part:
    """Several parts, joined by Kleene's `and` or `or`."""
    join = pc.and_kleene if word == "and" else pc.or_kleene
    return Part("bool", lambda batch: functools.reduce(join, (part.evaluate(batch) for part in parts)))


def negated(part: Part) -> Part:
    """The contrary; missing where the part is."""
    return _called(pc.invert, part)


def is_missing(part: Part) -> Part:
    """Whether a part is missing; never missing itself."""
    return _called(pc.is_null, part)


def calculated(function: str, *parts: Part) -> Part:
    """Arithmetic by a function of Arrow's, in float64; missing where it is not finite, as after a division by 0."""
    operands = [_cast(part, "number", pa.float64()) for part in parts]
    calculate = getattr(pc, function)

    def evaluate(batch: pa.RecordBatch) -> Array:
        found = calculate(*(operand.evaluate(batch) for operand in operands))
        return pc.if_else(pc.is_finite(found), found, pa.scalar(None, pa.float64()))

    return Part("number", evaluate)


def _called(function: Callable[..., Array], *parts: Part) -> Part:
    return Part("bool", lambda batch: function(*(part.evaluate(batch) for part in parts)))


def _cast(part: Part, kind: Kind, wanted: pa.DataType) -> Part:
    return replace(
        part, kind=kind, is_whole=False, evaluate=lambda batch: pc.cast(part.evaluate(batch), wanted, safe=False)
    )
