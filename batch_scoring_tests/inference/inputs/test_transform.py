"""A transform gets the same columns and types each time; rows for which it raises are found, and no others are lost."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.errors import ScoringError
from batch_scoring.inference.inputs.transform import MOST_RAISING, Function, Transform, form_of, whole
from batch_scoring.inference.manifest import BrokenRow
from batch_scoring_tests.transformed_bundles import rows

Fitted = dict[str, Any]


def doubled(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    if pc.any(pc.equal(rows["x"], 7)).as_py():
        raise ValueError("x is 7,\nwhich is unlucky")
    return {"made": pc.multiply(rows["x"], 2)}


def numbers(values: list[int]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {"key": pa.array(range(len(values)), pa.int64()), "x": pa.array(values, pa.int64())}
    )


def learned(function: Function, table: pa.Table | None = None) -> Transform:
    return Transform.learn(function, {}, rows(64) if table is None else table)


@given(st.lists(st.sampled_from([1, 2, 3, 7]), max_size=60))
@settings(max_examples=80, deadline=None)
def test_rows_for_which_it_raises_are_found_and_the_others_keep_their_order(values: list[int]) -> None:
    transform = learned(doubled, pa.table({"x": [1, 2]}))
    found = transform.apply(numbers(values))
    good = [place for place, value in enumerate(values) if value != 7]
    assert found.positions.tolist() == good
    assert found.rows["key"].to_pylist() == good
    assert found.rows["made"].to_pylist() == [2 * values[place] for place in good]
    assert found.rows.schema.types == [pa.int64()] * 3
    assert [row.position for row in found.broken] == [place for place, value in enumerate(values) if value == 7]
    assert {row[1:] for row in found.broken} <= {("transform_raises", "", "ValueError: x is 7, which is unlucky")}


def test_a_function_that_raises_for_many_rows_is_at_fault_itself() -> None:
    transform = learned(doubled, pa.table({"x": [1, 2]}))
    assert len(transform.apply(numbers([7] * MOST_RAISING)).broken) == MOST_RAISING
    with pytest.raises(
        ScoringError, match=r"raises for more than 100 rows .* the function is at fault.*ValueError: x is 7"
    ):
        transform.apply(numbers([7] * (MOST_RAISING + 1)))


def test_too_little_memory_is_no_fault_of_a_row() -> None:
    def hungry(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
        if rows.num_rows > 1:
            raise MemoryError("no memory")
        return {"made": rows["x"]}

    with pytest.raises(MemoryError):
        learned(hungry, pa.table({"x": [1]})).apply(numbers([1, 2]))


def test_columns_of_other_types_become_those_of_training() -> None:
    transform = learned(lambda rows, fitted: {"made": rows["word"]}, pa.table({"n": [1], "word": ["a"]}))
    other = {
        "word": pa.array(["b", None]).dictionary_encode(),
        "n": pa.array([1, 2], pa.int8()),
        "more": pa.array([1.0, 2.0]),
    }
    found = transform.apply(pa.RecordBatch.from_pydict(other))
    assert found.rows["made"].equals(pa.array(["b", None]))
    assert found.rows.schema.names == ["word", "n", "more", "made"], "what the function does not get is kept"
    with pytest.raises(ScoringError, match=r"column n is double, and features\.transform has got it as int64"):
        transform.apply(pa.RecordBatch.from_pydict(other | {"n": pa.array([1.5, 2.5])}))
    with pytest.raises(ScoringError, match=r"the input has no column n, which features\.transform gets"):
        transform.apply(pa.RecordBatch.from_pydict({"word": ["b"]}))


@pytest.mark.parametrize("kind", [pa.dictionary(pa.int32(), pa.string()), pa.large_string(), pa.string_view()])
def test_texts_of_training_have_one_type_however_they_are_stored(kind: pa.DataType) -> None:
    seen: list[pa.DataType] = []

    def looks(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
        seen.append(rows["word"].type)
        return {"made": pc.utf8_upper(rows["word"])}

    transform = learned(looks, pa.table({"word": pa.array(["a", "b", "a"]).cast(kind)}))
    found = transform.apply(pa.RecordBatch.from_pydict({"word": ["c", None]}))
    assert found.rows["made"].to_pylist() == ["C", None]
    assert seen == [pa.string()] * 2


def test_pandas_types_do_not_follow_missing_values() -> None:
    seen: list[dict[str, str]] = []

    def looks(rows: pd.DataFrame, fitted: Fitted) -> pd.DataFrame:
        seen.append({name: str(kind) for name, kind in rows.dtypes.items()})
        return pd.DataFrame({"made": rows["visits"] * 2})

    transform = learned(looks)
    batch = whole(rows(64))
    gaps = pa.RecordBatch.from_pydict({name: pa.nulls(3, batch[name].type) for name in batch.schema.names})
    made = [transform.apply(part).rows["made"] for part in (batch, batch.slice(0, 1), gaps)]
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert seen[0] == {
        "id": "str",
        "amount": "float64",
        "income": "float64",
        "visits": "Int64",
        "opened": "datetime64[us, UTC]",
        "opened_text": "str",
        "word": "str",
        "dt": "datetime64[ms]",
    }
    assert {column.type for column in made} == {pa.int64()}
    assert made[0].equals(pc.multiply(batch["visits"], 2))


@pytest.mark.parametrize(
    ("values", "is_same"),
    [
        ([1.0, None], True),
        ([None, None], True),
        ([3, 4], True),
        ([1.5, 2.0], False),
        (["a", "b"], False),
        ([True, False], False),
    ],
)
def test_a_column_may_come_out_as_another_type_with_the_same_values_alone(values: list[object], is_same: bool) -> None:
    given = [pa.array([1, 2]), pa.array(values)]
    transform = learned(lambda rows, fitted: {"made": given.pop(0)}, pa.table({"x": [1, 2]}))
    if is_same:
        assert transform.apply(numbers([1, 2])).rows["made"].equals(pa.array(values, pa.int64()))
    else:
        with pytest.raises(ScoringError, match=r"returned made as \w+, and when the bundle was written as int64"):
            transform.apply(numbers([1, 2]))


def test_other_columns_than_in_training_are_refused() -> None:
    names = ["made", "more"]
    transform = learned(lambda rows, fitted: {name: rows["x"] for name in names}, pa.table({"x": [1]}))
    names = ["more", "made"]
    assert transform.apply(numbers([1])).rows.schema.names == ["key", "x", "made", "more"]
    names = ["more"]
    with pytest.raises(ScoringError, match="returned the columns more; expected made, more"):
        transform.apply(numbers([1]))


@pytest.mark.parametrize(
    "result",
    [
        lambda x: {"made": x},
        lambda x: {"made": pa.chunked_array([x.slice(0, 1), x.slice(1)])},
        lambda x: {"made": x.to_pylist()},
        lambda x: {"made": x.to_numpy()},
        lambda x: {"made": x.to_pandas()},
        lambda x: pd.DataFrame({"made": x.to_numpy()}, index=[9] * len(x)),
        lambda x: pa.table({"made": x}),
        lambda x: pa.RecordBatch.from_pydict({"made": x}),
        lambda x: pa.RecordBatch.from_pydict({"made": x.dictionary_encode()}),
    ],
)
def test_a_result_has_any_form_of_columns(result: Any) -> None:  # noqa: ANN401
    transform = learned(lambda rows, fitted: result(rows["x"]), pa.table({"x": [5, 6]}))
    assert transform.applied(pa.table({"x": [1, 2, 3]})) == pa.table({"x": [1, 2, 3], "made": [1, 2, 3]})


def test_nan_is_a_missing_value() -> None:
    transform = learned(lambda rows, fitted: {"made": np.array([np.nan, 1.0])}, pa.table({"x": [1, 2]}))
    assert transform.applied(pa.table({"x": [1, 2]}))["made"].to_pylist() == [None, 1.0]
    transform = learned(lambda rows, fitted: {"made": pc.divide(rows["x"], 0.0)}, pa.table({"x": [0.0, 1.0]}))
    assert transform.applied(pa.table({"x": [0.0, 1.0]}))["made"].to_pylist() == [None, np.inf]


def test_text_is_of_one_type_however_it_is_stored() -> None:
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        words = pa.array(["a", "b"]).cast(kind)
        transform = learned(_constant(words), pa.table({"x": [1, 2]}))
        assert transform.gives == pa.schema({"made": pa.string()})


def _constant(column: pa.Array) -> Function:
    return lambda rows, fitted: {"made": column}


def test_rows_that_break_a_rule_are_left_out_as_those_for_which_it_raises_are() -> None:
    def rules(features: pa.RecordBatch) -> list[BrokenRow]:
        large = np.flatnonzero(features["made"].to_numpy() > 10)
        return [BrokenRow(int(row), "is_small", "made", f"made is {features['made'][int(row)]}") for row in large]

    transform = Transform.learn(doubled, {}, pa.table({"x": [1]}), rules)
    found = transform.apply(numbers([1, 7, 6, 2, 7, 9]))
    assert found.positions.tolist() == [0, 3]
    assert [(row.position, row.rule, row.column, row.detail) for row in found.broken if row.column] == [
        (2, "is_small", "made", "made is 12"),
        (5, "is_small", "made", "made is 18"),
    ]
    assert [row.position for row in found.broken] == [1, 2, 4, 5]
    with pytest.raises(ScoringError, match="made breaks is_small in row 1: made is 12"):
        transform.applied(pa.table({"x": [1, 6]}))


def test_the_form_follows_the_annotation() -> None:
    def plain(rows, fitted): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    def quoted(rows: "pd.DataFrame", fitted: dict) -> dict: ...  # type: ignore[empty-body, type-arg]
    def other(rows: list[int], fitted: Fitted) -> None: ...
    def three(rows: pa.Table, fitted: Fitted, more: int) -> None: ...

    assert [form_of(function) for function in (plain, quoted, doubled)] == ["RecordBatch", "DataFrame", "RecordBatch"]
    with pytest.raises(
        ScoringError, match=r"rows is annotated as list; expected pa\.RecordBatch, pa\.Table or pd\.DataF"
    ):
        form_of(other)
    with pytest.raises(ScoringError, match="takes other parameters"):
        form_of(three)
