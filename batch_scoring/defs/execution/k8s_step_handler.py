"""What the executor k8s knows of its steps' pods beyond "runs" and "has failed": what each waits for, what it died of.

Dagster's own step handler takes a pod that nobody can place, or whose image nobody finds, for one at work, for ever;
so it does with a Job that a lost node's replacement pod has completed; and of a pod that is gone it says only that its
Job has failed. The run's worker asks this handler every 20 seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.executor.step_delegating import CheckStepHealthResult, StepHandler, StepHandlerContext
from dagster_shared.error import SerializableErrorInfo

from batch_scoring.operations.pod_words import NOT_STARTED, START_MINUTES, WAITS

if TYPE_CHECKING:
    from dagster_k8s.client import DagsterKubernetesClient
    from dagster_k8s.executor import K8sStepHandler
    from kubernetes.client import V1Pod

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""For what has no time: everything else is newer."""
_LONGEST = 600
"""Characters of what Kubernetes says."""


@dataclass
class _Watched:
    """What is known of a step's Job."""

    name: str
    step_key: str
    namespace: str
    is_known: bool
    """Whether this worker has launched it, or has seen it fail; of a run that goes on another one has launched it."""
    runs: bool = False
    is_complete: bool = False
    waits_for: str = ""
    """For what, at the last look; without the details, which change from one look to the next."""


class WatchedSteps(StepHandler):
    """dagster-k8s's step handler; a pod that waits too long, or dies, says why."""

    def __init__(self, inner: "K8sStepHandler") -> None:
        """Watch over the steps that a handler launches."""
        self._inner = inner
        self._jobs: dict[str, _Watched] = {}

    @property
    def name(self) -> str:
        """Of the handler that launches."""
        return self._inner.name

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Create the step's Job."""
        self._job(step_handler_context).is_known = True
        return self._inner.launch_step(step_handler_context)

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Delete the step's Job with its pod."""
        return self._inner.terminate_step(step_handler_context)

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """Whether the step may still end well. One whose pod does not start in time is failed here, and for good."""
        job, client = self._job(step_handler_context), self._inner._api_client
        status = client.get_job_status(job.name, job.namespace)
        if status is None:
            said = f"Kubernetes job {job.name} for step {job.step_key} could not be found."
            return CheckStepHealthResult.unhealthy(said)
        if status.failed:
            if not job.is_known:  # who resumes a run would launch it again under the same name, which is taken
                job.is_known = True
                return CheckStepHealthResult.healthy()
            said = f"Discovered failed Kubernetes job {job.name} for step {job.step_key}."
            return CheckStepHealthResult.unhealthy(f"{said} {_cause_of_death(client, job)}".rstrip())
        if status.succeeded:
            if job.is_complete:  # what a step says of its end is there before its process is gone
                return CheckStepHealthResult.unhealthy(
                    f"Kubernetes job {job.name} is complete, and step {job.step_key} has not said how it ended: its "
                    "first pod was lost with its node, and what came in its place had nothing to do."
                )
            job.is_complete = True
        elif not job.runs:
            self._await(step_handler_context, job, client)
        return CheckStepHealthResult.healthy()

    def _job(self, context: StepHandlerContext) -> _Watched:
        name = self._inner._get_k8s_step_job_name(context)
        if name not in self._jobs:
            namespace = self._inner._get_container_context(context).namespace or "default"
            self._jobs[name] = _Watched(name, self._inner._get_step_key(context), namespace, is_known=False)
        return self._jobs[name]

    def _await(self, context: StepHandlerContext, job: _Watched, client: "DagsterKubernetesClient") -> None:
        """Say what the step's pod waits for; fail the step if that takes too long."""
        step = context.get_step_context(job.step_key)
        try:
            pods = _Pods(client, job)
            job.runs = not pods.wait
            if job.runs:
                return
            what, why = pods.waits_for()
            waited = pods.waited_minutes
        except Exception as error:  # of whatever kind: as long as the Job stands nothing is lost but the explanation
            step.log.warning(f"the pod of {job.step_key} cannot be looked at: {error}")
            return
        if what and job.waits_for != what:
            job.waits_for = what
            dg.DagsterEvent.engine_event(step, f"The pod of step {job.step_key} {WAITS} {why}", EngineEventData())
        limit = float(context.step_tags[job.step_key].get(START_MINUTES, "inf"))
        if waited < limit:
            return
        said = f"its pod {NOT_STARTED} {limit:g} minutes (compute.start_minutes in the spec): it {WAITS} {why}"
        client.delete_job(job.name, job.namespace)  # else it starts when nobody waits for it any more
        # no unhealthy step: that would be tried again, and wait again, as often as pods may be lost
        failure = StepFailureData(SerializableErrorInfo(said, [], cls_name=None), user_failure_data=None)
        dg.DagsterEvent.step_failure_event(step, failure)


class _Pods:
    """What Kubernetes says of a step's Job and its pods."""

    def __init__(self, client: "DagsterKubernetesClient", job: _Watched) -> None:
        self._client, self._job = client, job
        pods: list[V1Pod] = client.get_pods_in_job(job.name, job.namespace)
        self._pods = sorted(pods, key=lambda pod: pod.metadata.creation_timestamp or _LONG_AGO)

    @property
    def wait(self) -> bool:
        """Whether the newest pod has not run yet, or there is none."""
        return not self._pods or self._pods[-1].status.phase == "Pending"

    @property
    def waited_minutes(self) -> float:
        """Since the pod was created; since the Job was, if it has none."""
        if self._pods:
            created = self._pods[-1].metadata.creation_timestamp
        else:
            job = self._client.batch_api.read_namespaced_job(self._job.name, self._job.namespace)
            created = job.metadata.creation_timestamp
        return (datetime.now(UTC) - created).total_seconds() / 60

    def waits_for(self) -> tuple[str, str]:
        """What keeps the pod from running, without details and with them; first empty if nothing is wrong yet."""
        if not self._pods:
            reason, message = self._warning("Job", self._job.name)
            return "a pod" if reason else "", _said("a pod", reason, message)
        pod = self._pods[-1]
        for condition in pod.status.conditions or []:
            if condition.type == "PodScheduled" and condition.status == "False":
                return "a node", _said("a node", condition.reason, condition.message)
        waiting = [
            (container, container.state.waiting)
            for container in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
            if container.state and container.state.waiting
        ]
        for container, state in waiting:
            if state.reason not in (None, "ContainerCreating", "PodInitializing"):
                what = f"image {container.image}" if "Image" in state.reason else f"container {container.name}"
                return what, _said(what, state.reason, state.message)
        reason, message = self._warning("Pod", pod.metadata.name)
        what = f"container {waiting[0][0].name}" if waiting else f"pod {pod.metadata.name}"
        return what if reason else "", _said(what, reason or (waiting[0][1].reason if waiting else "Pending"), message)

    def cause_of_death(self) -> str:
        """Why the pod has ended, as Kubernetes tells it; empty if it does not."""
        for pod in reversed(self._pods):
            if pod.status.reason:
                return _said(f"Pod {pod.metadata.name}", pod.status.reason, pod.status.message)
            for container in pod.status.container_statuses or []:
                end = container.state and container.state.terminated
                if end and end.exit_code:
                    return _said(f"Pod {pod.metadata.name}", f"{end.reason}, exit code {end.exit_code}", end.message)
        status = self._client.get_job_status(self._job.name, self._job.namespace)
        for condition in (status.conditions if status else None) or []:
            if condition.type in ("Failed", "FailureTarget"):
                return _said(f"Job {self._job.name}", condition.reason, condition.message)
        return ""

    def _warning(self, kind: str, name: str) -> tuple[str | None, str | None]:
        """Reason and message of the newest warning about a Job or a pod."""
        selector = f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"
        events = self._client.core_api.list_namespaced_event(self._job.namespace, field_selector=selector).items
        if not events:
            return None, None
        newest = max(events, key=lambda event: event.last_timestamp or event.event_time or _LONG_AGO)
        return newest.reason, newest.message


def _said(what: str, reason: str | None, message: str | None) -> str:
    why = ": ".join(part for part in (reason, message) if part)
    return f"{what}: {why}"[:_LONGEST] if why else what


def _cause_of_death(client: "DagsterKubernetesClient", job: _Watched) -> str:
    try:
        return _Pods(client, job).cause_of_death()
    except Exception as error:  # of whatever kind: that the Job has failed stands
        return f"Why cannot be found out: {error}"[:_LONGEST]
