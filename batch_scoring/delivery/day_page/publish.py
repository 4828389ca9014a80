"""Draw the page of a day and put it beside the other reports."""

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.delivery.day_page.facts import gather
from batch_scoring.delivery.day_page.page import draw
from batch_scoring.monitoring.links import day_page


def publish(pipeline: Pipeline, day: str) -> str:
    """Draw the page of a decided day; return its path below the pipeline's output.

    Raises:
        StateError: the day is not decided, or its tables do not belong together.
    """
    path = day_page(day)
    pipeline.output.put(path, draw(gather(pipeline, day)))
    return path
