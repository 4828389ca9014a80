"""The deployment on one page: every pipeline's assets with their checks, the job that scores a day, what looks on."""

import warnings

import dagster as dg

from batch_scoring.automation import alerts_sensor, dead_runs, score_job
from batch_scoring.checks import drift_checks
from batch_scoring.features import validated_features
from batch_scoring.model import model
from batch_scoring.pipeline import Pipeline, load_pipelines
from batch_scoring.predictions import predictions
from batch_scoring.raw import raw_input


def deploy(pipelines: list[Pipeline]) -> dg.Definitions:
    """All that the deployment has."""
    return dg.Definitions(
        assets=[
            asset(pipeline) for pipeline in pipelines for asset in (raw_input, validated_features, model, predictions)
        ],
        asset_checks=[drift_checks(pipeline) for pipeline in pipelines],
        jobs=[score_job(pipeline) for pipeline in pipelines],
        sensors=[dead_runs, alerts_sensor(pipelines)],
        executor=dg.in_process_executor,
    )


warnings.filterwarnings("ignore", category=dg.PreviewWarning)  # partitioned checks; behaviour is pinned in tests

defs = deploy(load_pipelines())
