"""The code of a pipeline's model with the rules about its engineered features, which belong to validation."""

from dataclasses import replace

import pyarrow as pa

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.inference.manifest import BrokenRow
from batch_scoring.inference.network.code import ModelCode
from batch_scoring.ingest.schema.engineered import EngineeredRules


def model_code(pipeline: Pipeline) -> ModelCode:
    """Import what the spec names.

    Raises:
        CodeError: a module cannot be imported, or lacks what the spec names.
        ContractError: features.engineered is no schema, or has settings that cannot be decided for one row alone.
    """
    code, reference = ModelCode.of(pipeline), pipeline.spec.features.engineered
    if not reference:
        return code
    rules = EngineeredRules(pipeline, reference)

    def broken(features: pa.RecordBatch) -> list[BrokenRow]:
        reasons = rules.rejected(features).items()
        return [BrokenRow(row, why.rule, why.column, f"{why.column} is {why.value}") for row, why in reasons]

    return replace(code, rules=broken)
