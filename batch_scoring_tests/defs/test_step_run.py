"""A step records its failure in its run and in the state, and raises it whatever happens to the record."""

import errno
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from batch_scoring.defs import step_run
from batch_scoring.operations import failure_records
from batch_scoring.runtime.step_context import StepContext
from batch_scoring_tests.reliability.proxy import Fault
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import TinyProject


def test_a_class_that_cannot_be_recorded_does_not_hide_the_error() -> None:
    said: list[object] = []

    def full(_tags: dict[str, str]) -> None:
        raise OSError(errno.ENOSPC, "full")

    with (
        pytest.raises(ZeroDivisionError),
        step_run.recording_failure(StepContext("r", datetime.now(UTC), said.append, tag=full)),
    ):
        raise ZeroDivisionError
    assert "cannot be recorded" in str(said)


def test_a_state_that_cannot_be_written_does_not_hide_the_error(tiny: TinyProject) -> None:
    tiny.pipeline.output.put("state/failures", b"a file where the folder should be")
    said: list[object] = []
    run = StepContext("r", datetime.now(UTC), said.append)
    record = partial(failure_records.record_error, tiny.pipeline, run, f"{tiny.name}__predictions")
    with pytest.raises(ZeroDivisionError, match="the first error"), step_run.recording_failure(run, record):
        raise ZeroDivisionError("the first error")
    (line,) = said
    assert "the failure cannot be recorded in the state: " in str(line)
    assert tiny.pipeline.output.read("state/failures") == b"a file where the folder should be"


@pytest.mark.s3
def test_a_store_that_hangs_delays_the_error_by_a_few_seconds(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_records, "WRITE_SECONDS", 0.2)
    tiny = TinyProject(tmp_path, f"s3://{store.new_bucket()}/data")
    store.proxy.faults.append(Fault("delay", r"^GET .*failures", seconds=3))
    said: list[object] = []
    run = StepContext("r", datetime.now(UTC), said.append)
    record = partial(failure_records.record_error, tiny.pipeline, run, f"{tiny.name}__predictions")
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError), step_run.recording_failure(run, record):
        raise ZeroDivisionError
    assert time.monotonic() - began < 2
    assert "did not answer within 0.2 seconds" in str(said)
