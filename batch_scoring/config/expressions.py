"""Rules over columns, such as `age >= 18 and region not in ['x']`: read from a spec, evaluated by Arrow.

The syntax is Python's, read by Python's own parser; nothing is ever run as Python. The logic has three values: a
comparison with a missing value is neither true nor false but missing (null), `and`, `or` and `not` follow Kleene, and
only `is None` and `is not None` say something about a missing value itself. A rule holds where it is true.
"""

import ast
import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal, NoReturn, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.errors import RuleError

Kind = Literal["number", "text", "bool", "date", "timestamp"]
Value: TypeAlias = Any
"""An Arrow array, or a scalar that stands for a column of one value."""

_ACCEPTED = (
    "column names (in `backticks` if they are not words), numbers, texts in quotes, True, False, and, or, not, "
    "== != < <= > >=, in and not in a list, is None, is not None, + - * /"
)
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
_OPERATIONS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
}
_QUOTED = re.compile(r"""`([^`]*)`|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_FIRST_STAND_IN = 0x4E00
"""A letter that stands for the first column in backticks while Python parses: the rule keeps its length."""


@dataclass(frozen=True)
class Rule:
    """A rule as it is written, before the types of its columns are known."""

    text: str
    where: str
    """What it belongs to, for messages: `decisions.eligible.adult`."""
    source: str
    """The text that Python parsed: a word stands for each column in backticks."""
    tree: ast.expr
    stands_for: dict[str, str]
    """The columns in backticks, by that word."""

    @classmethod
    def parse(cls, text: str, where: str) -> "Rule":
        """Read a rule.

        Raises:
            RuleError: it is not one; the message says where in the text, and what is accepted.
        """
        stands_for: dict[str, str] = {}

        def stand_in(match: re.Match[str]) -> str:
            if match[1] is None:
                return match[0]
            name = chr(_FIRST_STAND_IN + len(stands_for)).ljust(len(match[0]), "_")
            stands_for[name] = match[1]
            return name

        source = _QUOTED.sub(stand_in, text)
        try:
            tree = ast.parse(source, mode="eval").body
        except (SyntaxError, ValueError, RecursionError) as error:
            at = getattr(error, "offset", None)
            place = f", column {at}" if at else ""
            raise RuleError(f"{where}: {text!r} is not a rule{place}: {_said(error)}; expected {_ACCEPTED}") from error
        rule = cls(text, where, source, tree, stands_for)
        _Reader(rule).check()
        return rule

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that it mentions."""
        found = (node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name))
        return tuple(dict.fromkeys(self.stands_for.get(name, name) for name in found))

    def unknown(self, columns: Iterable[str]) -> str:
        """The error about a column that does not exist; empty if all that it mentions do."""
        known = [*columns]
        missing = [name for name in self.names if name not in known]
        if not missing:
            return ""
        near = difflib.get_close_matches(missing[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        return f"{self.where}: {self.text!r} mentions {missing[0]}, which is no column here; {hint}"

    def bind(self, schema: pa.Schema) -> "BoundRule":
        """Compile the rule for columns of certain types.

        Raises:
            RuleError: a column does not exist, or its type does not fit.
        """
        if error := self.unknown(schema.names):
            raise RuleError(error)
        return BoundRule(self, _Reader(self, schema).compile())


@dataclass(frozen=True)
class BoundRule:
    """A rule that can be evaluated."""

    rule: Rule
    evaluate: Callable[[pa.RecordBatch], Value]

    def __call__(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Return for each row whether the rule holds; null where that is not known."""
        return self.evaluate(batch)


@dataclass(frozen=True)
class _Part:
    """A compiled part of a rule."""

    kind: Kind
    evaluate: Callable[[pa.RecordBatch], Value]
    constant: Any = None
    """The value of a literal; None for anything else."""


class _Reader:
    """Checks and compiles the parts of one rule."""

    def __init__(self, rule: Rule, schema: pa.Schema | None = None) -> None:
        self._rule, self._schema = rule, schema

    def check(self) -> None:
        """Check the syntax alone.

        Raises:
            RuleError: a part is not accepted, or no column is mentioned.
        """
        if not self._rule.names:
            self._refuse(self._rule.tree, "it mentions no column", "a rule about the columns of a row")
        for node in ast.walk(self._rule.tree):
            if isinstance(node, ast.Constant) and not isinstance(node.value, bool | int | float | str | None):
                self._refuse(node, f"{ast.unparse(node)} is not accepted")
            if isinstance(node, ast.expr) and not isinstance(node, _NODES):
                self._refuse(node, f"{self._text(node)} is not accepted")
            if isinstance(node, ast.BinOp | ast.UnaryOp) and not isinstance(node.op, _OPERATORS):
                self._refuse(node, f"{self._text(node)} is not accepted")

    def compile(self) -> Callable[[pa.RecordBatch], Value]:
        """Compile the whole rule."""
        return self._bool(self._rule.tree).evaluate

    def _part(self, node: ast.expr) -> _Part:
        match node:
            case ast.BoolOp(op=op, values=values):
                function = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
                return _Part("bool", _folded(function, [self._bool(value).evaluate for value in values]))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _Part("bool", _applied(pc.invert, self._bool(operand)))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return self._literal(node, -value)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return _Part("number", _applied(pc.negate, self._number(operand)))
            case ast.BinOp(left=left, op=op, right=right):
                return self._arithmetic(_OPERATIONS[type(op)], self._number(left), self._number(right))
            case ast.Compare(left=left, ops=ops, comparators=others):
                pairs = zip([left, *others], ops, others, strict=False)
                return _Part("bool", _folded(pc.and_kleene, [self._comparison(*pair) for pair in pairs]))
            case ast.Name(id=name):
                return self._column(node, self._rule.stands_for.get(name, name))
            case ast.Constant(value=value):
                return self._literal(node, value)
        self._refuse(node, f"{self._text(node)} is not accepted here")

    def _literal(self, node: ast.expr, value: Any) -> _Part:  # noqa: ANN401  (any literal of Python's)
        if value is None:
            self._refuse(node, "None stands alone", "is None or is not None, after a column")
        kind: Kind = "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
        if kind == "number" and not -(2**63) <= value < 2**63:
            self._refuse(node, f"{value} is too large", "a number of 64 bits")
        scalar = pa.scalar(value)
        return _Part(kind, lambda _: scalar, value)

    def _column(self, node: ast.expr, name: str) -> _Part:
        assert self._schema is not None, "types are looked up when a rule is bound"
        index = self._schema.get_field_index(name)
        declared = self._schema.field(index).type
        kind, read = _column_of(declared)
        if kind is None:
            self._refuse(node, f"{name} is {declared}", "a column of numbers, text, true or false, dates or times")
        return _Part(kind, lambda batch: read(batch.column(name)))

    def _arithmetic(self, operation: str, left: _Part, right: _Part) -> _Part:
        function = getattr(pc, operation)

        def evaluate(batch: pa.RecordBatch) -> Value:
            found = function(_as_float(left.evaluate(batch)), _as_float(right.evaluate(batch)))
            return pc.if_else(pc.is_finite(found), found, pa.scalar(None, pa.float64()))  # of x / 0

        return _Part("number", evaluate)

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Callable[[pa.RecordBatch], Value]:
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                self._refuse(right, f"is {self._text(right)}", "is None or is not None; else ==")
            return _applied(pc.is_null if isinstance(op, ast.Is) else pc.is_valid, self._part(left))
        if isinstance(op, ast.In | ast.NotIn):
            return self._membership(left, right, negated=isinstance(op, ast.NotIn))
        one, other = self._alike(left, self._part(left), right, self._part(right))
        return _compared(getattr(pc, _COMPARISONS[type(op)]), one, other)

    def _membership(self, left: ast.expr, right: ast.expr, *, negated: bool) -> Callable[[pa.RecordBatch], Value]:
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            self._refuse(right, f"in {self._text(right)}", "in a list such as ['a', 'b']")
        values = self._part(left)
        others = [self._alike(left, values, item, self._part(item)) for item in right.elts]
        for item, (_, part) in zip(right.elts, others, strict=True):
            if part.constant is None:
                self._refuse(item, f"{self._text(item)} in a list", "numbers, texts or dates as they are")
        # one comparison each, which every type of column knows and which leaves missing values missing
        parts = [_compared(pc.equal, one, other) for one, other in others]
        if not parts:
            self._refuse(right, "the list is empty", "at least one value")
        found = _folded(pc.or_kleene, parts)
        return (lambda batch: pc.invert(found(batch))) if negated else found

    def _alike(self, left: ast.expr, one: _Part, right: ast.expr, other: _Part) -> tuple[_Part, _Part]:
        """Two parts that can be compared: text is read as a date or time if the other one is."""
        if one.kind in ("date", "timestamp") and other.kind == "text":
            other = self._moment(right, one.kind, other)
        elif other.kind in ("date", "timestamp") and one.kind == "text":
            one = self._moment(left, other.kind, one)
        if {one.kind, other.kind} == {"date", "timestamp"}:
            one, other = (_Part("timestamp", _as_timestamps(part)) for part in (one, other))
        if one.kind != other.kind:
            self._refuse(right, f"{one.kind} is compared with {other.kind}", f"another {one.kind}")
        return one, other

    def _moment(self, node: ast.expr, kind: Kind, part: _Part) -> _Part:
        try:
            if part.constant is None:
                raise ValueError
            if kind == "date":
                moment: Any = pa.scalar(date.fromisoformat(part.constant))
            else:
                found = datetime.fromisoformat(part.constant)
                found = found if found.tzinfo else found.replace(tzinfo=UTC)
                moment = pa.scalar(found.astimezone(UTC), pa.timestamp("us", "UTC"))
        except ValueError:
            self._refuse(node, f"{self._text(node)} is compared with a {kind}", "text such as '2026-11-28'")
        return _Part(kind, lambda _: moment, part.constant)

    def _bool(self, node: ast.expr) -> _Part:
        return self._of_kind(node, "bool", "something that is true or false, such as a comparison")

    def _number(self, node: ast.expr) -> _Part:
        return self._of_kind(node, "number", "a number")

    def _of_kind(self, node: ast.expr, kind: Kind, expected: str) -> _Part:
        part = self._part(node)
        if part.kind != kind:
            self._refuse(node, f"{self._text(node)} is a {part.kind}", expected)
        return part

    def _text(self, node: ast.expr) -> str:
        """A part as it is written."""
        text = ast.get_source_segment(self._rule.source, node) or ast.unparse(node)
        for word, column in self._rule.stands_for.items():
            text = text.replace(word, f"`{column}`")
        return text

    def _refuse(self, node: ast.expr, found: str, expected: str = _ACCEPTED) -> NoReturn:
        rule = self._rule
        place = len(rule.source.encode()[: node.col_offset].decode()) + 1
        raise RuleError(f"{rule.where}: {rule.text!r}, column {place}: {found}; expected {expected}")


_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Not, ast.USub)
_NODES = (
    ast.BoolOp,
    ast.UnaryOp,
    ast.BinOp,
    ast.Compare,
    ast.Name,
    ast.Constant,
    ast.List,
    ast.Tuple,
    ast.Set,
)


def _column_of(declared: pa.DataType) -> tuple[Kind | None, Callable[[pa.Array], pa.Array]]:
    """The kind of a column, and how to read it so that Arrow compares it; None if no rule can be about it."""
    if pa.types.is_dictionary(declared):
        kind, _ = _column_of(declared.value_type)
        return kind, lambda column: column.dictionary_decode()
    if pa.types.is_boolean(declared):
        return "bool", lambda column: column
    if pa.types.is_floating(declared):
        return "number", lambda column: pc.if_else(pc.is_nan(column), pa.scalar(None, declared), column)
    if pa.types.is_decimal(declared):
        return "number", _as_float
    if pa.types.is_integer(declared):
        return "number", lambda column: column
    if pa.types.is_string(declared) or pa.types.is_large_string(declared):
        return "text", lambda column: column
    if pa.types.is_date(declared):
        return "date", lambda column: column.cast(pa.date32())
    if pa.types.is_timestamp(declared):
        return "timestamp", lambda column: column.cast(pa.timestamp("us", declared.tz)).cast(pa.timestamp("us", "UTC"))
    return None, lambda column: column


def _as_float(value: Value) -> Value:
    return value.cast(pa.float64(), safe=False) if isinstance(value, pa.Array) else pa.scalar(_float(value))


def _float(value: pa.Scalar) -> float:
    number = float(value.as_py())
    return number if math.isfinite(number) else math.nan


def _as_timestamps(part: _Part) -> Callable[[pa.RecordBatch], Value]:
    kind = pa.timestamp("us", "UTC")
    return lambda batch: part.evaluate(batch).cast(pa.timestamp("us")).cast(kind)


def _applied(function: Callable[[Value], Value], part: _Part) -> Callable[[pa.RecordBatch], Value]:
    return lambda batch: function(part.evaluate(batch))


def _compared(function: Callable[[Value, Value], Value], one: _Part, other: _Part) -> Callable[[pa.RecordBatch], Value]:
    return lambda batch: function(one.evaluate(batch), other.evaluate(batch))


def _folded(
    function: Callable[[Value, Value], Value], parts: list[Callable[[pa.RecordBatch], Value]]
) -> Callable[[pa.RecordBatch], Value]:
    """Combine parts from left to right."""
    return lambda batch: functools.reduce(function, [part(batch) for part in parts])


def _said(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)
