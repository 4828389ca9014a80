"""A step records the class of its failure in its run, whatever happens to the record."""

import errno
from datetime import UTC, datetime

import pytest

from batch_scoring.defs import step_run
from batch_scoring.runtime.step_context import StepContext


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
