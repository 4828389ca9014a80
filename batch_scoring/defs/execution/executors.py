"""Where steps run: the executor by the environment, and what a spec's `compute` section makes of each step's pod.

`BATCH_SCORING_EXECUTOR` says how the steps of a run are executed: `in_process` (default, one process a run),
`multiprocess` (a process a step) or `k8s` (a pod a step). What a pod asks for stands on the assets, not on their jobs:
so it holds for runs that are started in the UI too.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import Pod, ScoringPod, Toleration
from batch_scoring.errors import BatchScoringError
from batch_scoring.operations.pod_words import START_MINUTES

VARIABLE = "BATCH_SCORING_EXECUTOR"
EXECUTORS = ("in_process", "multiprocess", "k8s")
SHARED = "BATCH_SCORING_DATA_SHARED"
"""1: every pod mounts the local folders at the same place."""

GPUS = "BATCH_SCORING_GPUS"
"""Set in a pod that has GPUs: how many."""
K8S_TAG = "dagster-k8s/config"
GPU_POOL = "gpu"
"""Bounds the steps with a GPU over all runs, if the instance gives it a limit."""
RETRY_SECONDS = 15
"""Before a lost step's next pod; doubled each time, more or less by chance."""
PROCESSES = 2
"""Steps of a run at a time under `multiprocess`, unless the launchpad says otherwise: each uses all cores."""
KEPT_SECONDS = 24 * 3600
"""For which an ended Job is kept. Longer than a step: of a Job that is gone Dagster says that the step has failed."""
GRACE_SECONDS = 60
"""Between a pod's SIGTERM and its SIGKILL: the step says that it is to be run again."""
SPOT_TAINTS = {"cloud.google.com/gke-spot": "true", "kubernetes.azure.com/scalesetpriority": "spot"}
"""What nodes that may be taken away are tainted with, by cloud; on EKS with nothing, unless a team does it itself."""
STAYS = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
"""Annotations: a step is not moved to another node to save one."""


class ComputeError(BatchScoringError, dg.DagsterInvariantViolationError):
    """The steps cannot run as the environment asks for."""

    exit_code = 2


def executor_name() -> str:
    """How steps are executed, by the environment.

    Raises:
        ComputeError: the variable has another value.
    """
    name = os.environ.get(VARIABLE) or EXECUTORS[0]
    if name not in EXECUTORS:
        raise ComputeError(f"{VARIABLE} is {name!r}; expected {', '.join(EXECUTORS[:-1])} or {EXECUTORS[-1]}")
    return name


@contextlib.contextmanager
def in_this_process() -> Iterator[None]:
    """Define assets for a command that runs them itself, whatever the deployment does with its runs."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "in_process"
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def executor(pipelines: Sequence[Pipeline]) -> dg.ExecutorDefinition:
    """What executes the steps of every run; the launchpad's `execution` section holds for each of them.

    Raises:
        ComputeError: the environment asks for one that there is not.
    """
    name = executor_name()
    if name == "in_process":
        return dg.in_process_executor
    if name == "multiprocess":
        return _processes()
    return _pods(pipelines)


def _processes() -> dg.ExecutorDefinition:
    """A process a step."""

    def config_of(context: dg.InitExecutorContext) -> dict[str, Any]:
        config = dict(context.executor_config)
        return config | {"max_concurrent": config.get("max_concurrent") or PROCESSES}

    return _like(dg.multiprocess_executor, config_of)


def _pods(pipelines: Sequence[Pipeline]) -> dg.ExecutorDefinition:
    """A pod a step."""
    from dagster_k8s import k8s_job_executor  # half a second, and only where there are pods

    from batch_scoring.defs.execution.k8s_executor import PodExecutor

    def config_of(context: dg.InitExecutorContext) -> dict[str, Any]:
        layer = context.job.get_definition().asset_layer
        keys = [*layer.executable_asset_keys, *(check.asset_key for check in layer.asset_graph.asset_check_keys)]
        names = {key.path[0] for key in keys}
        refuse_local_folders([pipeline for pipeline in pipelines if pipeline.name in names])
        image = os.environ.get("DAGSTER_CURRENT_IMAGE")  # of a command that is typed in a code location's pod
        return ({"job_image": image} if image else {}) | dict(context.executor_config)

    return _like(k8s_job_executor, config_of, PodExecutor)


def _like(
    made: dg.ExecutorDefinition,
    config_of: Callable[[dg.InitExecutorContext], dict[str, Any]],
    finish: Callable[[Any], dg.Executor] = lambda executor: executor,
) -> dg.ExecutorDefinition:
    """One of Dagster's executors, its config seen to first; what an operator writes into the launchpad holds."""
    # a `configured` one would ignore the launchpad

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        assert made.executor_creation_fn is not None  # Dagster's own have one
        return finish(made.executor_creation_fn(context._replace(executor_config=config_of(context))))

    schema: Any = made.config_schema
    return dg.ExecutorDefinition(
        made.name, schema, multiple_process_executor_requirements(), executor_creation_fn=create
    )


def refuse_local_folders(pipelines: Sequence[Pipeline]) -> None:
    """Raise if pods would each look into a folder of their own.

    Raises:
        ComputeError: naming the pipelines' folders.
    """
    if os.environ.get(SHARED) == "1":
        return
    local = [
        f"{pipeline.name}: {folder.uri}"
        for pipeline in pipelines
        for folder in (pipeline.landing, pipeline.output)
        if folder.is_local
    ]
    if local:
        raise ComputeError(
            f"{VARIABLE} is k8s, and no pod would see what another has written to a local folder ({'; '.join(local)}); "
            f"set BATCH_SCORING_DATA to s3://bucket/prefix, or {SHARED}=1 if every pod mounts that folder"
        )


def step_options(pipeline: Pipeline, asset: str) -> dict[str, Any]:
    """Arguments of an asset, or of a check with a step of its own: its pod, new pods for a lost one, its pool."""
    return {"op_tags": tags(pipeline, asset), **_policies(pipeline, asset)}


def op_options(pipeline: Pipeline, asset: str) -> dict[str, Any]:
    """The same, for one of the ops that an asset is made of."""
    return {"tags": tags(pipeline, asset), **_policies(pipeline, asset)}


def tags(pipeline: Pipeline, asset: str) -> dict[str, Any]:
    """The tags of a step: what dagster-k8s makes its pod of. Every other executor ignores them."""
    pod = pipeline.spec.compute.of(asset)
    hours = pod.max_hours or pipeline.spec.runs.max_hours
    return {K8S_TAG: pod_config(pod, hours), START_MINUTES: f"{pod.start_minutes:g}"}


def _policies(pipeline: Pipeline, asset: str) -> dict[str, Any]:
    """New tries and pool of a step, where it has a process of its own.

    Without one there is nobody left to try again; and Ctrl-C would be taken for a lost pod.
    """
    name, pod = executor_name(), pipeline.spec.compute.of(asset)
    pool = pod.pool or (GPU_POOL if isinstance(pod, ScoringPod) and pod.gpu else "")
    again = dg.RetryPolicy(pod.retries, RETRY_SECONDS, dg.Backoff.EXPONENTIAL, dg.Jitter.PLUS_MINUS)
    return {
        "retry_policy": again if name != "in_process" and pod.retries else None,
        "pool": pool if name == "k8s" and pool else None,
    }


def pod_config(pod: Pod, hours: float) -> dict[str, Any]:
    """A step's pod, in dagster-k8s's words; lists are appended to what launcher and code location say.

    Args:
        pod: what the spec asks for.
        hours: after which Kubernetes ends it, whatever has become of its run; waiting counts.
    """
    # torch, Arrow and the engine count the node's cores otherwise
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
    # never a backoff_limit, nor a podFailurePolicy: a pod that Kubernetes starts anew leaves the run on for ever
    job = {"ttl_seconds_after_finished": KEPT_SECONDS, "active_deadline_seconds": round(hours * 3600)}
    return {
        "container_config": container,
        "pod_spec_config": spec,
        "pod_template_spec_metadata": {"annotations": dict(STAYS)},
        "job_spec_config": job,
    }


def device(pipeline: Pipeline) -> str:
    """The device that scores: cpu, cuda or auto. A pod with a GPU that torch does not see must not go unnoticed."""
    asked = pipeline.spec.scoring.device
    return "cuda" if asked == "auto" and os.environ.get(GPUS) else asked


def known_device(pipeline: Pipeline) -> str | None:
    """The device that scores, as far as another machine can know; `auto` outside of a pod is that machine's to find."""
    asked, pod = device(pipeline), pipeline.spec.compute.of("predictions")
    if asked == "auto":
        return None if executor_name() != "k8s" else "cuda" if isinstance(pod, ScoringPod) and pod.gpu else "cpu"
    return asked


def _cores(cpu: float) -> str:
    return f"{cpu:g}" if cpu == int(cpu) else f"{round(cpu * 1000)}m"


def _toleration(toleration: Toleration) -> dict[str, str]:
    said = toleration.model_dump()
    return {name: value for name, value in said.items() if value}
