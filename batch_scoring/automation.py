"""What runs the assets: a job a pipeline. Names are verbs."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from batch_scoring.assets import asset_key
from batch_scoring.pipeline import Pipeline

STEPS = ("model", "raw_input", "validated_features", "predictions")


def job_name(pipeline: Pipeline) -> str:
    """`score_<pipeline>`."""
    return f"score_{pipeline.name}"


def score_job(pipeline: Pipeline) -> UnresolvedAssetJobDefinition:
    """Score one day: the model in force, the day's input, its features, its predictions."""
    return dg.define_asset_job(
        job_name(pipeline),
        selection=[asset_key(pipeline, name) for name in STEPS],
        description=f"Score one day of {pipeline.name}.",
    )
