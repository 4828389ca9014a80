"""Engineered features are checked row by row by the spec's model of them, as the columns of files are."""

from typing import Any

import pyarrow as pa
import pytest

from batch_scoring.errors import ContractError
from batch_scoring.ingest.schema.engineered import EngineeredRules
from batch_scoring_tests.engineered import engineer
from batch_scoring_tests.tiny import TinyProject


@pytest.fixture
def rules(tiny: TinyProject) -> EngineeredRules:
    engineer(tiny)
    return EngineeredRules(tiny.pipeline, "schema:Engineered")


def features(**changes: Any) -> pa.RecordBatch:  # noqa: ANN401
    columns = {"ratio": [0.5, 1.0, 2.0], "level": [1, 2, 3], "shade": ["warm", "cold", "warm"], "more": [1, 2, 3]}
    return pa.RecordBatch.from_pydict(columns | changes)


def test_a_row_has_the_first_rule_that_it_breaks(rules: EngineeredRules) -> None:
    assert not rules.rejected(features())
    assert not rules.rejected(features().slice(0, 0))
    found = rules.rejected(
        features(ratio=[501.0, None, float("inf")], level=[-1, 2, 3], shade=["warm", "cold", "mauve"])
    )
    assert {row: (why.stage, why.rule, why.column, why.value) for row, why in found.items()} == {
        0: ("rule", "less_than_or_equal_to(500)", "ratio", "501.0"),
        1: ("rule", "not_nullable", "ratio", None),
        2: ("rule", "is_finite", "ratio", "inf"),
    }
    found = rules.rejected(features(shade=["warm", "mauve", None]))
    assert {row: (why.rule, why.column) for row, why in found.items()} == {
        1: ("isin(['warm', 'cold'])", "shade"),
        2: ("not_nullable", "shade"),
    }


def test_a_column_that_is_missing_or_of_another_kind_is_the_function_s_fault(rules: EngineeredRules) -> None:
    with pytest.raises(
        ContractError, match=r"transform returned no column ratio, which schema:Engineered of .* requires"
    ):
        rules.rejected(features().drop_columns("ratio"))
    with pytest.raises(
        ContractError, match=r"transform returned level as string, schema:Engineered of .* expects int64"
    ):
        rules.rejected(features(level=["1", "2", "3"]))
