"""The Delta tables of a pipeline: the accepted rows, the predictions, and the quarantine of both steps."""

import pyarrow as pa

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.ingest import quarantine
from batch_scoring.storage.delta import Table
from batch_scoring.storage.state import StepName


def features_table(pipeline: Pipeline) -> Table:
    """The pipeline's accepted rows."""
    return Table(pipeline.output.subfolder("tables/validated_features"), "validated_features")


def predictions_table(pipeline: Pipeline) -> Table:
    """The pipeline's scores."""
    return Table(pipeline.output.subfolder("tables/predictions"), "predictions")


def decisions_table(pipeline: Pipeline) -> Table:
    """What is done about each of the pipeline's scored rows."""
    return Table(pipeline.output.subfolder("tables/decisions"), "decisions")


def quarantine_table(pipeline: Pipeline) -> Table:
    """The rows that have no score, of both steps."""
    return Table(pipeline.output.subfolder("tables/quarantine"), "quarantine", ("dt", "stage"))


def quarantine_schema(pipeline: Pipeline) -> pa.Schema:
    """The columns of the quarantine, partitions included: until a row is rejected, no table has them."""
    return pa.schema([*quarantine.schema(pipeline.spec.input.key), ("dt", pa.date32()), ("stage", pa.string())])


STAGES: dict[StepName, tuple[str, ...]] = {
    "validated_features": quarantine.STAGES_OF_FEATURES,
    "predictions": quarantine.STAGES_OF_PREDICTIONS,
    "decisions": quarantine.STAGES_OF_DECISIONS,
}
"""The stages of the quarantine that a step owns."""

TABLES = {
    "validated_features": features_table,
    "predictions": predictions_table,
    "decisions": decisions_table,
    "quarantine": quarantine_table,
}
