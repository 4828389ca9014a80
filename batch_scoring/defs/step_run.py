"""The run of a step: its log and tags, and the failure that it records."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import FailureClass
from batch_scoring.operations import failed_runs, failure_records
from batch_scoring.operations.retry_policy import classify
from batch_scoring.runtime.printable import clean, printable
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.runtime.usage import NOTHING, Meter, Reservation


@contextlib.contextmanager
def step_run(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, pipeline: Pipeline, reserved: Reservation = NOTHING
) -> Iterator[StepContext]:
    """Provide the context of a step and record its failure; an exception fails the run at once, without a step retry.

    A step's retry policy is for a lost process or pod. Where the step itself can raise, the run is retried instead.
    `reserved`: what its pod requests, for a step whose usage is kept.
    """
    step = context.get_step_execution_context()
    run = replace(run_of(context), meter=Meter(reserved))
    record = functools.partial(failure_records.record_error, pipeline, run, step.step.key)
    try:
        with recording_failure(run, record):
            yield run
    except dg.Failure:
        raise  # of a blocking check, which already forbids a retry
    except Exception as error:
        if not step.op_retry_policy:
            raise
        # as Dagster wraps it without a retry policy; any other exception would be retried
        raise dg.DagsterExecutionStepExecutionError(
            f'Error occurred while executing op "{step.op.name}":',
            user_exception=error,
            original_exc_info=sys.exc_info(),
            step_key=step.step.key,
            op_name=step.op.name,
            op_def_name=step.op.definition.name,
        ) from error


def run_of(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> StepContext:
    """The context of a step; everything that the step writes has the same start time."""
    record = context.instance.get_run_record_by_id(context.run.run_id)
    began = record.start_time if record and record.start_time else None
    started = datetime.fromtimestamp(began, UTC) if began else datetime.now(UTC)
    run = context.run
    return StepContext(
        run.run_id,
        started,
        lambda line: context.log.info(printable(line)),
        tags=run.tags,
        tag=lambda tags: context.instance.add_run_tags(run.run_id, tags),
    )


@contextlib.contextmanager
def recording_failure(
    run: StepContext, record: Callable[[Exception, FailureClass], object] = lambda *_: None
) -> Iterator[StepContext]:
    """Record a failure: its class as a tag of the run, the whole with `record`, which never raises."""
    try:
        yield run
    except Exception as error:
        clean(error)
        failure = classify(error)
        try:
            run.tag(failed_runs.failure_tags(failure, run.id))
        except Exception as trouble:  # the full disk may hold the instance too: the first error is the cause
            run.log(f"the failure class cannot be recorded: {trouble}")
        record(error, failure)
        raise
