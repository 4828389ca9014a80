"""Links from Dagster's UI to the pages of `reports/`."""

import os

import dagster as dg

from batch_scoring.config.pipeline import Pipeline


def month_page(month: str) -> str:
    """The path of a month's page (YYYY-MM), below the pipeline's output."""
    return f"reports/month={month}.html"


def day_page(day: str) -> str:
    """The path of a day's page, below the pipeline's output."""
    return f"reports/dt={day}/day.html"


def link(pipeline: Pipeline, path: str) -> dg.MetadataValue:
    """The address at which a person opens a file of the pipeline's output.

    Under `REPORTS_URL` if a web server shows the data root there (`make dev` starts one that shows the reports), else
    in the S3 console, which knows AWS's own buckets; else the file's place as text: browsers follow no link to it.
    """
    place, base = f"{pipeline.output.uri}/{path}", os.environ.get("REPORTS_URL", "")
    if base and place.startswith(f"{pipeline.data_root}/"):
        return dg.MetadataValue.url(f"{base.rstrip('/')}/{place.removeprefix(f'{pipeline.data_root}/')}")
    if place.startswith("s3://"):
        if any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")):
            return dg.MetadataValue.text(place)
        bucket, _, key = place.removeprefix("s3://").partition("/")
        return dg.MetadataValue.url(f"https://console.aws.amazon.com/s3/object/{bucket}?prefix={key}")
    return dg.MetadataValue.path(place)
