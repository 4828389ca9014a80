"""Rules over columns, such as `age >= 18 and region not in ['x']`: read from a spec, evaluated by Arrow.

The syntax is Python's, read by Python's own parser; nothing is ever run as Python. The logic has three values: a
comparison with a missing value is neither true nor false but missing (null), `and`, `or` and `not` follow Kleene, and
only `is None` and `is not None` say something about a missing value itself. A rule holds where it is true.
"""

import ast
import difflib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NoReturn

import pyarrow as pa

from batch_scoring.config.rules import values
from batch_scoring.config.rules.values import KINDS, Kind, Part
from batch_scoring.errors import RuleError

_ACCEPTED = (
    "column names (in `backticks` if they are not plain words), numbers, text in quotes, True, False, and, or, not, "
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
_OPERATORS = (*_OPERATIONS, ast.Not, ast.USub)
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
_LEVELS = 50
"""Of parts within parts: deeper ones would exhaust Python's stack."""
_LONGEST = 300
"""Characters of a rule that a message shows."""
_MOST_NAMES = 20
"""Columns that a message lists."""
_QUOTED = re.compile(r"""`([^`]+)`|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_FIRST_STAND_IN = 0x4E00
"""A letter that stands for the first column in backticks while Python parses: the rule keeps its length."""
_LIKE = 0.75
"""How much a misspelt word resembles the right one, at least: region does not resemble prediction."""
_OTHER_SPELLINGS = {
    "&&": "and",
    "||": "or",
    "<>": "!=",
    "=>": ">=",
    "=<": "<=",
    "=": "==",
    "AND": "and",
    "OR": "or",
    "NOT": "not",
    "IN": "in",
    "IS": "is",
    "NULL": "None",
    "null": "None",
    "none": "None",
    "TRUE": "True",
    "true": "True",
    "FALSE": "False",
    "false": "False",
}
"""What SQL and YAML write, and what rules do."""
_OTHER_SPELLING = re.compile(r"&&|\|\||<>|=>|=<|(?<![=!<>])=(?!=)|\b(?:AND|OR|NOT|IN|IS|NULL|TRUE|FALSE)\b")


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
        """Read a rule, which may have line breaks.

        Raises:
            RuleError: it is not one; the message says where in the text, and what is accepted.
        """
        text = re.sub(r"\s*\n\s*", " ", text.strip())
        _refuse_comment(text, where)
        source, stands_for = _without_backticks(text)
        try:
            tree = ast.parse(source, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            at = getattr(error, "offset", None)
            said = error.msg if isinstance(error, SyntaxError) else str(error) or "too many levels"
            place = f", character {at}" if at else ""
            raise RuleError(f"{where}: {_shown(text)}{place}: {said}; {_other_spelling(source)}") from error
        rule = cls(text, where, source, tree, stands_for)
        _check(rule)
        return rule

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that it mentions."""
        return tuple(dict.fromkeys(self.column_of(node) for node in self._mentions()))

    def check_columns(self, known: Iterable[str], hints: Mapping[str, str] = MappingProxyType({})) -> None:
        """Check that the columns exist.

        Args:
            known: the names of all columns that a rule of its kind may mention.
            hints: what to do about other columns, by name.

        Raises:
            RuleError: one does not; the message names one that resembles it.
        """
        known = [*known]
        for node in self._mentions():
            if (name := self.column_of(node)) not in known:
                self.refuse(node, f"no column {name}", hint=hints.get(name) or self._instead_of(node, known))

    def check_values(self, known: Mapping[str, Sequence[str]]) -> None:
        """Check that columns are compared with values that they can have.

        Args:
            known: all values of a column, by its name; other columns may have any.

        Raises:
            RuleError: one is not; the message names one that resembles it.
        """
        for column, literal in self._equalities():
            name, value = self.column_of(column), str(literal.value)
            if name in known and value not in known[name]:
                self.refuse(literal, f"{name} is never {value!r}", hint=nearest(value, known[name]))

    def bind(self, schema: pa.Schema) -> "BoundRule":
        """Compile the rule for columns of certain types.

        Raises:
            RuleError: a column does not exist, or its type does not fit.
        """
        self.check_columns(schema.names)
        return BoundRule(self, _Compiler(self, schema).compile())

    def column_of(self, node: ast.Name) -> str:
        """The column that a name means, as it is written: Python's parser turns characters such as µ into others."""
        return self.stands_for.get(node.id) or self.source.encode()[node.col_offset : node.end_col_offset].decode()

    def part(self, node: ast.expr) -> str:
        """A part as it is written."""
        text = ast.get_source_segment(self.source, node) or ast.unparse(node)
        for word, column in self.stands_for.items():
            text = text.replace(word, f"`{column}`")
        return text

    def refuse(self, node: ast.expr, found: str, expected: str = _ACCEPTED, *, hint: str = "") -> NoReturn:
        """Raise an error about a part.

        Args:
            node: the part.
            found: what is wrong with it.
            expected: what is accepted.
            hint: instead of that: what to do.

        Raises:
            RuleError: always.
        """
        place = len(self.source.encode()[: node.col_offset].decode()) + 1
        advice = hint or f"expected {expected}"
        raise RuleError(f"{self.where}: {_shown(self.text)}, character {place}: {found}; {advice}")

    def _equalities(self) -> Iterator[tuple[ast.Name, ast.Constant]]:
        """The columns that are compared with a text by ==, != or in a list, each with the text."""
        comparisons = [node for node in ast.walk(self.tree) if isinstance(node, ast.Compare)]
        for node in comparisons:
            for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                if not isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn):
                    continue
                others = right.elts if isinstance(right, ast.List | ast.Tuple | ast.Set) else [right]
                for pair in ((one, other) for found in others for one, other in ((left, found), (found, left))):
                    match pair:
                        case (ast.Name() as column, ast.Constant(value=str()) as literal):
                            yield column, literal

    def _instead_of(self, node: ast.Name, known: Sequence[str]) -> str:
        """What to write instead of an unknown column: perhaps text without its quotes."""
        name, advice = self.column_of(node), nearest(self.column_of(node), known)
        is_compared = any(node in _values(one) for one in ast.walk(self.tree) if isinstance(one, ast.Compare))
        is_text = is_compared and name not in _OTHER_SPELLINGS
        return f"{advice}; text is written in quotes: {name!r}" if is_text else advice

    def _mentions(self) -> Iterator[ast.Name]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Name))


@dataclass(frozen=True)
class BoundRule:
    """A rule that can be evaluated."""

    rule: Rule
    evaluate: values.Evaluate

    def __call__(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Return for each row whether the rule holds; null where that is not known."""
        return self.evaluate(batch)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def _without_quoted(text: str) -> str:
    """A text of the same length with blanks for everything in quotes or backticks."""
    return _QUOTED.sub(lambda match: " " * len(match[0]), text)


def _refuse_comment(text: str, where: str) -> None:
    """Check that a rule has no comment: when its lines are joined, here or by YAML, it would swallow what follows.

    Raises:
        RuleError: it has one.
    """
    if (place := _without_quoted(text).find("#") + 1) > 0:
        raise RuleError(
            f"{where}: {_shown(text)}, character {place}: # would make a comment of the rest; expected "
            "comments in YAML, above the rule"
        )


def _without_backticks(text: str) -> tuple[str, dict[str, str]]:
    """A text of the same length with a word for each column in backticks, and the columns by word."""
    stands_for: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        name = chr(_FIRST_STAND_IN + len(stands_for)).ljust(len(match[0]), "_")
        stands_for[name] = match[1]
        return name

    return _QUOTED.sub(stand_in, text), stands_for


def _other_spelling(source: str) -> str:
    """What to write instead of the first thing that other languages spell in another way."""
    found = _OTHER_SPELLING.search(_without_quoted(source))
    return f"write {_OTHER_SPELLINGS[found[0]]} instead of {found[0]}" if found else f"expected {_ACCEPTED}"


def nearest(name: str, known: Sequence[str]) -> str:
    """What to write instead of an unknown column, for the end of a message."""
    if name in _OTHER_SPELLINGS:
        return f"write {_OTHER_SPELLINGS[name]} instead of {name}"
    near = [one for one in known if name.startswith(f"{one} ")] or difflib.get_close_matches(name, known, 1, _LIKE)
    if near:  # after a blank: an order as in SQL
        return f"did you mean {near[0]}?"
    more = f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
    return f"expected one of {', '.join(known[:_MOST_NAMES])}{more}"


def _values(comparison: ast.Compare) -> Iterator[ast.expr]:
    """What a comparison has on its right, and in a list there."""
    for right in comparison.comparators:
        yield right
        yield from right.elts if isinstance(right, ast.List | ast.Tuple | ast.Set) else ()


def _check(rule: Rule) -> None:
    """Check a rule's syntax.

    Raises:
        RuleError: a part is not accepted, or no column is mentioned.
    """
    if _is_deep(rule.tree):
        rule.refuse(rule.tree, "too many levels", f"at most {_LEVELS} parts within each other")
    for node in ast.walk(rule.tree):
        if not isinstance(node, ast.expr):
            continue
        is_known = isinstance(node, _NODES)
        if isinstance(node, ast.Constant):
            is_known = isinstance(node.value, bool | int | float | str | None)
        elif isinstance(node, ast.BinOp | ast.UnaryOp):
            is_known = isinstance(node.op, _OPERATORS)
        if not is_known:
            rule.refuse(node, f"{rule.part(node)} is not accepted")
    if not rule.names:
        rule.refuse(rule.tree, "no column is mentioned", "a rule about the columns of a row")


def _is_deep(tree: ast.AST) -> bool:
    level: list[ast.AST] = [tree]
    for _ in range(_LEVELS):
        level = [child for node in level for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return bool(level)


class _Compiler:
    """Compiles the parts of one rule."""

    def __init__(self, rule: Rule, schema: pa.Schema) -> None:
        self._rule, self._schema = rule, schema

    def compile(self) -> values.Evaluate:
        """Compile the whole rule."""
        return self._bool(self._rule.tree).evaluate

    def _part(self, node: ast.expr) -> Part:
        match node:
            case ast.BoolOp(op=op, values=operands):
                return values.all_of("and" if isinstance(op, ast.And) else "or", [self._bool(one) for one in operands])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return values.negated(self._bool(operand))
            case ast.UnaryOp(operand=ast.Constant(value=int() | float() as value)) if not isinstance(value, bool):
                return self._literal(node, -value)
            case ast.UnaryOp(operand=operand):
                return values.calculated("negate", self._number(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return values.calculated(_OPERATIONS[type(op)], self._number(left), self._number(right))
            case ast.Compare(left=left, ops=ops, comparators=others):
                pairs = zip([left, *others], ops, others, strict=False)
                return values.all_of("and", [self._comparison(*pair) for pair in pairs])
            case ast.Name():
                return self._column(node)
            case ast.Constant(value=value):
                return self._literal(node, value)
        self._rule.refuse(node, f"{self._rule.part(node)} is not accepted here")

    def _literal(self, node: ast.expr, value: object) -> Part:
        if value is None:
            self._rule.refuse(node, "None stands alone", "is None or is not None, after a column")
        assert isinstance(value, int | float | str), "others are refused when a rule is parsed"
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            self._rule.refuse(node, f"{value} is too large", "an integer of 64 bits")
        return values.literal(value)

    def _column(self, node: ast.Name) -> Part:
        name = self._rule.column_of(node)
        declared = self._schema.field(self._schema.get_field_index(name)).type
        found = values.column(name, declared)
        if found is None:
            self._rule.refuse(node, f"{name} is {declared}", "a column of numbers, text, true or false, dates or times")
        return found

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Part:
        if isinstance(op, ast.Is | ast.IsNot):
            return self._presence(left, right, negated=isinstance(op, ast.IsNot))
        if isinstance(op, ast.In | ast.NotIn):
            return self._membership(left, right, negated=isinstance(op, ast.NotIn))
        return values.compared(_COMPARISONS[type(op)], *self._comparable(left, right))

    def _presence(self, left: ast.expr, right: ast.expr, *, negated: bool) -> Part:
        if not (isinstance(right, ast.Constant) and right.value is None):
            self._rule.refuse(right, f"is {self._rule.part(right)}", "is None or is not None; otherwise ==")
        found = values.is_missing(self._part(left))
        return values.negated(found) if negated else found

    def _membership(self, left: ast.expr, right: ast.expr, *, negated: bool) -> Part:
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            self._rule.refuse(right, f"in {self._rule.part(right)}", "in a list such as ['a', 'b']")
        if not right.elts:
            self._rule.refuse(right, "the list is empty", "at least one value")
        if self._part(left).literal is not None:
            self._rule.refuse(left, f"{self._rule.part(left)} in a list", "a column, and the list after it")
        pairs = [self._comparable(left, item) for item in right.elts]
        for item, (_, part) in zip(right.elts, pairs, strict=True):
            if part.literal is None:
                self._rule.refuse(item, f"{self._rule.part(item)} in a list", "numbers, text or dates as they are")
        found = values.is_one_of(pairs[0][0], [part for _, part in pairs])
        return values.negated(found) if negated else found

    def _comparable(self, left: ast.expr, right: ast.expr) -> tuple[Part, Part]:
        """Two parts that can be compared: text is read as a date or time if the other one is."""
        one, other = self._part(left), self._part(right)
        if one.kind in ("date", "timestamp") and other.kind == "text":
            other = self._moment(right, one.kind, other)
        elif other.kind in ("date", "timestamp") and one.kind == "text":
            one = self._moment(left, other.kind, one)
        if one.kind != other.kind and {one.kind, other.kind} != {"date", "timestamp"}:
            self._rule.refuse(right, f"{KINDS[one.kind]} is compared with {KINDS[other.kind]}", KINDS[one.kind])
        return one, other

    def _moment(self, node: ast.expr, kind: Kind, text: Part) -> Part:
        try:
            return values.moment(kind, text)
        except (ValueError, OverflowError):  # the latter if it is beyond year 1 or 9999 in UTC
            example = "'2026-11-28'" if kind == "date" else "'2026-11-28' or '2026-11-28T09:30+01:00'"
            found = f"{self._rule.part(node)} is compared with {KINDS[kind]}"
            self._rule.refuse(node, found, f"text such as {example}")

    def _bool(self, node: ast.expr) -> Part:
        return self._of_kind(node, "bool", "something that is true or false, such as a comparison")

    def _number(self, node: ast.expr) -> Part:
        return self._of_kind(node, "number", "a number")

    def _of_kind(self, node: ast.expr, kind: Kind, expected: str) -> Part:
        part = self._part(node)
        if part.kind != kind:
            self._rule.refuse(node, f"{self._rule.part(node)} is {KINDS[part.kind]}", expected)
        return part
