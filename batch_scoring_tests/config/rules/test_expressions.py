"""Rules, held against a reading of the same text row by row in Python with three-valued logic."""

import ast
import operator
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.config.rules.expressions import Rule
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
NAMES = ("age", "rate", "region", "consent", "joined", "seen")


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
        ("`amount in eur` not in [1, 9999999999]", [False, True, True, None]),
        ("consent == True", [True, False, None, True]),
        ("region > 'x'", [False, True, True, None]),
        (" age\n  > 17\n  and consent\n", [False, False, None, True]),
        ("region != '#'", [True, True, True, None]),
        ("1 / 0 + rate > 1", [None, None, None, None]),
        ("rate < 1e300", [True, None, None, True]),
        ("rate is None", [False, True, True, False]),
        ("(rate > 0) is None", [False, True, True, False]),
        ("1 < 2 and consent", [True, False, None, True]),
        ("consent == (age > 17)", [False, False, None, True]),
    ],
)
def test_a_rule_holds_is_broken_or_is_unknown(text: str, expected: list[bool | None]) -> None:
    assert holds(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age >=", "'age >=': invalid syntax; expected column names"),
        ("", "'': invalid syntax; expected"),
        ("agee > 1", "'agee > 1', character 1: no column agee; did you mean age?"),
        ("income > 1", "character 1: no column income; expected one of age, rate, region, consent, amount in eur"),
        ("comment == 'x'", "no column comment; expected one of age"),
        ("region == north", "character 11: no column north; expected one of age, rate, region, consent, amount in eur"),
        ("region == north", "; text is written in quotes: 'north'"),
        ("region in ['x', north]", "character 17: no column north; expected one of"),
        ("region in ['x', north]", "; text is written in quotes: 'north'"),
        ("f(age)", "'f(age)', character 1: f(age) is not accepted; expected column names"),
        ("age > 1 and x.y", "character 13: x.y is not accepted"),
        ("age % 2 == 0", "character 1: age % 2 is not accepted"),
        ("~age > 1", "character 1: ~age is not accepted"),
        ("True", "'True', character 1: no column is mentioned; expected a rule about the columns of a row"),
        ("age + 'x' > 1", "character 7: 'x' is text; expected a number"),
        ("age == 'a'", "character 8: a number is compared with text; expected a number"),
        ("region", "character 1: region is text; expected something that is true or false, such as a comparison"),
        ("not age", "character 5: age is a number; expected something that is true or false"),
        ("joined > 'monday'", "character 10: 'monday' is compared with a date; expected text such as '2026-11-28'"),
        ("joined > region", "character 10: region is compared with a date; expected text such as"),
        ("age in []", "character 8: the list is empty; expected at least one value"),
        ("age in region", "character 8: in region; expected in a list such as ['a', 'b']"),
        ("age in [rate]", "character 9: rate in a list; expected numbers, text or dates as they are"),
        ("age is 3", "character 8: is 3; expected is None or is not None; otherwise =="),
        ("None == age", "character 1: None stands alone; expected is None or is not None, after a column"),
        (
            "age > 99999999999999999999",
            "character 7: 99999999999999999999 is too large; expected an integer of 64 bits",
        ),
        ("tags is None", "character 1: tags is list<item: string>; expected a column of numbers, text, true or false"),
        ("'é' == region and f(`amount in eur`)", "character 19: f(`amount in eur`) is not accepted"),
        ("age == b'x'", "character 8: b'x' is not accepted"),
        ("(" * 300 + "age" + ")" * 300, "too many nested parentheses"),
        ("not " * 60 + "consent", "character 1: too many levels; expected at most 50 parts within each other"),
        ("not " * 4000 + "consent", "recursion depth exceeded"),
        ("not " * 4000 + "consent", "not not …'"),
        ("-True < age", "character 2: True is true or false; expected a number"),
        ("'x' in ['x'] and consent", "character 1: 'x' in a list; expected a column, and the list after it"),
        ("seen > '0001-01-01T00:00+14:00'", "character 8: '0001-01-01T00:00+14:00' is compared with a time; expected"),
        ("seen > 'noon'", "character 8: 'noon' is compared with a time; expected text such as '2026-11-28' or "),
        ("age > 17, rate", "character 1: age > 17, rate is not accepted here"),
        ("age = 18", "character 5: invalid syntax; write == instead of ="),
        ("age <> 18", "character 5: invalid syntax; write != instead of <>"),
        ("age => 18", "character 5: invalid syntax; write >= instead of =>"),
        ("consent AND age > 1", "character 9: invalid syntax; write and instead of AND"),
        ("region == 'A AND B' && consent", "character 22: invalid syntax; write and instead of &&"),
        ("region IS NULL", "character 8: invalid syntax; write is instead of IS"),
        ("consent == true", "character 12: no column true; write True instead of true"),
        ("age is null", "character 8: no column null; write None instead of null"),
        ("age is 3", "character 8: is 3; expected is None or is not None; otherwise =="),
        ("age > 1  # adults\nand consent", "'age > 1  # adults and consent', character 10: # would make a"),
        ("region == '#' # `", "character 15: # would make a comment of the rest; expected comments in YAML"),
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


@pytest.mark.parametrize("name", ["µg", "e\u0301", "ﬁ"])
def test_a_name_is_the_column_of_the_same_characters(name: str) -> None:
    rows = pa.record_batch({name: [1, 2], "other": [0, 0]})
    rule = Rule.parse(f"other == 0 and 2 == {name}", "decisions.eligible.r")
    assert rule.names == ("other", name)
    assert rule.bind(rows.schema)(rows).to_pylist() == [False, True]


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


def meant(value: Any, beside: Any) -> Any:  # noqa: ANN401  (cells)
    """Text beside a date or a time means one."""
    if isinstance(value, str) and isinstance(beside, datetime):
        return datetime.fromisoformat(value)
    return date.fromisoformat(value) if isinstance(value, str) and isinstance(beside, date) else value


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
        case ast.Compare(left=left, ops=[first, second], comparators=[middle, right]):
            parts = (ast.Compare(left, [first], [middle]), ast.Compare(middle, [second], [right]))
            return by_hand(ast.BoolOp(ast.And(), list(parts)), row)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            one = by_hand(left, row)
            if isinstance(op, ast.Is | ast.IsNot):
                return (one is None) == isinstance(op, ast.Is)
            if isinstance(op, ast.In | ast.NotIn):
                assert isinstance(right, ast.List)
                values = [meant(by_hand(item, row), one) for item in right.elts]
                return None if one is None else (one in values) == isinstance(op, ast.In)
            other = meant(by_hand(right, row), one)
            return None if one is None or other is None else _OPERATORS[type(op)](one, other)
    raise AssertionError(ast.dump(node))


numbers = st.recursive(
    st.sampled_from(["age", "rate", "0", "3", "18", "0.5", "2.25"]),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner), st.builds("-{}".format, inner)
    ),
    max_leaves=3,
)
orders = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
days = st.sampled_from(["2025-12-31", "2026-01-01", "2026-01-02"])
comparisons = st.one_of(
    st.builds("{} {} {}".format, numbers, orders, numbers),
    st.builds("region {} '{}'".format, st.sampled_from(["==", "!=", "<", ">="]), st.sampled_from("xyz")),
    st.builds("{} {} [3, 18, 0.5]".format, st.sampled_from(["age", "rate"]), st.sampled_from(["in", "not in"])),
    st.builds("region {} ['x', 'q']".format, st.sampled_from(["in", "not in"])),
    st.builds("{} {} None".format, st.sampled_from(NAMES), st.sampled_from(["is", "is not"])),
    st.builds("{} {} {} {} 18".format, numbers, orders, st.sampled_from(["age", "rate"]), orders),
    st.builds("joined {} '{}'".format, orders, days),
    st.builds("joined {} ['{}', '{}']".format, st.sampled_from(["in", "not in"]), days, days),
    st.builds("seen {} '{}T{}'".format, orders, days, st.sampled_from(["00:00+01:00", "23:30Z"])),
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
    "joined": st.none() | st.dates(date(2025, 12, 30), date(2026, 1, 3)),
    "seen": st.none()
    | st.integers(0, 5760).map(lambda minutes: datetime(2025, 12, 30, tzinfo=UTC) + timedelta(minutes=minutes)),
}
PLAIN = {
    "age": pa.int64(),
    "rate": pa.float64(),
    "region": pa.string(),
    "consent": pa.bool_(),
    "joined": pa.date32(),
    "seen": pa.timestamp("us", "UTC"),
}
TYPES = {
    "age": st.sampled_from([pa.int8(), pa.int32(), pa.int64()]),
    "rate": st.sampled_from([pa.float32(), pa.float64()]),
    "region": st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]),
    "consent": st.just(pa.bool_()),
    "joined": st.sampled_from([pa.date32(), pa.date64()]),
    "seen": st.sampled_from([pa.timestamp("us", "UTC"), pa.timestamp("ns", "Asia/Tokyo")]),
}


def found_by(text: str, rows: list[dict[str, Any]], types: dict[str, pa.DataType]) -> list[bool | None]:
    columns = {name: pa.array([row[name] for row in rows], PLAIN[name]).cast(kind) for name, kind in types.items()}
    batch = pa.record_batch(columns)
    found: list[bool | None] = Rule.parse(text, "r").bind(batch.schema)(batch).to_pylist()
    return found


@given(rules, st.lists(st.fixed_dictionaries(cells), min_size=1, max_size=8), st.fixed_dictionaries(TYPES))
def test_arrow_finds_what_a_reading_row_by_row_finds(
    text: str, rows: list[dict[str, Any]], types: dict[str, pa.DataType]
) -> None:
    tree = ast.parse(text, mode="eval").body
    assert found_by(text, rows, types) == [by_hand(tree, row) for row in rows]


@given(rules.filter(lambda text: " is " not in text), st.fixed_dictionaries(cells), st.sets(st.sampled_from(NAMES)))
def test_a_missing_value_leaves_the_answer_or_makes_it_unknown(
    text: str, row: dict[str, Any], missing: set[str]
) -> None:
    hidden = {name: None if name in missing else value for name, value in row.items()}
    answer, without = found_by(text, [row, hidden], PLAIN)
    assert without in (answer, None)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("action == 'cal'", "cal"),
        ("'cal' != action", "cal"),
        ("x > 1 and not (action in ['call', 'fax'] or y < 2)", "fax"),
        ("`action` not in ['fax']", "fax"),
        ("'call' == action == 'fax'", "fax"),
        ("action == 'call' or action in ('none',)", ""),
        ("other == 'cal' or action > 'b' or action is None", ""),
        ("action == other", ""),
    ],
)
def test_a_text_that_a_column_never_has_is_refused(text: str, wrong: str) -> None:
    rule = Rule.parse(text, "exports.calls.where")
    values = {"action": ("call", "none")}
    if not wrong:
        rule.check_values(values)
        return
    with pytest.raises(RuleError, match=f"action is never '{wrong}'; (did you mean call|expected one of call, none)"):
        rule.check_values(values)
