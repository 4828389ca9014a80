"""The deployment on one page: assets, checks, jobs, schedules and sensors of every pipeline, and the executor."""

import logging
import warnings
from collections.abc import Sequence

import dagster as dg

from batch_scoring.config.loader import BrokenPipeline, Survey, survey_pipelines
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.assets.decisions import decisions
from batch_scoring.defs.assets.exports import exports
from batch_scoring.defs.assets.model import model
from batch_scoring.defs.assets.predictions import predictions
from batch_scoring.defs.assets.raw_input import raw_input
from batch_scoring.defs.assets.report import report
from batch_scoring.defs.assets.retention import retention
from batch_scoring.defs.assets.validated_features import validated_features
from batch_scoring.defs.drift_checks import drift_checks
from batch_scoring.defs.execution.executors import executor
from batch_scoring.defs.jobs import exports_job, report_job, retention_job, score_job
from batch_scoring.defs.schedules import broken_schedules, report_schedule, retention_schedule, score_schedule
from batch_scoring.defs.sensors import (
    alerts_sensor,
    broken_sensor,
    dead_runs,
    events_sensor,
    exports_sensor,
    uploads_sensor,
)
from batch_scoring.operations.alerting import collector
from batch_scoring.runtime import gc_freeze


def deploy(pipelines: list[Pipeline], broken: Sequence[BrokenPipeline] = ()) -> dg.Definitions:
    """Definitions of the whole deployment; for a broken pipeline, only placeholders that report its errors."""
    return dg.Definitions(
        assets=[
            asset(pipeline)
            for pipeline in pipelines
            for asset in (raw_input, validated_features, model, predictions, report, retention)
        ]
        + [asset for pipeline in pipelines for asset in (*decisions(pipeline), *exports(pipeline))],
        asset_checks=[drift_checks(pipeline) for pipeline in pipelines],
        jobs=[job(pipeline) for pipeline in pipelines for job in (score_job, report_job, retention_job)]
        + [exports_job(pipeline) for pipeline in pipelines if pipeline.spec.exports],
        schedules=[
            schedule(pipeline)
            for pipeline in pipelines
            for schedule in (score_schedule, report_schedule, retention_schedule)
        ]
        + [schedule for pipeline in broken for schedule in broken_schedules(pipeline)],
        sensors=[
            dead_runs,
            alerts_sensor(pipelines, broken),
            *(broken_sensor(pipeline) for pipeline in broken),
            *(uploads_sensor(pipeline) for pipeline in pipelines),
            *(events_sensor(pipeline, pipelines) for pipeline in pipelines if pipeline.spec.events.queue),
            *(exports_sensor(pipeline) for pipeline in pipelines if pipeline.spec.exports),
        ],
        executor=executor(pipelines),
    )


def deploy_valid(survey: Survey) -> dg.Definitions:
    """The deployment of the valid pipelines. One that Dagster refuses counts as broken, like one with a wrong spec."""
    pipelines = survey.deployable()
    try:
        deployment = deploy(pipelines, survey.broken)
    except dg.DagsterInvalidDefinitionError:
        for pipeline in pipelines:
            try:
                deploy([pipeline])
            except dg.DagsterInvalidDefinitionError as refusal:
                survey = survey.without(pipeline, f"Dagster refuses it: {refusal}")
        deployment = deploy(survey.deployable(), survey.broken)
    for error in survey.errors:
        logging.getLogger("batch_scoring").warning(f"left out of the deployment: {error}")
    return deployment


# partitioned checks, months with days in the future, graph-backed assets; tests pin their behaviour
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
BETA = "allow_nonexistent_upstream_partitions|resource_defs|data_version"
warnings.filterwarnings("ignore", category=dg.BetaWarning, message=f"Parameter `({BETA})`")

collector.warn_of_mistakes()
defs = deploy_valid(survey_pipelines())
gc_freeze.freeze_loaded()
