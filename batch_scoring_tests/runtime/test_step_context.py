"""What a step's context counts."""

from datetime import UTC, datetime

import pytest

from batch_scoring.runtime.step_context import StepContext


def test_time_is_counted_by_activity_also_when_it_ends_in_an_error() -> None:
    run = StepContext("a-run", datetime.now(UTC), lambda _: None)
    assert list(run.timed_each("read", iter([1, 2, 3]))) == [1, 2, 3]
    with pytest.raises(KeyError), run.timed("write"):
        raise KeyError
    first = dict(run.seconds)
    with run.timed("write"):
        pass
    assert run.seconds.keys() == {"read", "write"} and run.seconds["write"] > first["write"] > 0
