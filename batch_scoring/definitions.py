"""The deployment on one page: every pipeline's assets with their checks, its jobs, what starts them, what looks on."""

import logging
import warnings
from collections.abc import Sequence

import dagster as dg

from batch_scoring import alerts, garbage
from batch_scoring.automation import (
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
from batch_scoring.checks import drift_checks
from batch_scoring.compute import executor
from batch_scoring.features import validated_features
from batch_scoring.model import model
from batch_scoring.pipeline import Broken, Pipeline, Survey, survey_pipelines
from batch_scoring.predictions import predictions
from batch_scoring.raw import raw_input
from batch_scoring.report import report
from batch_scoring.retention.asset import retention


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

alerts.warn_of_mistakes()
defs = deploy_sound(survey_pipelines())
garbage.spare_what_is_loaded()
