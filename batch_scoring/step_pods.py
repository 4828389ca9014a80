"""What the executor k8s knows of its steps' pods beyond "runs" and "has failed": what each waits for, what it died of.

Dagster's own step handler takes a pod that nobody can place, or whose image nobody finds, for one at work, for ever;
and of a pod that is gone it says only that its Job has failed. The run's worker asks this handler every 20 seconds.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)

from batch_scoring.compute import START_MINUTES

if TYPE_CHECKING:
    from dagster_k8s.executor import K8sStepHandler
    from kubernetes.client import V1Pod

WAITS = "waits for"
"""In the events of a step whose pod does not run yet."""
NOT_STARTED = "did not start within"
"""In the error of a step whose pod has waited too long."""
BEGINNING = datetime.min.replace(tzinfo=UTC)
GONE_SECONDS = 60
"""Within which a deleted Job is gone."""
_LONGEST = 600
"""Characters of what Kubernetes says."""


def watched(executor: dg.Executor) -> dg.Executor:
    """The executor of dagster-k8s, with what it asks of its pods."""
    if not isinstance(executor, StepDelegatingExecutor):
        raise TypeError(f"dagster-k8s's executor is a {type(executor).__name__}; expected a StepDelegatingExecutor")
    executor._step_handler = WatchedSteps(executor._step_handler)  # type: ignore[arg-type]
    return executor


class WatchedSteps(StepHandler):
    """dagster-k8s's step handler; a pod that waits too long, or dies, says why."""

    def __init__(self, inner: "K8sStepHandler") -> None:
        """Watch over the steps that a handler launches."""
        self._inner = inner
        self._said: dict[str, str] = {}

    @property
    def name(self) -> str:
        """Of the handler that launches."""
        return self._inner.name

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Create the step's Job, in the place of a failed one of the same name."""
        self._make_way(step_handler_context)
        yield from self._inner.launch_step(step_handler_context)

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Delete the step's Job with its pod."""
        return self._inner.terminate_step(step_handler_context)

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """Whether the step may still end well: its Job has not failed, and its pod runs or has not waited too long."""
        result = self._inner.check_step_health(step_handler_context)
        try:
            view = _View(self._inner, step_handler_context)
            return self._explained(result, view) if not result.is_healthy else self._awaited(step_handler_context, view)
        except Exception as error:  # of whatever kind: what the Job says stands
            return result if result.is_healthy else _unhealthy(result, f"why cannot be found out: {error}"[:_LONGEST])

    def _explained(self, result: CheckStepHealthResult, view: "_View") -> CheckStepHealthResult:
        return _unhealthy(result, view.cause_of_death())

    def _make_way(self, context: StepHandlerContext) -> None:
        """Delete a Job that has failed, and wait until it is gone.

        A run that goes on in a new pod launches anew what was lost with the old one, by the name that it had.
        """
        client, namespace = self._inner._api_client, _namespace(self._inner, context)
        job_name = self._inner._get_k8s_step_job_name(context)
        status = client.get_job_status(job_name, namespace)
        if status is None or not status.failed:
            return
        client.delete_job(job_name, namespace)
        until = time.monotonic() + GONE_SECONDS
        while client.get_job_status(job_name, namespace) is not None and time.monotonic() < until:
            time.sleep(0.5)

    def _awaited(self, context: StepHandlerContext, view: "_View") -> CheckStepHealthResult:
        if not view.is_waiting:
            return CheckStepHealthResult.healthy()
        reason = view.waits_for()
        if reason and self._said.get(view.job_name) != reason:
            self._said[view.job_name] = reason
            step = context.get_step_context(view.step_key)
            dg.DagsterEvent.engine_event(step, f"The pod of step {view.step_key} {WAITS} {reason}", EngineEventData())
        limit = float(context.step_tags[view.step_key].get(START_MINUTES, "inf"))
        if view.waited_minutes < limit:
            return CheckStepHealthResult.healthy()
        view.delete()  # else it starts when nobody waits for it any more
        return CheckStepHealthResult.unhealthy(
            f"its pod {NOT_STARTED} {limit:g} minutes (compute.start_minutes in the spec): "
            f"it {WAITS} {reason or 'what Kubernetes does not tell'}"
        )


class _View:
    """What Kubernetes says of a step's Job."""

    def __init__(self, handler: "K8sStepHandler", context: StepHandlerContext) -> None:
        self._client = handler._api_client
        self._namespace = _namespace(handler, context)
        self.step_key = handler._get_step_key(context)
        self.job_name = handler._get_k8s_step_job_name(context)
        pods: list[V1Pod] = self._client.get_pods_in_job(self.job_name, self._namespace)
        self._pods = sorted(pods, key=lambda pod: pod.metadata.creation_timestamp)

    @property
    def is_waiting(self) -> bool:
        """Whether the newest pod does not run yet, or there is none, and nothing has ended."""
        if self._pods:
            return bool(self._pods[-1].status.phase == "Pending")
        status = self._client.get_job_status(self.job_name, self._namespace)
        return status is not None and not status.succeeded

    @property
    def waited_minutes(self) -> float:
        """Since the pod was created; since the Job was, if it has none."""
        if self._pods:
            created = self._pods[-1].metadata.creation_timestamp
        else:
            job = self._client.batch_api.read_namespaced_job(self.job_name, self._namespace)
            created = job.metadata.creation_timestamp
        return (datetime.now(UTC) - created).total_seconds() / 60

    def waits_for(self) -> str:
        """What keeps the pod from running; empty if nothing is known."""
        if not self._pods:
            return self._event("Job", self.job_name, "FailedCreate")
        pod = self._pods[-1]
        for condition in pod.status.conditions or []:
            if condition.type == "PodScheduled" and condition.status == "False":
                return _said("a node", condition.reason, condition.message)
        for container in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]:
            waiting = container.state and container.state.waiting
            if waiting and waiting.reason not in (None, "ContainerCreating", "PodInitializing"):
                return _said(f"image {container.image}", waiting.reason, waiting.message)
        return self._event("Pod", pod.metadata.name, "FailedMount")

    def cause_of_death(self) -> str:
        """Why the pod has ended, as Kubernetes tells it; empty if it does not."""
        for pod in self._pods:
            if pod.status.reason:
                return _said(f"Pod {pod.metadata.name}", pod.status.reason, pod.status.message)
            for container in pod.status.container_statuses or []:
                end = container.state and container.state.terminated
                if end and end.exit_code:
                    return _said(f"Pod {pod.metadata.name}", f"{end.reason}, exit code {end.exit_code}", end.message)
        status = self._client.get_job_status(self.job_name, self._namespace)
        for condition in (status.conditions if status else None) or []:
            if condition.type == "Failed":
                return _said(f"Job {self.job_name}", condition.reason, condition.message)
        return ""

    def delete(self) -> None:
        """Take the Job with its pod away."""
        self._client.delete_job(self.job_name, self._namespace)

    def _event(self, kind: str, name: str, reason: str) -> str:
        selector = f"involvedObject.kind={kind},involvedObject.name={name},reason={reason}"
        events = self._client.core_api.list_namespaced_event(self._namespace, field_selector=selector).items
        if not events:
            return ""
        newest = max(events, key=lambda event: event.last_timestamp or event.event_time or BEGINNING)
        return _said(f"what {kind} {name} needs", reason, newest.message)


def _namespace(handler: "K8sStepHandler", context: StepHandlerContext) -> str:
    return handler._get_container_context(context).namespace or "default"


def _unhealthy(result: CheckStepHealthResult, why: str) -> CheckStepHealthResult:
    return CheckStepHealthResult.unhealthy(f"{result.unhealthy_reason} {why}".rstrip())


def _said(what: str, reason: str | None, message: str | None) -> str:
    return f"{what}: {': '.join(part for part in (reason, message) if part)}"[:_LONGEST]
