"""Rules, held against a reading of the same text row by row in Python with three-valued logic."""

import ast
import operator
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.config.expressions import Rule
from batch_scoring.errors import RuleError

ROWS = pa.record_batch(
    {
        "age": pa.array([17, 18, None, 40], pa.int64()),
        "rate": pa.array([0.5, float("nan"), None, -2.5]),
        "region": pa.array(["x", "y", "z", None]).dictionary_encode(),
        "consent": pa.array([True, False, None, True]),
        "amount in eur": pa.array([1, 2, 3, None], pa.int32()),
        "joined": pa.array([date(2026, 1, 1), None, date(2026, 2, 1), date(2025, 1, 1)]),
        "seen": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * 3 + [None], pa.timestamp("ns", "Europe/Berlin")),
        "tags": pa.array([["a"], [], None, ["b"]]),
    }
)
NAMES = ("age", "rate", "region", "consent")


def holds(text: str) -> list[bool | None]:
    found: list[bool | None] = Rule.parse(text, "decisions.eligible.r").bind(ROWS.schema)(ROWS).to_pylist()
    return found


def refusal(text: str) -> str:
    with pytest.raises(RuleError) as caught:
        Rule.parse(text, "decisions.eligible.r").bind(ROWS.schema)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age >= 18 and region not in ['x']", [False, True, None, None]),
        ("consent", [True, False, None, True]),
        ("not consent or age < 20", [True, True, None, False]),
        ("18 <= age < 40", [False, True, None, False]),
        ("rate != 7", [True, None, None, True]),
        ("not (rate < 0)", [True, None, None, False]),
        ("rate / 0 > 1", [None, None, None, None]),
        ("age * 2 - 1 == 35", [False, True, None, False]),
        ("-age < -17", [False, True, None, True]),
        ("`amount in eur` > 1 and age > 17", [False, True, None, None]),
        ("joined >= '2026-01-01'", [True, None, True, False]),
        ("'2026-01-01' <= joined", [True, None, True, False]),
        ("joined in ['2026-01-01', '2025-01-01']", [True, None, False, True]),
        ("seen > '2025-12-31T23:00'", [True, True, True, None]),
        ("seen > '2026-01-01T00:30+01:00'", [True, True, True, None]),
        ("joined < seen", [False, None, False, None]),
        ("region is None", [False, False, False, True]),
        ("age is not None", [True, True, False, True]),
        ("age in [17, 40.0]", [True, False, None, True]),
        ("consent == True", [True, False, None, True]),
        ("region > 'x'", [False, True, True, None]),
    ],
)
def test_a_rule_holds_is_broken_or_is_unknown(text: str, expected: list[bool | None]) -> None:
    assert holds(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age >=", "'age >=' is not a rule: invalid syntax; expected column names"),
        ("", "'' is not a rule: "),
        ("agee > 1", "'agee > 1' mentions agee, which is no column here; did you mean age?"),
        ("income > 1", "mentions income, which is no column here; there are age, rate, region, "),
        ("f(age)", "'f(age)', column 1: f(age) is not accepted; expected column names"),
        ("age > 1 and x.y", "column 13: x.y is not accepted"),
        ("age % 2 == 0", "column 1: age % 2 is not accepted"),
        ("~age > 1", "column 1: ~age is not accepted"),
        ("True", "'True', column 1: it mentions no column; expected a rule about the columns of a row"),
        ("age + 'x' > 1", "column 7: 'x' is a text; expected a number"),
        ("age == 'a'", "column 8: number is compared with text; expected another number"),
        ("region", "column 1: region is a text; expected something that is true or false, such as a comparison"),
        ("not age", "column 5: age is a number; expected something that is true or false"),
        ("joined > 'monday'", "column 10: 'monday' is compared with a date; expected text such as '2026-11-28'"),
        ("joined > region", "column 10: region is compared with a date; expected text such as"),
        ("age in []", "column 8: the list is empty; expected at least one value"),
        ("age in region", "column 8: in region; expected in a list such as ['a', 'b']"),
        ("age in [rate]", "column 9: rate in a list; expected numbers, texts or dates as they are"),
        ("age is 3", "column 8: is 3; expected is None or is not None; else =="),
        ("None == age", "column 1: None stands alone; expected is None or is not None, after a column"),
        ("age > 99999999999999999999", "column 7: 99999999999999999999 is too large; expected a number of 64 bits"),
        ("tags is None", "column 1: tags is list<item: string>; expected a column of numbers, text, true or false"),
        ("'é' == region and f(`amount in eur`)", "column 19: f(`amount in eur`) is not accepted"),
        ("age == b'x'", "column 8: b'x' is not accepted"),
        ("(" * 300 + "age" + ")" * 300, "too many nested parentheses"),
    ],
)
def test_what_is_not_a_rule_is_refused_with_the_place_and_what_is_accepted(text: str, message: str) -> None:
    said = refusal(text)
    assert said.startswith("decisions.eligible.r: ")
    assert message in said


def test_names_are_the_columns_once_each_in_the_order_of_the_text() -> None:
    assert set(Rule.parse("`amount in eur` > age and (age < 3 or region == 'age2')", "r").names) == {
        "amount in eur",
        "age",
        "region",
    }


def test_a_rule_holds_for_a_batch_without_rows() -> None:
    assert Rule.parse("age > 1", "r").bind(ROWS.schema)(ROWS.slice(0, 0)).to_pylist() == []


def test_large_integers_are_compared_exactly() -> None:
    rows = pa.record_batch({"id": pa.array([2**53, 2**53 + 1, 2**63 - 1], pa.int64())})
    assert Rule.parse(f"id == {2**53 + 1}", "r").bind(rows.schema)(rows).to_pylist() == [False, True, False]


# the same text read by another reader: Python's operators, a row at a time, with None for unknown

_OPERATORS: Mapping[type[ast.AST], Any] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: a / b if b else None,
}


def by_hand(node: ast.expr, row: dict[str, Any]) -> Any:  # noqa: ANN401  (a cell)
    match node:
        case ast.Name(id=name):
            value = row[name]
            return None if value != value else value
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            value = by_hand(operand, row)
            return None if value is None else not value
        case ast.UnaryOp(operand=operand):
            value = by_hand(operand, row)
            return None if value is None else -value
        case ast.BoolOp(op=op, values=values):
            found = [by_hand(value, row) for value in values]
            decisive = isinstance(op, ast.Or)
            return decisive if decisive in found else None if None in found else not decisive
        case ast.BinOp(left=left, op=op, right=right):
            one, other = by_hand(left, row), by_hand(right, row)
            return None if one is None or other is None else _OPERATORS[type(op)](one, other)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            one = by_hand(left, row)
            if isinstance(op, ast.Is | ast.IsNot):
                return (one is None) == isinstance(op, ast.Is)
            if isinstance(op, ast.In | ast.NotIn):
                assert isinstance(right, ast.List)
                values = [by_hand(item, row) for item in right.elts]
                return None if one is None else (one in values) == isinstance(op, ast.In)
            other = by_hand(right, row)
            return None if one is None or other is None else _OPERATORS[type(op)](one, other)
    raise AssertionError(ast.dump(node))


numbers = st.recursive(
    st.sampled_from(["age", "rate", "0", "3", "18", "0.5", "2.25"]),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner), st.builds("-{}".format, inner)
    ),
    max_leaves=3,
)
comparisons = st.one_of(
    st.builds("{} {} {}".format, numbers, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), numbers),
    st.builds("region {} '{}'".format, st.sampled_from(["==", "!=", "<", ">="]), st.sampled_from("xyz")),
    st.builds("{} {} [3, 18, 0.5]".format, st.sampled_from(["age", "rate"]), st.sampled_from(["in", "not in"])),
    st.builds("region {} ['x', 'q']".format, st.sampled_from(["in", "not in"])),
    st.builds("{} {} None".format, st.sampled_from(NAMES), st.sampled_from(["is", "is not"])),
    st.just("consent"),
)
rules = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("(not {})".format, inner),
    ),
    max_leaves=5,
).filter(lambda text: any(name in text for name in NAMES))
cells = {
    "age": st.none() | st.integers(-3, 40),
    "rate": st.none() | st.sampled_from([0.0, 0.5, -2.25, 18.0, float("nan")]),
    "region": st.none() | st.sampled_from("xyz"),
    "consent": st.none() | st.booleans(),
}


@given(rules, st.lists(st.fixed_dictionaries(cells), min_size=1, max_size=8))
def test_arrow_finds_what_a_reading_row_by_row_finds(text: str, rows: list[dict[str, Any]]) -> None:
    schema = pa.schema({"age": pa.int64(), "rate": pa.float64(), "region": pa.string(), "consent": pa.bool_()})
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)
    tree = ast.parse(text, mode="eval").body
    assert Rule.parse(text, "r").bind(schema)(batch).to_pylist() == [by_hand(tree, row) for row in rows]
