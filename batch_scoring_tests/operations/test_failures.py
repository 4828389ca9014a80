"""Failures have the class that decides what becomes of their day; reliability/failing.py provokes them for real."""

import errno
from datetime import UTC, datetime, timedelta

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
import torch
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.plan.objects import StepFailureData
from dagster._utils.error import SerializableErrorInfo
from deltalake.exceptions import DeltaError
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.defs.asset_checks import RefusedError
from batch_scoring.errors import (
    FAILURES,
    DeviceError,
    FailureClass,
)
from batch_scoring.operations import failures, run_history
from batch_scoring.operations.failures import Pauses, classify, of_run
from batch_scoring.runtime.step_context import StepContext
from batch_scoring_tests.tiny import DAY, TinyProject

OWN, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def raised(what: object) -> BaseException:
    """What a library really raises."""
    try:
        what()  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError("it went well")


ERRORS: list[tuple[BaseException, FailureClass]] = [
    (RefusedError("model", "a check"), "bad_model"),
    (DeviceError("no GPU"), "processing_error"),
    (PermissionError(errno.EACCES, "denied"), "storage"),
    (OSError(errno.ENOSPC, "full"), "storage"),
    (TimeoutError("silence"), "storage"),
    (OSError(errno.ENOMEM, "no memory"), "out_of_memory"),
    (MemoryError(), "out_of_memory"),
    (raised(lambda: np.empty(2**60, np.uint8)), "out_of_memory"),
    (raised(lambda: torch.empty(2**60, dtype=torch.uint8)), "out_of_memory"),
    (raised(lambda: pa.allocate_buffer(2**60)), "out_of_memory"),
    (RuntimeError("can't start new thread"), "out_of_memory"),
    (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
    (DeltaError("Generic S3 error: 503"), "storage"),
    (ZeroDivisionError(), "processing_error"),
    (dg.Failure("somebody's own"), "processing_error"),
]


@pytest.mark.parametrize(("error", "failure"), ERRORS, ids=[f"{type(e).__name__}-{f}" for e, f in ERRORS])
def test_an_exception_has_a_class(error: BaseException, failure: FailureClass) -> None:
    assert classify(error) == failure


def test_an_error_of_boto3_itself_is_one_of_storage() -> None:
    from botocore.exceptions import EndpointConnectionError

    assert classify(EndpointConnectionError(endpoint_url="http://127.0.0.1:1")) == "storage"


def test_the_table_of_the_docstring_has_every_class() -> None:
    assert all(f"| `{failure}` |" in (failures.__doc__ or "") for failure in FAILURES)


@given(st.integers(1, 12), st.text(max_size=20))
def test_pauses_double_and_differ_by_a_quarter(failed: int, seed: str) -> None:
    pauses = Pauses(retries=20, first=300)
    usual = min(300 * 2 ** (failed - 1), failures.LONGEST_PAUSE)
    assert 0.75 * usual <= pauses.after(failed, seed) <= 1.25 * usual
    assert pauses.after(failed, seed) == pauses.after(failed, seed)


def test_days_that_failed_together_come_back_apart() -> None:
    assert len({round(Pauses().after(1, f"2024-03-{day:02}")) for day in range(1, 31)}) > 25


def test_of_a_retry_only_its_own_end_counts() -> None:
    """Dagster copies the tags of the run before, the class of its failure among them."""

    def run(status: dg.DagsterRunStatus = dg.DagsterRunStatus.FAILURE, **tags: str) -> dg.DagsterRun:
        names = {"failure": failures.TAG, "reason": "dagster/failure_reason", "of": failures.NOTED_OF}
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
        assert record.dagster_run.tags[failures.TAG] == "bad_input"
        assert failures.is_noted(record.dagster_run)
        (known,) = run_history.of_day(instance, tiny.pipeline, DAY)
        assert (known.status, known.failure) == ("refused", "bad_input")


def ended(instance: dg.DagsterInstance, tiny: TinyProject, message: str, **tags: str) -> dg.DagsterRun:
    """A run of the day that ended without a word of its steps."""
    run = dg.DagsterRun(
        f"score_{tiny.name}",
        status=dg.DagsterRunStatus.STARTED,
        tags={run_history.PARTITION: DAY, run_history.FINGERPRINT: "f", run_history.CODE: "c", **tags},
    )
    instance.add_run(run)
    instance.report_run_failed(run, message)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("message", "failure"),
    [("Exceeded maximum runtime of 21600 seconds.", "timeout"), ("Run worker is gone.", "lost")],
)
def test_what_no_step_could_note_is_noted_afterwards(tiny: TinyProject, message: str, failure: str) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = ended(instance, tiny, message, **failures.tags("storage", OTHER))
        assert failures.note_end(instance, run) == failure
        found = instance.get_run_by_id(run.run_id)
        assert found and found.tags[failures.TAG] == failure and of_run(found) == failure
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
        tags = {run_history.PARTITION: DAY, **failures.tags("bad_input", OTHER)}
        run = dg.DagsterRun(f"score_{tiny.name}", status=dg.DagsterRunStatus.STARTED, tags=tags)
        instance.add_run(run)
        gone = StepFailureData(error=said, user_failure_data=None)
        instance.report_dagster_event(
            dg.DagsterEvent("STEP_FAILURE", run.job_name, step_key="a_step", event_specific_data=gone), run.run_id
        )
        ended = JobFailureData(error=None, failure_reason=RunFailureReason.STEP_FAILURE)
        instance.report_run_failed(run, "steps failed", ended)
        found = instance.get_run_by_id(run.run_id)
        assert found and failures.note_end(instance, found) == failure
        found = instance.get_run_by_id(run.run_id)
        assert found and of_run(found) == failure


def test_a_run_after_one_that_was_killed_halves_its_batches_and_gives_the_same_scores(tiny: TinyProject) -> None:
    tiny.spec["scoring"] |= {"batch_rows": 256}
    tiny.write_spec()
    tiny.land(DAY, tiny.rows(500))
    tiny.run()
    before = tiny.read()
    tiny.land(DAY, tiny.rows(500))  # another version of the same rows
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_history.halvings(instance, tiny.pipeline, DAY) == 0
        ended(instance, tiny, "gone")
        ended(instance, tiny, "gone again")
        assert run_history.halvings(instance, tiny.pipeline, DAY) == 2
        result = tiny.run(instance=instance)
        (event,) = result.asset_materializations_for_node(f"{tiny.name}__predictions")
        assert event.metadata["batch_rows"].value == 64
        assert run_history.halvings(instance, tiny.pipeline, DAY) == 0, "one has gone well since"
    columns = [name for name in before.column_names if name != "scored_at"]
    assert tiny.read().select(columns).equals(before.select(columns))


def test_failed_runs_are_counted_by_class(tiny: TinyProject) -> None:
    tiny.land(DAY, b"PAR1, and no more")
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            tiny.run(instance=instance, raise_on_error=False)
        ended(instance, tiny, "gone")
        month = timedelta(days=30)
        found = run_history.failed_since(instance, tiny.pipeline, datetime.now(UTC) - month)
        assert [(one.failure, one.runs, one.days) for one in found] == [("bad_input", 2, (DAY,)), ("lost", 1, (DAY,))]
        assert run_history.failed_since(instance, tiny.pipeline, datetime.now(UTC) + month) == []


def test_no_memory_for_the_model_is_not_the_models_fault(tiny: TinyProject) -> None:
    network = (tiny.folder / "network.py").read_text()
    hungry = "        torch.empty(2**60, dtype=torch.uint8)\n        result ="
    tiny.write_code(network=network.replace("        result =", hungry))
    tiny.land(DAY, tiny.rows(20))
    with dg.DagsterInstance.ephemeral() as instance:
        tiny.run(instance=instance, raise_on_error=False)
        (known,) = run_history.of_day(instance, tiny.pipeline, DAY)
        assert (known.status, known.failure) == ("failed", "out_of_memory")


def test_a_disk_that_errs_is_no_broken_file(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.land(DAY, b"id,x,y,n,c\nk1,1,1,1,red\n", "a.csv")

    def fails(self: object, size: int = -1) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("batch_scoring.ingest.formats.csv_stream.Text.read", fails)
    with dg.DagsterInstance.ephemeral() as instance:
        tiny.run(instance=instance, raise_on_error=False)
        (known,) = run_history.of_day(instance, tiny.pipeline, DAY)
        assert (known.status, known.failure) == ("failed", "storage")


def test_a_class_that_cannot_be_noted_does_not_hide_the_error() -> None:
    said: list[object] = []

    def full(_tags: dict[str, str]) -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(ZeroDivisionError), failures.noted(StepContext("r", datetime.now(UTC), said.append, tag=full)):
        raise ZeroDivisionError
    assert "cannot be noted" in str(said)
