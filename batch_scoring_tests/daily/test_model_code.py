"""A model's code has the rules about its engineered features where the spec names some."""

import pyarrow as pa
import pytest

from batch_scoring.daily.model_code import model_code
from batch_scoring.errors import CodeError, ContractError
from batch_scoring.inference.manifest import BrokenRow
from batch_scoring.inference.network.code import ModelCode
from batch_scoring_tests.engineered import RULES, engineer, write_features
from batch_scoring_tests.specs import put
from batch_scoring_tests.tiny import SCHEMA, TinyProject


def test_rules_are_those_that_the_spec_names(tiny: TinyProject) -> None:
    assert model_code(tiny.pipeline) == ModelCode.of(tiny.pipeline)
    engineer(tiny)
    code = model_code(tiny.pipeline)
    assert code.transform is tiny.pipeline.load("features:transform")
    assert code.fit is tiny.pipeline.load("features:fit")
    assert code.rules is not None
    features = pa.RecordBatch.from_pydict({"ratio": [501.0, 0.5], "level": [1, -1], "shade": ["warm", "cold"]})
    assert code.rules(features) == [
        BrokenRow(0, "less_than_or_equal_to(500)", "ratio", "ratio is 501.0"),
        BrokenRow(1, "greater_than_or_equal_to(0)", "level", "level is -1"),
    ]
    put("features", "engineered", value=None)(tiny.spec)
    tiny.write_spec()
    assert model_code(tiny.pipeline).rules is None


def test_a_module_without_fit_is_enough(tiny: TinyProject) -> None:
    engineer(tiny)
    write_features(tiny, "def transform(rows, fitted):\n    return {}\n")
    code = model_code(tiny.pipeline)
    assert code.transform is not None and code.fit is None


def test_code_that_is_none_is_named(tiny: TinyProject) -> None:
    engineer(tiny)
    pipeline = tiny.pipeline
    tiny.write_code(schema=SCHEMA + RULES + "    class Config:\n        strict = True\n")
    with pytest.raises(ContractError, match="schema:Engineered is strict or ordered"):
        model_code(pipeline)
    write_features(tiny, "import nothing_of_this_name\n")
    with pytest.raises(CodeError, match="features:transform cannot be loaded"):
        model_code(pipeline)
