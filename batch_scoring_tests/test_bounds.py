"""What Arrow answers for a whole column is what pandera would say of its rows."""

import pandas as pd
import pandera.errors
import pandera.pandas as pa
import pyarrow
import pytest

from batch_scoring.bounds import answers

CHECKS = {
    "ge": pa.Check.ge(3), "gt": pa.Check.gt(3), "le": pa.Check.le(3), "lt": pa.Check.lt(3), "half": pa.Check.ge(2.5),
    "within": pa.Check.in_range(1, 3), "between": pa.Check.in_range(1, 3, include_min=False, include_max=False),
    "far": pa.Check.le(2**53 - 1), "named": pa.Check.ge(3, name="at least three"),
}  # fmt: skip
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


def test_words() -> None:
    check = pa.Check.isin(["red", "green"])
    [answer] = answers([check], pyarrow.string()) or []
    for column in ([], [None], ["red"], ["red", None, "green"], ["blue"], ["red", "Red"]):
        values = pyarrow.array(column, pyarrow.string())
        assert answer(values) == pandera_accepts(values, [check]), column


@pytest.mark.parametrize(
    "check",
    [
        pa.Check(lambda values: values > 3, name="greater_than"), pa.Check.ge(2**53), pa.Check.ge(3, ignore_na=False),
        pa.Check.gt(0, name="greater_than_or_equal_to"), pa.Check.lt(1, name="in_range"),
        pa.Check.ge(float("nan")), pa.Check.notin([3]), pa.Check(lambda value: value > 3, element_wise=True),
    ],
)  # fmt: skip
def test_what_arrow_cannot_answer_is_pandera_s(check: pa.Check) -> None:
    assert answers([pa.Check.ge(0), check], pyarrow.int64()) is None
    assert answers([pa.Check.ge(0)], pyarrow.float32()) is None, "pandas rounds the bound to float32"
