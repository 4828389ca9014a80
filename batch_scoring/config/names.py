"""Names of a pipeline's assets, jobs, schedules and sensors.

People, dashboards and other tools rely on these names. The objects that they name are built in `defs`.
"""

import hashlib
import os
import re

from batch_scoring.config.pipeline import Pipeline

DAILY_ASSETS = ("model", "raw_input", "validated_features", "predictions")
"""Assets that every pipeline's daily job materialises."""
DECISIONS = "decisions"
"""The asset after them, of pipelines with a section `decisions`."""


def daily_assets(pipeline: Pipeline) -> tuple[str, ...]:
    """Assets that a pipeline's daily job materialises."""
    return (*DAILY_ASSETS, DECISIONS) if pipeline.spec.decisions else DAILY_ASSETS


def rescored(pipeline: Pipeline) -> tuple[str, ...]:
    """Assets of a day whose landing files are archived: its features exist, and are scored again."""
    return tuple(name for name in daily_assets(pipeline) if name not in ("raw_input", "validated_features"))


def asset_path(pipeline: Pipeline, asset: str) -> list[str]:
    """Path of an asset key: `<pipeline>/<asset>`."""
    return [pipeline.name, asset]


def job_name(pipeline: Pipeline) -> str:
    """Name of the daily job: `score_<pipeline>`."""
    return f"score_{pipeline.name}"


def report_job_name(pipeline: Pipeline) -> str:
    """Name of the job that builds a month's report: `report_<pipeline>`."""
    return f"report_{pipeline.name}"


def export_asset(name: str) -> str:
    """Name of the asset of an export: `export_<name>`."""
    return f"export_{name}"


def exports_job_name(pipeline: Pipeline) -> str:
    """Name of the job of all exports of a day: `export_<pipeline>`."""
    return f"export_{pipeline.name}"


def exports_sensor_name(pipeline: Pipeline) -> str:
    """Name of the sensor that starts exports: `<pipeline>_exports`."""
    return f"{pipeline.name}_exports"


def retention_job_name(pipeline: Pipeline) -> str:
    """Name of the retention job: `retain_<pipeline>`."""
    return f"retain_{pipeline.name}"


def schedule_name(job: str) -> str:
    """Name of a job's schedule: `<job>_on_schedule`."""
    return f"{job}_on_schedule"


def uploads_name(pipeline: Pipeline) -> str:
    """Name of the sensor on the landing folder: `<pipeline>_uploads`."""
    return f"{pipeline.name}_uploads"


def events_name(pipeline: Pipeline) -> str:
    """Name of the sensor on the queue: `<pipeline>_events`."""
    return f"{pipeline.name}_events"


def broken_name(folder: str) -> str:
    """Name of the sensor of a broken pipeline: `<pipeline>_is_broken`.

    Args:
        folder: name of the pipeline's folder. If Dagster would reject it, invalid characters are replaced
            and a digest is appended.
    """
    if not re.fullmatch(r"[a-z0-9_]+", folder):
        folder = f"{re.sub('[^A-Za-z0-9_]', '_', folder)}_{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"
    return f"{folder}_is_broken"
