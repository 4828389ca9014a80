"""The pod of each step, its retries and its pool, from the `compute` section of the spec.

A pod's resources are tags of the assets and not of their jobs, so that they also apply to runs that are started in the
UI. `k8s_step_handler.py` watches over the pods.
"""

import math
from typing import Any, TypedDict

import dagster as dg

from batch_scoring.config.compute import GPUS, executor_name
from batch_scoring.config.compute_spec import Pod, ScoringPod, Toleration
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.operations.failed_runs import START_MINUTES

K8S_TAG = "dagster-k8s/config"
GPU_POOL = "gpu"
"""Limits the steps with a GPU across all runs, if the instance sets a limit for it."""
RETRY_SECONDS = 15
"""Delay before a lost step's next pod; doubled each time, with jitter."""
KEPT_SECONDS = 24 * 3600
"""How long a finished Job is kept. Longer than any step: if a Job is gone, Dagster considers its step failed."""
GRACE_SECONDS = 60
"""Between a pod's SIGTERM and its SIGKILL: enough for the step to report that it must be retried."""
SPOT_TAINTS = {"cloud.google.com/gke-spot": "true", "kubernetes.azure.com/scalesetpriority": "spot"}
"""Taints of spot nodes by cloud, GKE and AKS; EKS sets none, a team may set its own."""
PIPELINE_LABEL, DAY_LABEL = "batch-scoring/pipeline", "batch-scoring/day"
"""Labels of a step's pod, for cost tools; `k8s_step_handler.py` adds the day, which only the run knows."""
LONGEST_LABEL = 63
"""Characters of a label's value."""
BY_DAY = "batch_scoring/by_day"
"""Tag of the steps whose run has a day as its partition, if it has one; the report's is a month."""
STAYS = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
"""Annotations: an autoscaler must not move a step to free its node."""


class _Policies(TypedDict):
    retry_policy: dg.RetryPolicy | None
    pool: str | None


class StepOptions(_Policies):
    """Arguments of an asset, or of a check with a step of its own: pod, retries and pool."""

    op_tags: dict[str, Any]


class OpOptions(_Policies):
    """The same arguments for an op of a graph-backed asset."""

    tags: dict[str, Any]


def step_options(pipeline: Pipeline, asset: str) -> StepOptions:
    """Arguments of an asset, or of a check with a step of its own."""
    return {"op_tags": tags(pipeline, asset), **_policies(pipeline, asset)}


def op_options(pipeline: Pipeline, asset: str) -> OpOptions:
    """Arguments of an op of a graph-backed asset."""
    return {"tags": tags(pipeline, asset), **_policies(pipeline, asset)}


def tags(pipeline: Pipeline, asset: str) -> dict[str, Any]:
    """Tags of a step, from which dagster-k8s builds its pod. Other executors ignore them."""
    pod = pipeline.spec.compute.of(asset)
    hours = pod.max_hours or pipeline.spec.runs.max_hours
    config = pod_config(pod, hours)
    config["pod_template_spec_metadata"]["labels"] = {PIPELINE_LABEL: pipeline.name[:LONGEST_LABEL].rstrip("_")}
    by_day = {} if asset == "report" else {BY_DAY: "true"}
    return {K8S_TAG: config, START_MINUTES: f"{pod.start_minutes:g}", **by_day}


def _policies(pipeline: Pipeline, asset: str) -> _Policies:
    """Retry policy and pool of a step that has a process of its own.

    In the run's own process nothing would be left to retry the step, and Ctrl-C would look like a lost pod.
    """
    name, pod = executor_name(), pipeline.spec.compute.of(asset)
    pool = pod.pool or (GPU_POOL if isinstance(pod, ScoringPod) and pod.gpu else "")
    retries = dg.RetryPolicy(pod.retries, RETRY_SECONDS, dg.Backoff.EXPONENTIAL, dg.Jitter.PLUS_MINUS)
    return {
        "retry_policy": retries if name != "in_process" and pod.retries else None,
        "pool": pool if name == "k8s" and pool else None,
    }


def pod_config(pod: Pod, hours: float) -> dict[str, Any]:
    """A step's pod as dagster-k8s configures it; lists are appended to those of launcher and code location.

    Args:
        pod: the spec's section.
        hours: after which Kubernetes ends the pod, pending time included, whatever happened to its run.
    """
    # torch, Arrow and the scorer would count the node's cores otherwise
    env = [{"name": "OMP_NUM_THREADS", "value": str(math.ceil(pod.cpu))}]
    requests, limits = {"cpu": _cores(pod.cpu), "memory": pod.memory}, {"memory": pod.memory}
    tolerations = [_toleration(one) for one in pod.tolerations]
    if isinstance(pod, ScoringPod) and pod.gpu:
        requests[pod.gpu_resource] = limits[pod.gpu_resource] = str(pod.gpu)
        env.append({"name": GPUS, "value": str(pod.gpu)})
        tolerations.append({"key": pod.gpu_resource, "operator": "Exists", "effect": "NoSchedule"})
    if pod.spot:
        tolerations += [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
            for key, value in SPOT_TAINTS.items()
        ]
    container: dict[str, Any] = {"resources": {"requests": requests, "limits": limits}, "env": env}
    spec: dict[str, Any] = {"termination_grace_period_seconds": GRACE_SECONDS}
    if pod.image:
        container["image"] = pod.image
    if pod.node_selector:
        spec["node_selector"] = dict(pod.node_selector)
    if tolerations:
        spec["tolerations"] = tolerations
    if pod.shared_memory:
        container["volume_mounts"] = [{"name": "shared-memory", "mount_path": "/dev/shm"}]
        volume = {"medium": "Memory", "size_limit": pod.shared_memory}
        spec["volumes"] = [{"name": "shared-memory", "empty_dir": volume}]
    # no backoff_limit and no podFailurePolicy: if Kubernetes restarts a pod itself, the run never ends
    job = {"ttl_seconds_after_finished": KEPT_SECONDS, "active_deadline_seconds": round(hours * 3600)}
    return {
        "container_config": container,
        "pod_spec_config": spec,
        "pod_template_spec_metadata": {"annotations": dict(STAYS)},
        "job_spec_config": job,
    }


def _cores(cpu: float) -> str:
    return f"{cpu:g}" if cpu == int(cpu) else f"{round(cpu * 1000)}m"


def _toleration(toleration: Toleration) -> dict[str, str]:
    return {name: value for name, value in toleration.model_dump().items() if value}
