"""What Arrow answers for a whole column is what pandera would say of its rows."""

import re

import pandas as pd
import pandera.errors
import pandera.pandas as pa
import pyarrow
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batch_scoring.ingest.schema.arrow_checks import answers

CHECKS = {
    "ge": pa.Check.ge(3),
    "gt": pa.Check.gt(3),
    "le": pa.Check.le(3),
    "lt": pa.Check.lt(3),
    "half": pa.Check.ge(2.5),
    "within": pa.Check.in_range(1, 3),
    "between": pa.Check.in_range(1, 3, include_min=False, include_max=False),
    "far": pa.Check.le(2**53 - 1),
    "named": pa.Check.ge(3, name="at least three"),
}
COLUMNS = [
    [],
    [None],
    [3],
    [2, 4],
    [1, 2, 3],
    [1, None, 3],
    [2, 3, None],
    [2**53 - 1],
    [2**53],
    [2**53 + 1, None],
    [-(2**60)],
]


def pandera_accepts(values: pyarrow.Array, checks: list[pa.Check]) -> bool:
    column = pa.Column(None, checks=checks, nullable=True)
    try:
        pa.DataFrameSchema({"x": column}).validate(pd.DataFrame({"x": values.to_pandas()}))
    except pandera.errors.SchemaError:
        return False
    return True


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("kind", [pyarrow.int64(), pyarrow.float64()])
def test_numbers(name: str, kind: pyarrow.DataType) -> None:
    found = answers([CHECKS[name]], kind)
    assert (found is None) == (name == "named")
    for column in COLUMNS if found else []:
        values = pyarrow.array(column, pyarrow.int64()).cast(kind, safe=False)
        assert all(answer(values) for answer in found) == pandera_accepts(values, [CHECKS[name]]), column


@pytest.mark.parametrize("check", [pa.Check.isin(["red", "green"]), pa.Check.notin(["blue", "Red"])])
def test_words(check: pa.Check) -> None:
    [answer] = answers([check], pyarrow.string()) or []
    for column in ([], [None], ["red"], ["red", None, "green"], ["blue"], ["red", "Red"]):
        values = pyarrow.array(column, pyarrow.string())
        assert answer(values) == pandera_accepts(values, [check]), column


PATTERNS = (
    r"^[A-Z0-9]{2}$",
    r"^\d{4}-\d{2}_[A-Z]{1,3}$",
    r"\w+\s?a*",
    r"(a|b)+c$",
    r"a|b$",
    r"^$",
    "é.",
    r"\.+|[\d.]+b",
)


@given(st.sampled_from(PATTERNS), st.lists(st.none() | st.text("aAbcé0١9-_. \n\v", max_size=6), max_size=3))
@settings(max_examples=150, deadline=None)
@example(r"^[A-Z0-9]{2}$", ["AA\n"])
@example(r"^\d{4}-\d{2}_[A-Z]{1,3}$", ["2013-07_AB", None])
@example(r"a|b$", ["ac", "bc"])
def test_a_pattern_that_arrow_sees_met_is_met_for_pandera(pattern: str, column: list[str | None]) -> None:
    check, values = pa.Check.str_matches(pattern), pyarrow.array(column, pyarrow.string())
    [answer] = answers([check], pyarrow.string()) or []
    plain = all(text is None or re.match(pattern, text, re.ASCII) for text in column)
    if answer(values):
        assert pandera_accepts(values, [check])
    else:  # only a last newline, which $ passes over in Python
        assert not plain or any((text and text.endswith("\n")) or "\v" in (text or "") for text in column)


@pytest.mark.parametrize(
    "pattern", [r"[^\d]", r"\D", r"\bword", r"(?i)red", r"(?=a)", r"a{,3}", r"(a)\1", r"[[:alpha:]]", "("]
)
def test_a_pattern_that_means_more_in_arrow_is_pandera_s(pattern: str) -> None:
    check = pa.Check.str_matches(".")
    check.statistics = {"pattern": pattern}
    assert answers([check], pyarrow.string()) is None


@pytest.mark.parametrize(
    "check",
    [
        pa.Check(lambda values: values > 3, name="greater_than"),
        pa.Check.ge(2**53),
        pa.Check.ge(3, ignore_na=False),
        pa.Check.gt(0, name="greater_than_or_equal_to"),
        pa.Check.lt(1, name="in_range"),
        pa.Check.ge(float("nan")),
        pa.Check.notin([3]),
        pa.Check(lambda value: value > 3, element_wise=True),
    ],
)
def test_what_arrow_cannot_answer_is_pandera_s(check: pa.Check) -> None:
    assert answers([pa.Check.ge(0), check], pyarrow.int64()) is None
    assert answers([pa.Check.ge(0)], pyarrow.float32()) is None, "pandas rounds the bound to float32"
