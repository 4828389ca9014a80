"""Batch backoff: smaller batches after runs that may have run out of memory."""

import itertools

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.operations.retry_policy import HEAVY
from batch_scoring.operations.run_history import of_day

MOST_BACKOFF = 6
"""Most times that a batch is halved: from 131,072 rows to 2,048."""


def batch_backoff(instance: dg.DagsterInstance, pipeline: Pipeline, day: str, lost: int = 0) -> int:
    """Number of times that a step halves its batches: once per previous attempt that may have run out of memory.

    Args:
        instance: holds the previous runs.
        pipeline: of the day.
        day: YYYY-MM-DD.
        lost: processes or pods that this step has already lost in this run.
    """
    ended = (run for run in of_day(instance, pipeline, day) if run.is_ended)
    heavy = itertools.takewhile(lambda run: run.failure in HEAVY, ended)
    return min(lost + sum(1 for _ in heavy), MOST_BACKOFF)
