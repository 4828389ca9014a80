"""Any head by its kind, and the names that were tasks before."""

import pytest
from pydantic import TypeAdapter, ValidationError

from batch_scoring.inference.heads.classification import Classification
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.regression import Regression
from batch_scoring.inference.heads.task import Task, from_name, telling_column
from batch_scoring_tests.heads import HEADS


def test_a_name_and_classes_are_a_head() -> None:
    adapter: TypeAdapter[Head] = TypeAdapter(Task)
    assert adapter.validate_python(from_name("classification", ["a", "b"])) == Classification(classes=("a", "b"))
    assert adapter.validate_python(from_name("regression", [])) == Regression()
    with pytest.raises(ValidationError, match="'ranking'"):
        adapter.validate_python(from_name("ranking", []))


def test_every_kind_is_tested() -> None:
    adapter: TypeAdapter[Head] = TypeAdapter(Task)
    kinds = {schema["properties"]["kind"]["const"] for schema in adapter.json_schema()["$defs"].values()}
    assert {head.kind for head in HEADS.values()} == kinds


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_the_telling_column_is_found_by_the_names_alone(head: Head) -> None:
    assert telling_column(dict.fromkeys(head.measured)) == head.telling_column
