"""Failures by class: what a run has died of, and what becomes of its day.

| class | what has happened | what becomes of the day | told |
|---|---|---|---|
| `superseded` | newer files or another model came | again from raw_input, when the files are quiet | no |
| `bad_input` | a broken file, a missing column, a check that refuses | waits for other files or code | at once |
| `bad_model` | a broken bundle, scores that are none, code that does not load | waits for others | at once |
| `storage` | S3, network or disk: no answer, refused, full | again, after pauses | the last try |
| `out_of_memory` | an allocation failed | again, after pauses, with half the batch | the last try |
| `timeout` | longer than `runs.max_hours`, or a pod waited `compute.*.start_minutes` | again, at once | the last try |
| `lost` | its process was killed, or its machine went down | again, at once, with half the batch | the last try |
| `processing_error` | any other exception in a step | again, after pauses | the last try |

At once, where Dagster does it (`run_retries`, for what its daemon has launched); else the sensor, after a pause.
A run that is run again goes on from the finished shards. `runs.retries` and `runs.retry_minutes` of the spec say how
often and after which pauses; the pauses double, and differ from day to day so that days that failed together do not
come back together. What was published before stands until a run succeeds. The class is a tag of the run.

A run whose code does not load at all is, for Dagster, one that was killed: where its code server still has the code of
before, it starts the run twice more within seconds. That is no try of the files once the code loads again.
"""

import contextlib
import errno
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
from deltalake.exceptions import DeltaError

from batch_scoring.dagster_internals import RUN_FAILURE_REASON_TAG, SerializableErrorInfo
from batch_scoring.defs.metadata import run_of
from batch_scoring.errors import (
    FAILURES,
    BatchScoringError,
    FailureClass,
    is_out_of_memory,
)
from batch_scoring.operations.pod_words import NOT_STARTED
from batch_scoring.runtime.printable import clean
from batch_scoring.runtime.step_context import StepContext

TAG = "batch_scoring/failure"
NOTED_OF = "batch_scoring/failure_of"
"""The run that the class is of: Dagster copies the tags of a run to those that do its work again."""

FINAL: frozenset[FailureClass] = frozenset({"bad_input", "bad_model"})
"""The same files, model and code would fail again."""
HEAVY: frozenset[FailureClass] = frozenset({"out_of_memory", "lost"})
"""Where less memory may help."""

LONGEST_PAUSE = 24 * 3600.0
"""Seconds."""
_STEP_FAILURE = "STEP_FAILURE"
_OTHER_ENDS: dict[str, FailureClass] = {
    _STEP_FAILURE: "processing_error",
    "RUN_EXCEPTION": "processing_error",
    "JOB_INITIALIZATION_FAILURE": "bad_model",
    "START_TIMEOUT": "timeout",
}
"""By Dagster's reason, where no step has noted a class; every other end is a lost process."""
_NOT_LOADED = "Could not load job definition."
_STEP_NOT_LOADED = "An exception was thrown during step execution that is likely a framework error"
"""What the process of a run or of a step says whose code does not load; then Dagster calls it killed, or gone."""
_LOADING = re.compile(
    r"^(?:In process \d+: )?(.*(?:SpecError|SyntaxError|IndentationError|ImportError|ModuleNotFoundError"
    r"|DagsterInvariantViolationError: Could not find job).*)",
    re.MULTILINE,
)
"""Errors of loading; a job that is not found is one of a pipeline that is left out."""
UNLOADED = "batch_scoring/unloaded"
"""Tag of a run that has died of code that does not load."""
_TIMEOUT = ("exceeding maximum runtime", "Exceeded maximum runtime")
"""Dagster's words."""
_DEATHS: dict[str, FailureClass] = {
    "OOMKilled": "out_of_memory",
    "DeadlineExceeded": "timeout",
    NOT_STARTED: "timeout",
}
"""By what Kubernetes, or who watches over the pods, says of a step's end; every other end is a lost pod."""
INTERRUPTED = "DagsterExecutionInterruptedError"
"""What a step says that is told to end (SIGTERM): its node is drained, its pod's time is over."""
_LIBRARIES = ("botocore", "boto3", "urllib3")
"""Whose exceptions are about a store."""


@dataclass(frozen=True)
class Pauses:
    """How often a failed day is run again, and after which pauses."""

    retries: int = 2
    first: float = 300.0
    """Seconds before the first retry; doubled before each next one."""

    @property
    def tries(self) -> int:
        """Runs of the same files and code that may fail."""
        return self.retries + 1

    def after(self, failed: int, seed: str) -> float:
        """Seconds to wait after so many failed runs: exponential backoff, a quarter more or less by the seed."""
        jitter = int(hashlib.sha256(seed.encode()).hexdigest()[:8], 16) / 2**32
        return min(self.first * 2.0 ** (failed - 1), LONGEST_PAUSE) * (0.75 + jitter / 2)


@contextlib.contextmanager
def noted(run: StepContext) -> Iterator[StepContext]:
    """Note the class of a failure in the run's record."""
    try:
        yield run
    except Exception as error:
        clean(error)
        try:
            run.tag(tags(classify(error), run.id))
        except Exception as trouble:  # the disk that is full may be the instance's too: the first error is the one
            run.log(f"the class of the failure cannot be noted: {trouble}")
        raise


@contextlib.contextmanager
def step_run(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> Iterator[StepContext]:
    """The run that a step is in, its failures noted; an exception fails the run and is not tried again within it.

    A step's retry policy is for a process or a pod that is lost: what a step can still tell is a matter of runs.
    """
    step = context.get_step_execution_context()
    try:
        with noted(run_of(context)) as run:
            yield run
    except dg.Failure:
        raise  # an invariant's, which says itself that it is not to be tried again
    except Exception as error:
        if not step.op_retry_policy:
            raise
        # as Dagster wraps it where there is no policy; anything else would be tried again
        raise dg.DagsterExecutionStepExecutionError(
            f'Error occurred while executing op "{step.op.name}":',
            user_exception=error,
            original_exc_info=sys.exc_info(),
            step_key=step.step.key,
            op_name=step.op.name,
            op_def_name=step.op.definition.name,
        ) from error


def tags(failure: FailureClass, run_id: str) -> dict[str, str]:
    """What notes the class of a run's failure in its record."""
    return {TAG: failure, NOTED_OF: run_id}


def classify(error: BaseException) -> FailureClass:
    """The class of an exception that a step has raised."""
    if isinstance(error, BatchScoringError):
        return error.failure_class
    if is_out_of_memory(error) or getattr(error, "errno", None) == errno.ENOMEM:
        return "out_of_memory"
    is_of_store = type(error).__module__.partition(".")[0] in _LIBRARIES
    return "storage" if is_of_store or isinstance(error, OSError | DeltaError) else "processing_error"


def is_noted(run: dg.DagsterRun) -> bool:
    """Whether the class of the run's own failure stands in its record."""
    return run.tags.get(TAG) in FAILURES and run.tags.get(NOTED_OF) == run.run_id


def of_run(run: dg.DagsterRun) -> FailureClass | None:
    """The class of a failed run, as far as its record tells; None of one that has not failed."""
    if run.status != dg.DagsterRunStatus.FAILURE:
        return None
    if is_noted(run):
        return next(failure for failure in FAILURES if run.tags[TAG] == failure)
    return _OTHER_ENDS.get(run.tags.get(RUN_FAILURE_REASON_TAG, ""), "lost")


def note_end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> FailureClass | None:
    """The class of a run that has ended; noted in its record where no step of it could do so.

    Args:
        instance: where its events are.
        run: one that is still on may have noted the failure of a step already, and is left alone.
    """
    failure = of_run(run)
    if failure and not is_noted(run):
        reason, noted_too = run.tags.get(RUN_FAILURE_REASON_TAG), {}
        if why_unloaded(instance, run):
            failure, noted_too = "bad_model", {UNLOADED: run.run_id}
        elif reason == _STEP_FAILURE:
            failure = _of_lost_step(instance, run) or failure
        elif failure == "lost":
            failure = "timeout" if _has_timed_out(instance, run) else failure
        instance.add_run_tags(run.run_id, tags(failure, run.run_id) | noted_too)
    elif failure is None and run.is_finished and run.tags.get(TAG):
        instance.add_run_tags(run.run_id, {TAG: ""})  # of the run before it
    return failure


def why_unloaded(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    """What the code of a run, or of a step that failed, raised when its process loaded it; None if it was loaded."""
    kinds = {dg.DagsterEventType.ENGINE_EVENT, dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    events = [entry.dagster_event for entry in instance.all_logs(run.run_id, of_type=kinds) if entry.dagster_event]
    failed = {event.step_key for event in events if event.is_step_failure}
    for event in events:
        error, said = getattr(event.event_specific_data, "error", None), event.message or ""
        if error and said == _NOT_LOADED:
            return str(error.message.strip())
        is_of_step = said.startswith(_STEP_NOT_LOADED) and event.step_key in failed
        is_told = is_of_step or event.event_type == dg.DagsterEventType.RUN_FAILURE
        if error and is_told and (found := _LOADING.search(error.message)):
            return found[1].strip()
    return None


def is_unloaded(run: dg.DagsterRun) -> bool:
    """Whether a run has died of code that does not load."""
    return run.tags.get(UNLOADED) == run.run_id


def _of_lost_step(instance: dg.DagsterInstance, run: dg.DagsterRun) -> FailureClass | None:
    """The class of a run with a step whose own process or pod is gone: it could note nothing."""
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    errors = [entry.dagster_event.step_failure_data.error for entry in events if entry.dagster_event]
    lost = [error for error in errors if _is_of_loss(error)]
    if not lost:
        return None
    said = " ".join(error.message for error in lost if error)
    return next((failure for words, failure in _DEATHS.items() if words in said), "lost")


def _is_of_loss(error: SerializableErrorInfo | None) -> bool:
    # an exception of a step has its class's name; what the executor says of a pod or process has none, or one of these
    if error is None or error.cls_name in (None, "ChildProcessCrashException", INTERRUPTED):
        return True
    return error.cause is not None and error.cause.cls_name == INTERRUPTED


def _has_timed_out(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    kinds = {dg.DagsterEventType.RUN_CANCELING, dg.DagsterEventType.RUN_FAILURE}
    events = (entry.dagster_event for entry in instance.all_logs(run.run_id, of_type=kinds))
    return any(words in (event.message or "") for event in events if event for words in _TIMEOUT)
