"""Health of step pods under the executor k8s: what a pending pod waits for, why a pod has died.

Dagster's own step handler considers a pod healthy for ever that cannot be scheduled or whose image does not exist, and
a Job that was completed by the replacement of a lost pod; of a failed pod it reports only that its Job has failed. The
run's worker asks this handler every 20 seconds.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from batch_scoring.dagster_internals import (
    CheckStepHealthResult,
    EngineEventData,
    SerializableErrorInfo,
    StepFailureData,
    StepHandler,
    StepHandlerContext,
)
from batch_scoring.defs.execution.step_pods import BY_DAY, DAY_LABEL, K8S_TAG
from batch_scoring.operations.failed_runs import NOT_STARTED, START_MINUTES, WAITS
from batch_scoring.operations.run_history import PARTITION

if TYPE_CHECKING:
    from kubernetes.client import V1Pod

    from batch_scoring.dagster_internals import DagsterKubernetesClient, K8sStepHandler

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""Stands for a missing time; anything else is newer."""
_LONGEST = 600
"""Characters of a message that are kept."""


@dataclass
class _Watched:
    """State of a step's Job as last observed."""

    name: str
    step_key: str
    namespace: str
    is_known: bool
    """Whether this worker has launched the Job or seen it fail; in a resumed run another worker has launched it."""
    runs: bool = False
    is_complete: bool = False
    waits_for: str = ""
    """What the pod last waited for; without details, which change every time."""


class WatchedSteps(StepHandler):
    """dagster-k8s's step handler, with a reason for every pod that waits too long or dies."""

    def __init__(self, inner: "K8sStepHandler") -> None:
        """Wrap the handler that launches the steps."""
        self._inner = inner
        self._jobs: dict[str, _Watched] = {}

    @property
    def name(self) -> str:
        """Name of the wrapped handler."""
        return str(self._inner.name)

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Create the step's Job."""
        self._job(step_handler_context).is_known = True
        return self._inner.launch_step(_Labelled(step_handler_context))

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Delete the step's Job with its pod."""
        return self._inner.terminate_step(step_handler_context)

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """Whether the step may still succeed. Fails a step whose pod does not start in time, without a retry."""
        job, client = self._job(step_handler_context), self._inner._api_client
        status = client.get_job_status(job.name, job.namespace)
        if status is None:
            reason = f"Kubernetes job {job.name} for step {job.step_key} could not be found."
            return CheckStepHealthResult.unhealthy(reason)
        if status.failed:
            if not job.is_known:  # a resumed run would launch it again under the same name, which is taken
                job.is_known = True
                return CheckStepHealthResult.healthy()
            reason = f"Discovered failed Kubernetes job {job.name} for step {job.step_key}."
            return CheckStepHealthResult.unhealthy(f"{reason} {_cause_of_death(client, job)}".rstrip())
        if status.succeeded:
            if job.is_complete:  # a step reports its end before its process exits
                return CheckStepHealthResult.unhealthy(
                    f"Kubernetes job {job.name} is complete, and step {job.step_key} has not reported how it ended: "
                    "its first pod was lost with its node, and what came in its place had nothing to do."
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
        """Log what the step's pod waits for; fail the step if it waits too long."""
        step = context.get_step_context(job.step_key)
        try:
            pods = _Pods(client, job)
            job.runs = not pods.wait
            if job.runs:
                return
            what, why = pods.waits_for()
            waited = pods.waited_minutes
        except Exception as error:  # of any kind: while the Job exists only the explanation is lost
            step.log.warning(f"the pod of {job.step_key} cannot be inspected: {error}")
            return
        if what and job.waits_for != what:
            job.waits_for = what
            dg.DagsterEvent.engine_event(step, f"The pod of step {job.step_key} {WAITS} {why}", EngineEventData())
        limit = float(context.step_tags[job.step_key].get(START_MINUTES, "inf"))
        if waited < limit:
            return
        message = f"its pod {NOT_STARTED} {limit:g} minutes (compute.start_minutes in the spec): it {WAITS} {why}"
        client.delete_job(job.name, job.namespace)  # otherwise it may start later, when nothing waits for it
        # not `unhealthy`, after which the step would be retried and wait again
        failure = StepFailureData(SerializableErrorInfo(message, [], cls_name=None), user_failure_data=None)
        dg.DagsterEvent.step_failure_event(step, failure)


class _Labelled(StepHandlerContext):
    """A context whose steps ask for pods that are labelled with the run's day."""

    def __init__(self, context: StepHandlerContext) -> None:
        """Take over a context."""
        self.__dict__.update(context.__dict__)

    @property
    def step_tags(self) -> Mapping[str, Mapping[str, str]]:
        """The steps' tags, from which dagster-k8s builds their pods."""
        day = self.dagster_run.tags.get(PARTITION)
        return {key: _with_label(tags, day) for key, tags in super().step_tags.items()}


def _with_label(tags: Mapping[str, str], day: str | None) -> Mapping[str, str]:
    if day is None or BY_DAY not in tags:
        return tags
    config = json.loads(tags[K8S_TAG])
    config["pod_template_spec_metadata"]["labels"][DAY_LABEL] = day
    return {**tags, K8S_TAG: json.dumps(config)}


class _Pods:
    """A step's Job and its pods as Kubernetes describes them."""

    def __init__(self, client: "DagsterKubernetesClient", job: _Watched) -> None:
        self._client, self._job = client, job
        pods: list[V1Pod] = client.get_pods_in_job(job.name, job.namespace)
        self._pods = sorted(pods, key=lambda pod: pod.metadata.creation_timestamp or _LONG_AGO)

    @property
    def wait(self) -> bool:
        """Whether the newest pod is pending, or there is none."""
        return not self._pods or self._pods[-1].status.phase == "Pending"

    @property
    def waited_minutes(self) -> float:
        """Minutes since the pod was created, or the Job if it has no pod."""
        if self._pods:
            created = self._pods[-1].metadata.creation_timestamp
        else:
            job = self._client.batch_api.read_namespaced_job(self._job.name, self._job.namespace)
            created = job.metadata.creation_timestamp
        return float((datetime.now(UTC) - created).total_seconds() / 60)

    def waits_for(self) -> tuple[str, str]:
        """What keeps the pod from running, without and with details; the first is empty if nothing is wrong yet."""
        if not self._pods:
            reason, message = self._warning("Job", self._job.name)
            return "a pod" if reason else "", _described("a pod", reason, message)
        pod = self._pods[-1]
        for condition in pod.status.conditions or []:
            if condition.type == "PodScheduled" and condition.status == "False":
                return "a node", _described("a node", condition.reason, condition.message)
        waiting = [
            (container, container.state.waiting)
            for container in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
            if container.state and container.state.waiting
        ]
        for container, state in waiting:
            if state.reason not in (None, "ContainerCreating", "PodInitializing"):
                what = f"image {container.image}" if "Image" in state.reason else f"container {container.name}"
                return what, _described(what, state.reason, state.message)
        reason, message = self._warning("Pod", pod.metadata.name)
        what = f"container {waiting[0][0].name}" if waiting else f"pod {pod.metadata.name}"
        return what if reason else "", _described(
            what, reason or (waiting[0][1].reason if waiting else "Pending"), message
        )

    def cause_of_death(self) -> str:
        """Why the pod has ended according to Kubernetes; empty if unknown."""
        for pod in reversed(self._pods):
            if pod.status.reason:
                return _described(f"Pod {pod.metadata.name}", pod.status.reason, pod.status.message)
            for container in pod.status.container_statuses or []:
                end = container.state and container.state.terminated
                if end and end.exit_code:
                    return _described(
                        f"Pod {pod.metadata.name}", f"{end.reason}, exit code {end.exit_code}", end.message
                    )
        status = self._client.get_job_status(self._job.name, self._job.namespace)
        for condition in (status.conditions if status else None) or []:
            if condition.type in ("Failed", "FailureTarget"):
                return _described(f"Job {self._job.name}", condition.reason, condition.message)
        return ""

    def _warning(self, kind: str, name: str) -> tuple[str | None, str | None]:
        """Reason and message of the newest warning event of a Job or a pod."""
        selector = f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"
        events = self._client.core_api.list_namespaced_event(self._job.namespace, field_selector=selector).items
        if not events:
            return None, None
        newest = max(events, key=lambda event: event.last_timestamp or event.event_time or _LONG_AGO)
        return newest.reason, newest.message


def _described(what: str, reason: str | None, message: str | None) -> str:
    why = ": ".join(part for part in (reason, message) if part)
    return f"{what}: {why}"[:_LONGEST] if why else what


def _cause_of_death(client: "DagsterKubernetesClient", job: _Watched) -> str:
    try:
        return _Pods(client, job).cause_of_death()
    except Exception as error:  # any error at all: the Job has failed in any case
        return f"The reason cannot be determined: {error}"[:_LONGEST]
