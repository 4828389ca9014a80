"""The executor k8s: dagster-k8s's, with pods that are watched over and runs that are truly gone on with.

A run's worker may be lost and another one take its place. Dagster 1.13 gets wrong then: a run that is cancelled leaves
its pods at work, since its worker hopes to be resumed; and a new worker that rebuilds what has happened loses its way
where a step was tried again after a pause, where a pool was full (both pinned in tests), and after a thousand events.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEventType
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.executor.step_delegating import StepDelegatingExecutor

from batch_scoring.defs.execution.k8s_step_handler import WatchedSteps

step_delegating_executor: Any = import_module(StepDelegatingExecutor.__module__)
MOST_EVENTS = 1_000_000
"""Of a run, read at once."""
_BEGINNING = DagsterEventType.STEP_WORKER_STARTING
"""Stands in a run's events before the step's Job is created."""


class PodExecutor(StepDelegatingExecutor):
    """Executes steps as dagster-k8s does."""

    def __init__(self, made: StepDelegatingExecutor) -> None:
        """Take over the settings of an executor that dagster-k8s has made."""
        super().__init__(
            WatchedSteps(made._step_handler),  # type: ignore[arg-type]
            made.retries,
            max_concurrent=made._max_concurrent,
            tag_concurrency_limits=made._tag_concurrency_limits,
            should_verify_step=made._should_verify_step,
            step_dependency_config=made.step_dependency_config,
        )
        self._pop_events_limit = MOST_EVENTS

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:  # noqa: ANN401  (Dagster's)
        """Launch the steps and follow them; see the class of Dagster."""
        instance = plan_context.instance
        before = instance.run_will_resume, step_delegating_executor.ActiveExecution
        instance.run_will_resume = _while_started(instance)
        step_delegating_executor.ActiveExecution = Resumed
        try:
            yield from super().execute(plan_context, execution_plan)
        finally:
            instance.run_will_resume, step_delegating_executor.ActiveExecution = before


def _while_started(instance: dg.DagsterInstance) -> Callable[[str], bool]:
    """Whether a run whose worker is told to end goes on in another: not if somebody has ended it, or its time."""
    would_resume = instance.run_will_resume

    def will_resume(run_id: str) -> bool:
        run = instance.get_run_by_id(run_id)
        return run is not None and run.status == dg.DagsterRunStatus.STARTED and would_resume(run_id)

    return will_resume


class Resumed(ActiveExecution):
    """The state of a run, rebuilt from its events: whatever pauses and pools may say now, what has begun has begun."""

    def rebuild_from_events(self, dagster_events: Sequence[dg.DagsterEvent]) -> Sequence[ExecutionStep]:
        """Replay events; gives the steps that were begun and have not ended."""
        for event in dagster_events:
            if event.event_type == _BEGINNING and event.step_key:
                self._update()  # what waited for the steps that have ended
                self._begin(event.step_key)
            self.handle_event(event)
        self._update()
        steps = [self.get_step_by_key(key) for key in self._in_flight]
        for step in steps:
            if step.pool and self._instance_concurrency_context:  # the slot that it holds is given back at its end
                self._instance_concurrency_context.claim(step.pool, step.key)
        return steps

    def _begin(self, key: str) -> None:
        if key in self._executable:
            self._executable.remove(key)
        elif self._waiting_to_retry.pop(key, None) is None:
            return
        self._in_flight.add(key)
        self._prep_for_dynamic_outputs(self.get_step_by_key(key))
