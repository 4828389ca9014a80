"""The executor, and the pod, retries and pool of each step under the `compute` section of the spec.

`config/compute.py` says which executor the environment chooses. A pod's resources are tags of the assets and not of
their jobs, so that they also apply to runs that are started in the UI.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import dagster as dg

from batch_scoring.config.compute import GPUS, check_shared_folders, executor_name
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import Pod, ScoringPod, Toleration
from batch_scoring.operations.run_failures import START_MINUTES

K8S_TAG = "dagster-k8s/config"
GPU_POOL = "gpu"
"""Limits the steps with a GPU across all runs, if the instance sets a limit for it."""
RETRY_SECONDS = 15
"""Delay before a lost step's next pod; doubled each time, with jitter."""
PROCESSES = 2
"""Concurrent steps of a run under `multiprocess`, unless the launchpad says otherwise: each uses all cores."""
KEPT_SECONDS = 24 * 3600
"""How long a finished Job is kept. Longer than any step: if a Job is gone, Dagster considers its step failed."""
GRACE_SECONDS = 60
"""Between a pod's SIGTERM and its SIGKILL: enough for the step to report that it must be retried."""
SPOT_TAINTS = {"cloud.google.com/gke-spot": "true", "kubernetes.azure.com/scalesetpriority": "spot"}
"""Taints of spot nodes by cloud, GKE and AKS; EKS sets none, a team may set its own."""
STAYS = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
"""Annotations: an autoscaler must not move a step to free its node."""


def executor(pipelines: Sequence[Pipeline]) -> dg.ExecutorDefinition:
    """The executor of every run. What the launchpad says under `execution` takes precedence over our settings.

    Raises:
        ComputeError: the environment names an unknown executor.
    """
    name = executor_name()
    if name == "in_process":
        return dg.in_process_executor
    if name == "multiprocess":
        return _processes()
    return _pods(pipelines)


def _processes() -> dg.ExecutorDefinition:
    """One process per step."""

    def config_of(context: dg.InitExecutorContext) -> dict[str, Any]:
        config = dict(context.executor_config)
        return config | {"max_concurrent": config.get("max_concurrent") or PROCESSES}

    return _with_config(dg.multiprocess_executor, config_of)


def _pods(pipelines: Sequence[Pipeline]) -> dg.ExecutorDefinition:
    """One pod per step."""
    from dagster_k8s import k8s_job_executor  # takes half a second, so imported only where there are pods

    from batch_scoring.defs.execution.k8s_executor import PodExecutor

    def config_of(context: dg.InitExecutorContext) -> dict[str, Any]:
        layer = context.job.get_definition().asset_layer
        keys = [*layer.executable_asset_keys, *(check.asset_key for check in layer.asset_graph.asset_check_keys)]
        names = {key.path[0] for key in keys}
        check_shared_folders([pipeline for pipeline in pipelines if pipeline.name in names])
        image = os.environ.get("DAGSTER_CURRENT_IMAGE")  # for commands that are run in a code location's pod
        return ({"job_image": image} if image else {}) | dict(context.executor_config)

    return _with_config(k8s_job_executor, config_of, PodExecutor)


def _with_config(
    made: dg.ExecutorDefinition,
    config_of: Callable[[dg.InitExecutorContext], dict[str, Any]],
    finish: Callable[[Any], dg.Executor] = lambda executor: executor,
) -> dg.ExecutorDefinition:
    """Wrap one of Dagster's executors so that its config passes through `config_of` first.

    `configured` would do the same, and ignore the launchpad.
    """

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        assert made.executor_creation_fn is not None  # Dagster's own have one
        return finish(made.executor_creation_fn(context._replace(executor_config=config_of(context))))

    schema: Any = made.config_schema
    return dg.ExecutorDefinition(
        made.name, schema, dg.multiple_process_executor_requirements(), executor_creation_fn=create
    )


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
    return {K8S_TAG: pod_config(pod, hours), START_MINUTES: f"{pod.start_minutes:g}"}


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
