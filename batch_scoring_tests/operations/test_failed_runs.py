"""The failure class of a run that has ended: as its steps recorded it, or as its events say."""

import dagster as dg
import pytest
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.plan.objects import StepFailureData
from dagster._utils.error import SerializableErrorInfo

from batch_scoring.errors import FailureClass
from batch_scoring.operations import failed_runs, run_history
from batch_scoring.operations.failed_runs import of_run
from batch_scoring_tests.ended_runs import ended
from batch_scoring_tests.tiny import DAY, TinyProject

OWN, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def test_of_a_retry_only_its_own_end_counts() -> None:
    """Dagster copies the tags of the run before, the class of its failure among them."""

    def run(status: dg.DagsterRunStatus = dg.DagsterRunStatus.FAILURE, **tags: str) -> dg.DagsterRun:
        names = {"failure": failed_runs.TAG, "reason": "dagster/failure_reason", "of": failed_runs.RECORDED_FOR}
        named = {names[name]: value for name, value in tags.items()}
        return dg.DagsterRun("score_x", run_id=OWN, status=status, tags=named)

    assert of_run(run(failure="bad_input", reason="STEP_FAILURE", of=OWN)) == "bad_input"
    assert of_run(run(failure="timeout", reason="UNKNOWN", of=OWN)) == "timeout"
    assert of_run(run(failure="bad_input", reason="STEP_FAILURE", of=OTHER)) == "processing_error"
    assert of_run(run(failure="bad_input", reason="UNKNOWN", of=OTHER)) == "lost"
    assert of_run(run(reason="JOB_INITIALIZATION_FAILURE")) == "bad_model"
    assert of_run(run(reason="RUN_EXCEPTION")) == "processing_error"
    assert of_run(run(reason="STEP_FAILURE")) == "processing_error"
    assert of_run(run(dg.DagsterRunStatus.SUCCESS, failure="storage")) is None
    assert of_run(run(dg.DagsterRunStatus.CANCELED, failure="storage")) is None


def test_the_class_is_a_tag_of_the_run(tiny: TinyProject) -> None:
    tiny.land(DAY, b"PAR1, and no more")
    with dg.DagsterInstance.ephemeral() as instance:
        tiny.run(instance=instance, raise_on_error=False)
        (record,) = instance.get_run_records()
        assert record.dagster_run.tags[failed_runs.TAG] == "bad_input"
        assert failed_runs.is_recorded(record.dagster_run)
        (known,) = run_history.of_day(instance, tiny.pipeline, DAY)
        assert (known.status, known.failure) == ("refused", "bad_input")


@pytest.mark.parametrize(
    ("message", "failure"),
    [("Exceeded maximum runtime of 21600 seconds.", "timeout"), ("Run worker is gone.", "lost")],
)
def test_what_no_step_could_note_is_noted_afterwards(tiny: TinyProject, message: str, failure: str) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = ended(instance, tiny, message, **failed_runs.failure_tags("storage", OTHER))
        assert failed_runs.record_failure(instance, run) == failure
        found = instance.get_run_by_id(run.run_id)
        assert found and found.tags[failed_runs.TAG] == failure and of_run(found) == failure
        assert [one.failure for one in run_history.of_day(instance, tiny.pipeline, DAY)] == [failure]


TOLD_TO_END = SerializableErrorInfo("", [], "DagsterExecutionInterruptedError")


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        (None, "lost"),
        (SerializableErrorInfo("Step a_step failed health check: the pod is gone", [], None), "lost"),
        (SerializableErrorInfo("child process exited with code -9", [], "ChildProcessCrashException"), "lost"),
        (TOLD_TO_END, "lost"),
        (SerializableErrorInfo("retry", [], "RetryRequested", TOLD_TO_END), "lost"),
        (SerializableErrorInfo("Pod a: OOMKilled, exit code 137", [], None), "out_of_memory"),
        (SerializableErrorInfo("Job a: DeadlineExceeded: Job was active too long", [], None), "timeout"),
        (SerializableErrorInfo("its pod did not start within 20 minutes", [], None), "timeout"),
        (SerializableErrorInfo("OOMKilled, said the code", [], "RuntimeError", None), "processing_error"),
    ],
)
def test_a_run_whose_step_had_a_process_of_its_own_that_is_gone_is_lost_or_what_is_said_of_it(
    tiny: TinyProject, said: SerializableErrorInfo | None, failure: FailureClass
) -> None:
    """As Dagster's executors for pods and processes say it; tags of a run before it change nothing."""
    with dg.DagsterInstance.ephemeral() as instance:
        tags = {run_history.PARTITION: DAY, **failed_runs.failure_tags("bad_input", OTHER)}
        run = dg.DagsterRun(f"score_{tiny.name}", status=dg.DagsterRunStatus.STARTED, tags=tags)
        instance.add_run(run)
        gone = StepFailureData(error=said, user_failure_data=None)
        instance.report_dagster_event(
            dg.DagsterEvent("STEP_FAILURE", run.job_name, step_key="a_step", event_specific_data=gone), run.run_id
        )
        ended = JobFailureData(error=None, failure_reason=RunFailureReason.STEP_FAILURE)
        instance.report_run_failed(run, "steps failed", ended)
        found = instance.get_run_by_id(run.run_id)
        assert found and failed_runs.record_failure(instance, found) == failure
        found = instance.get_run_by_id(run.run_id)
        assert found and of_run(found) == failure
