"""The executor k8s: that of dagster-k8s, with watched pods and runs that resume correctly.

If a run's worker is lost, another one resumes the run. Dagster 1.13 has four defects there. A cancelled run leaves its
pods running, because its worker expects to be resumed. And the new worker, which rebuilds the state from the run's
events, fails if a step was retried after a pause or if a pool was full (both pinned in tests), or after a thousand
events.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import dagster as dg

from batch_scoring.dagster_internals import ActiveExecution, ExecutionStep, StepDelegatingExecutor
from batch_scoring.defs.execution.k8s_step_handler import WatchedSteps

step_delegating_executor: Any = import_module(StepDelegatingExecutor.__module__)
MOST_EVENTS = 1_000_000
"""Events of a run that are read at once."""
_STARTING = dg.DagsterEventType.STEP_WORKER_STARTING
"""Event that is stored just before a step's Job is created."""


class PodExecutor(StepDelegatingExecutor):
    """dagster-k8s's executor with its defects corrected."""

    def __init__(self, made: StepDelegatingExecutor) -> None:
        """Take over the settings of an executor of dagster-k8s."""
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
        """Launch the steps and follow them; see Dagster's class."""
        instance = plan_context.instance
        before = instance.run_will_resume, step_delegating_executor.ActiveExecution
        instance.run_will_resume = _while_started(instance)
        step_delegating_executor.ActiveExecution = Resumed
        try:
            yield from super().execute(plan_context, execution_plan)
        finally:
            instance.run_will_resume, step_delegating_executor.ActiveExecution = before


def _while_started(instance: dg.DagsterInstance) -> Callable[[str], bool]:
    """Whether a run whose worker is terminated will be resumed: not if it was cancelled or has timed out."""
    would_resume = instance.run_will_resume

    def will_resume(run_id: str) -> bool:
        run = instance.get_run_by_id(run_id)
        return run is not None and run.status == dg.DagsterRunStatus.STARTED and would_resume(run_id)

    return will_resume


class Resumed(ActiveExecution):
    """The state of a resumed run: a step that has started counts as started, whatever pauses and pools say now."""

    def rebuild_from_events(self, dagster_events: Sequence[dg.DagsterEvent]) -> Sequence[ExecutionStep]:
        """Replay events; returns the steps that have started and not ended."""
        for event in dagster_events:
            if event.event_type == _STARTING and event.step_key:
                self._update()  # steps that waited for those that have ended
                self._start(event.step_key)
            self.handle_event(event)
        self._update()
        steps = [self.get_step_by_key(key) for key in self._in_flight]
        for step in steps:
            if step.pool and self._instance_concurrency_context:  # it holds a slot, which is released when it ends
                self._instance_concurrency_context.claim(step.pool, step.key)
        return steps

    def _start(self, key: str) -> None:
        if key in self._executable:
            self._executable.remove(key)
        elif self._waiting_to_retry.pop(key, None) is None:
            return
        self._in_flight.add(key)
        self._prep_for_dynamic_outputs(self.get_step_by_key(key))
