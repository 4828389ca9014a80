"""Failure class of a Dagster run: recorded as a tag of the run, else derived from its events.

A step that raises records the class itself (`defs/step_run.py`). A process or a pod that is gone records nothing: its
class is derived from what Dagster, its executors and Kubernetes wrote into the run's events.

To Dagster, a run whose code does not load looks like one that was killed: where its code server still has the previous
code, it launches the run twice more within seconds. Those attempts do not count once the code loads again.
"""

import re

import dagster as dg

from batch_scoring.dagster_internals import RUN_FAILURE_REASON_TAG, SerializableErrorInfo
from batch_scoring.errors import FAILURES, FailureClass
from batch_scoring.runtime.printable import without_class

TAG = "batch_scoring/failure"
RECORDED_FOR = "batch_scoring/failure_of"
"""Tag with the id of the run that the class belongs to: Dagster copies a run's tags to its retries."""
LOAD_ERROR = "batch_scoring/unloaded"
"""Tag of a run whose code did not load; its value is the run's id."""

START_MINUTES = "batch_scoring/start_minutes"
"""Tag of a step: how long its pod may wait before it starts."""
WAITS = "waits for"
"""In the events of a step whose pod has not started yet."""
NOT_STARTED = "did not start within"
"""In the error of a step whose pod has waited too long."""
BLOCKED = "blocked by limit for pool"
"""In the events of a step that waits for a slot of a pool; Dagster's wording."""
INTERRUPTED = "DagsterExecutionInterruptedError"
"""Raised by a step that receives SIGTERM: its node is drained, or its pod's time limit has passed."""

_STEP_FAILURE = "STEP_FAILURE"
_OTHER_ENDS: dict[str, FailureClass] = {
    _STEP_FAILURE: "processing_error",
    "RUN_EXCEPTION": "processing_error",
    "JOB_INITIALIZATION_FAILURE": "bad_model",
    "START_TIMEOUT": "timeout",
}
"""By Dagster's reason, where no step has recorded a class; every other reason means a lost process."""
_GONE = "the run's process is gone: killed, out of memory, or its machine went down"
_NOT_LOADED = "Could not load job definition."
_STEP_NOT_LOADED = "An exception was thrown during step execution that is likely a framework error"
"""Logged by the process of a run or step whose code does not load, before Dagster calls that process killed or gone."""
_LOADING = re.compile(
    r"^(?:In process \d+: )?(.*(?:SpecError|SyntaxError|IndentationError|ImportError|ModuleNotFoundError"
    r"|DagsterInvariantViolationError: Could not find job).*)",
    re.MULTILINE,
)
"""Load errors; a job is not found where its pipeline was left out of the deployment."""
_TIMEOUT = ("exceeding maximum runtime", "Exceeded maximum runtime")
"""Dagster's wording."""
_DEATHS: dict[str, FailureClass] = {
    "OOMKilled": "out_of_memory",
    "DeadlineExceeded": "timeout",
    NOT_STARTED: "timeout",
}
"""By the reason that Kubernetes or our step handler gives for a step's end; every other reason means a lost pod."""


def failure_tags(failure: FailureClass, run_id: str) -> dict[str, str]:
    """The tags that record the failure class of a run."""
    return {TAG: failure, RECORDED_FOR: run_id}


def is_recorded(run: dg.DagsterRun) -> bool:
    """Whether the run's tags hold the class of its own failure."""
    return run.tags.get(TAG) in FAILURES and run.tags.get(RECORDED_FOR) == run.run_id


def ended_at(record: dg.RunRecord) -> float:
    """When a run ended, in seconds since 1970."""
    return record.end_time or record.update_timestamp.timestamp()


def of_run(run: dg.DagsterRun) -> FailureClass | None:
    """The failure class of a run from its record alone; None if it has not failed."""
    if run.status != dg.DagsterRunStatus.FAILURE:
        return None
    if is_recorded(run):
        return next(failure for failure in FAILURES if run.tags[TAG] == failure)
    return _OTHER_ENDS.get(run.tags.get(RUN_FAILURE_REASON_TAG, ""), "lost")


def record_failure(instance: dg.DagsterInstance, run: dg.DagsterRun) -> FailureClass | None:
    """Determine the failure class of an ended run, and record it if none of its steps could do so.

    Args:
        instance: holds its events.
        run: left alone if it is still in progress, even if one of its steps has recorded a failure.
    """
    failure = of_run(run)
    if failure and not is_recorded(run):
        reason, more = run.tags.get(RUN_FAILURE_REASON_TAG), {}
        if load_error(instance, run):
            failure, more = "bad_model", {LOAD_ERROR: run.run_id}
        elif reason == _STEP_FAILURE:
            failure = _of_lost_step(instance, run) or failure
        elif failure == "lost":
            failure = "timeout" if _has_timed_out(instance, run) else failure
        instance.add_run_tags(run.run_id, failure_tags(failure, run.run_id) | more)
    elif failure is None and run.is_finished and run.tags.get(TAG):
        instance.add_run_tags(run.run_id, {TAG: ""})  # copied from the run before it
    return failure


def step_error(event: dg.DagsterEvent) -> str:
    """The full message of the error of a failed step."""
    error = event.step_failure_data.error
    if error and error.cause:  # Dagster wraps the error that the step has raised
        error = error.cause
    failure = event.step_failure_data.user_failure_data
    text = failure.description if failure else (error.message if error else "")
    if error and error.cls_name == INTERRUPTED:
        text = "its process was terminated: its machine is shutting down, or its time limit has passed"
    return without_class(text or "").strip() or "no message"


def in_words(end: str) -> str:
    """Dagster's message about the end of a run, unless it says no more than that the run's process is gone."""
    return _GONE if "from outside the execution context" in end else end or "no message"


def load_error(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    """The error with which the code of a run, or of a failed step, did not load; None if it loaded."""
    kinds = {dg.DagsterEventType.ENGINE_EVENT, dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    events = [entry.dagster_event for entry in instance.all_logs(run.run_id, of_type=kinds) if entry.dagster_event]
    failed = {event.step_key for event in events if event.is_step_failure}
    for event in events:
        error, said = getattr(event.event_specific_data, "error", None), event.message or ""
        if error and said == _NOT_LOADED:
            return str(error.message.strip())
        is_of_step = said.startswith(_STEP_NOT_LOADED) and event.step_key in failed
        is_load_event = is_of_step or event.event_type == dg.DagsterEventType.RUN_FAILURE
        if error and is_load_event and (found := _LOADING.search(error.message)):
            return found[1].strip()
    return None


def has_load_error(run: dg.DagsterRun) -> bool:
    """Whether a run failed because its code did not load."""
    return run.tags.get(LOAD_ERROR) == run.run_id


def _of_lost_step(instance: dg.DagsterInstance, run: dg.DagsterRun) -> FailureClass | None:
    """The class of a run that lost the process or pod of a step, which could record nothing."""
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    errors = [entry.dagster_event.step_failure_data.error for entry in events if entry.dagster_event]
    lost = [error for error in errors if _is_of_loss(error)]
    if not lost:
        return None
    said = " ".join(error.message for error in lost if error)
    return next((failure for words, failure in _DEATHS.items() if words in said), "lost")


def _is_of_loss(error: SerializableErrorInfo | None) -> bool:
    # the exception of a step has a class name; what an executor says of a pod or process has none, or one of these
    if error is None or error.cls_name in (None, "ChildProcessCrashException", INTERRUPTED):
        return True
    return error.cause is not None and error.cause.cls_name == INTERRUPTED


def _has_timed_out(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    kinds = {dg.DagsterEventType.RUN_CANCELING, dg.DagsterEventType.RUN_FAILURE}
    events = (entry.dagster_event for entry in instance.all_logs(run.run_id, of_type=kinds))
    return any(words in (event.message or "") for event in events if event for words in _TIMEOUT)
