"""A pandera model compiled by itself, as that of engineered features is; `test_contract.py` has the rules of rows."""

from typing import Any

import pandera.pandas as pandera
import pyarrow as pa
import pytest

from batch_scoring.errors import ContractError
from batch_scoring.ingest.schema.compiled import CompiledSchema


class Rows(pandera.DataFrameModel):
    """A model with a rule that Arrow decides and one that pandera alone can."""

    n: int = pandera.Field(ge=0, nullable=True)
    word: str = pandera.Field(isin=["a", "b"])
    even: int

    @pandera.check("even")
    def is_even(cls, values: Any) -> Any:  # noqa: ANN401
        return values % 2 == 0


def test_rows_that_break_a_rule_are_named_by_column_and_check() -> None:
    table = pa.RecordBatch.from_pydict({"n": [1, -1, None, -2], "word": ["a", "b", "c", "a"], "even": [2, 4, 5, 6]})
    found = {(column, rule): rows.tolist() for column, rule, rows in CompiledSchema(Rows, "here").broken(table)}
    assert found == {
        ("n", "greater_than_or_equal_to(0)"): [1, 3],
        ("word", "isin(['a', 'b'])"): [2],
        ("even", "is_even"): [2],
    }


def test_columns_have_the_types_that_the_model_declares() -> None:
    columns = CompiledSchema(Rows, "here").columns
    assert {name: (column.type, column.nullable) for name, column in columns.items()} == {
        "n": (pa.int64(), True),
        "word": (pa.string(), False),
        "even": (pa.int64(), False),
    }


def test_no_schema_and_a_setting_of_the_whole_frame_are_refused_with_the_place() -> None:
    with pytest.raises(ContractError, match="here is not a schema: AttributeError"):
        CompiledSchema(dict, "here")
    with pytest.raises(ContractError, match="here is strict or ordered"):
        CompiledSchema(type("Strict", (Rows,), {"Config": type("Config", (), {"strict": True})}), "here")
