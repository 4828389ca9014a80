"""A run whose worker is lost, and whose next one goes on: what Dagster's own executor gets wrong, and ours does not."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._check import CheckError
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.retries import RetryMode

from batch_scoring.defs.execution.k8s_executor import Resumed, _while_started

SHARES = [f"score[share_{number}]" for number in range(1, 5)]


@dg.op(out=dg.DynamicOut())
def plan() -> Iterator[dg.DynamicOutput]:
    for number in range(1, 5):
        yield dg.DynamicOutput(number, f"share_{number}")


@dg.op(pool="gpu", retry_policy=dg.RetryPolicy(2, 0.05))
def score(context: dg.OpExecutionContext, share: int) -> int:
    if share == 2 and context.retry_number == 0:
        raise RuntimeError("lost")
    return share


@dg.op
def publish(shares: list[int]) -> None: ...


@dg.job
def day() -> None:
    publish(plan().map(score).collect())


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp() as found:
        yield found


def events_of_a_run(instance: dg.DagsterInstance) -> tuple[dg.DagsterRun, list[dg.DagsterEvent]]:
    """Of a whole run; in-process none is launched, so that is put in where a worker would have."""
    run = day.execute_in_process(instance=instance, raise_on_error=False).dagster_run
    events: list[dg.DagsterEvent] = []
    for entry in instance.all_logs(run.run_id):
        if entry.dagster_event is None:
            continue
        if entry.dagster_event.event_type in (dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED):
            begins: Any = entry.dagster_event._replace(
                event_type_value=dg.DagsterEventType.STEP_WORKER_STARTING.value, event_specific_data=None
            )
            events.append(begins)
        events.append(entry.dagster_event)
    return run, events


def until(events: list[dg.DagsterEvent], kind: dg.DagsterEventType, step: str, number: int = 1) -> int:
    """How many events there are up to the first (or another) of a kind of a step."""
    found = [index for index, e in enumerate(events) if e.event_type == kind and e.step_key == step]
    return found[number - 1] + 1


def rebuilt(
    kind: type[ActiveExecution], instance: dg.DagsterInstance, run: dg.DagsterRun, events: list[dg.DagsterEvent]
) -> tuple[set[str], set[str]]:
    """The steps that a new worker takes for begun, and those that it launches next."""
    state: ActiveExecution
    with InstanceConcurrencyContext(instance, run) as slots:
        state = kind(create_execution_plan(day), retry_mode=RetryMode.ENABLED, instance_concurrency_context=slots)
        with pytest.raises(ZeroDivisionError), state:
            begun = {step.key for step in state.rebuild_from_events(events)}
            found = begun, {step.key for step in state.get_steps_to_execute()}
            raise ZeroDivisionError  # else it insists on being complete
    return found


def test_a_share_that_was_tried_again_after_a_pause_is_at_work_or_done(instance: dg.DagsterInstance) -> None:
    run, events = events_of_a_run(instance)
    again = until(events, dg.DagsterEventType.STEP_RESTARTED, SHARES[1])
    done = until(events, dg.DagsterEventType.STEP_SUCCESS, SHARES[1])
    begun, next_ones = rebuilt(Resumed, instance, run, events[:again])
    assert SHARES[1] in begun and SHARES[1] not in next_ones
    begun, next_ones = rebuilt(Resumed, instance, run, events[:done])
    assert SHARES[1] not in begun | next_ones
    assert rebuilt(Resumed, instance, run, events) == (set(), set())


def test_a_pool_that_is_full_keeps_no_worker_from_going_on(instance: dg.DagsterInstance) -> None:
    run, events = events_of_a_run(instance)
    first = until(events, dg.DagsterEventType.STEP_SUCCESS, SHARES[0])
    planned, rest = events[:first], events[first:]
    at_work = [e for e in rest if e.event_type == dg.DagsterEventType.STEP_WORKER_STARTING]
    second, third = (next(e for e in at_work if e.step_key == share) for share in SHARES[1:3])
    storage = instance.event_log_storage
    storage.set_concurrency_slots("gpu", 2)
    for share in SHARES[1:3]:
        assert storage.claim_concurrency_slot("gpu", run.run_id, share).is_claimed
    begun, next_ones = rebuilt(Resumed, instance, run, [*planned, second, third])
    assert begun == set(SHARES[1:3])
    assert next_ones == set(), "the fourth waits for a slot"
    with pytest.raises(CheckError, match="not known to be in flight"):
        rebuilt(ActiveExecution, instance, run, [*planned, second, third])


def test_dagster_itself_takes_a_share_for_waiting_that_was_tried_again(instance: dg.DagsterInstance) -> None:
    """When this fails Dagster has mended it, and `Resumed` can go."""
    run, events = events_of_a_run(instance)
    paused = [
        e._replace(event_specific_data=e.step_retry_data._replace(seconds_to_wait=60)) if e.is_step_up_for_retry else e
        for e in events
    ]
    with pytest.raises(CheckError, match="not known to be in flight"):
        rebuilt(ActiveExecution, instance, run, paused)
    assert rebuilt(Resumed, instance, run, paused) == (set(), set())


@pytest.mark.parametrize(
    ("status", "goes_on"),
    [
        (dg.DagsterRunStatus.STARTED, True),
        (dg.DagsterRunStatus.CANCELING, False),
        (dg.DagsterRunStatus.CANCELED, False),
        (dg.DagsterRunStatus.FAILURE, False),
    ],
)
def test_only_a_run_that_nobody_has_ended_goes_on_in_another_worker(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, status: dg.DagsterRunStatus, goes_on: bool
) -> None:
    monkeypatch.setattr(instance, "run_will_resume", lambda _: True)
    run = instance.create_run_for_job(day, status=status)
    assert _while_started(instance)(run.run_id) is goes_on
    monkeypatch.setattr(instance, "run_will_resume", lambda _: False)
    assert not _while_started(instance)(run.run_id)
