"""The deployment on one page: every pipeline's assets with their checks, its jobs, what starts them, what looks on."""

import logging
import warnings
from collections.abc import Sequence

import dagster as dg

from batch_scoring.config.pipeline import Broken, Pipeline, Survey, survey_pipelines
from batch_scoring.defs.assets.model import model
from batch_scoring.defs.assets.predictions import predictions
from batch_scoring.defs.assets.raw_input import raw_input
from batch_scoring.defs.assets.report import report
from batch_scoring.defs.assets.retention import retention
from batch_scoring.defs.assets.validated_features import validated_features
from batch_scoring.defs.drift_checks import drift_checks
from batch_scoring.defs.execution.executors import executor
from batch_scoring.defs.sensors import (
    alerts_sensor,
    broken_schedules,
    broken_sensor,
    dead_runs,
    events_sensor,
    report_job,
    report_schedule,
    retention_job,
    retention_schedule,
    score_job,
    score_schedule,
    uploads_sensor,
)
from batch_scoring.operations.alerting import collector
from batch_scoring.runtime import gc_freeze


def deploy(pipelines: list[Pipeline], broken: Sequence[Broken] = ()) -> dg.Definitions:
    """All that the deployment has; of a broken pipeline a sensor that says so."""
    return dg.Definitions(
        assets=[
            asset(pipeline)
            for pipeline in pipelines
            for asset in (raw_input, validated_features, model, predictions, report, retention)
        ],
        asset_checks=[drift_checks(pipeline) for pipeline in pipelines],
        jobs=[job(pipeline) for pipeline in pipelines for job in (score_job, report_job, retention_job)],
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
        ],
        executor=executor(pipelines),
    )


def deploy_sound(survey: Survey) -> dg.Definitions:
    """The deployment without its broken pipelines; one that Dagster refuses is broken like one whose spec is wrong."""
    pipelines = survey.deployable()
    try:
        deployment = deploy(pipelines, survey.broken)
    except dg.DagsterInvalidDefinitionError:
        for pipeline in pipelines:
            try:
                deploy([pipeline])
            except dg.DagsterInvalidDefinitionError as error:
                survey = survey.without(pipeline, f"Dagster refuses it: {error}")
        deployment = deploy(survey.deployable(), survey.broken)
    for fault in survey.faults:
        logging.getLogger("batch_scoring").warning(f"left out of the deployment: {fault}")
    return deployment


# partitioned checks, a month that has days to come, an asset of several steps; their behaviour is pinned in tests
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
BETA = "allow_nonexistent_upstream_partitions|resource_defs|data_version"
warnings.filterwarnings("ignore", category=dg.BetaWarning, message=f"Parameter `({BETA})`")

collector.warn_of_mistakes()
defs = deploy_sound(survey_pipelines())
gc_freeze.spare_what_is_loaded()
